"""The life of endpoints: every change is written to the store first, then carried out, and resumed after a restart."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.serving import announcements, states
from sagemaker_local.serving.alarms import AlarmWatch
from sagemaker_local.serving.async_inference import AsyncInvocations
from sagemaker_local.serving.deployment import DeploymentError, carry_out, make_plan
from sagemaker_local.serving.fleet import Fleet, Traffic
from sagemaker_local.serving.live import FleetPair, LiveEndpoint
from sagemaker_local.serving.metrics import EndpointMetrics
from sagemaker_local.serving.model_server import StartError
from sagemaker_local.serving.outside import clear_leftovers, deliver_capture, find_leftovers, put_metrics
from sagemaker_local.serving.settings import ServingSettings
from sagemaker_local.serving.specs import FleetSpec
from sagemaker_local.serving.spool import CaptureSpool
from sagemaker_local.store import Resource

log = logging.getLogger(__name__)
_REVIVE_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
_THREADS = 32  # for calls that wait: with asyncio's own few, an S3 that is away would hold up everything else


class Endpoints:
    """All endpoints of the service: `live` by name, `begin_*` after a handler has written what is to happen.

    Used on the event loop that `start` ran on.
    """

    def __init__(self, ctx: Context, settings: ServingSettings) -> None:
        self.ctx = ctx
        self.settings = settings
        self.live: dict[str, LiveEndpoint] = {}
        self.root = ctx.config.data_dir / "endpoints"
        self.spool = CaptureSpool(
            ctx.config.data_dir / "capture",
            lambda destination, path: deliver_capture(ctx, destination, path),
            flush_age=settings.capture_flush_age,
            flush_bytes=settings.capture_flush_bytes,
            now=lambda: datetime.fromtimestamp(ctx.now(), UTC),
        )
        self._clearing: asyncio.Task[None] | None = None
        self.metrics = EndpointMetrics(lambda data: put_metrics(ctx, data), settings.metrics_period)
        self.queue = AsyncInvocations(ctx, self.live, self.metrics)

    async def start(self) -> None:
        """Bring back what was InService and go on with what was under way."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="serving"))
        self.spool.start()
        self.metrics.start()
        records = await asyncio.to_thread(
            self.ctx.store.with_status, states.ENDPOINT, *states.SERVING, states.CREATING, states.DELETING
        )
        # Listed before anything new is started, cleared beside it: nobody waits for an absent CloudWatch Logs.
        leftovers = await asyncio.to_thread(find_leftovers, self.root, records)
        self._clearing = loop.create_task(
            asyncio.to_thread(clear_leftovers, self.ctx, *leftovers), name="clear leftovers"
        )
        for record in records:
            if record.status in states.SERVING:
                self._revive(record)
            resume = {
                states.CREATING: self.begin_create,
                states.UPDATING: self.begin_update,
                states.ROLLING_BACK: self.begin_rollback,
                states.DELETING: self.begin_delete,
            }.get(record.status)
            if resume is not None:
                log.info("endpoint %s: going on with %s", record.name, record.status)
                resume(record.name)

    async def stop(self) -> None:
        """End all model servers; their endpoints stay as they are in the store. Captures are flushed."""
        await self.queue.stop()
        live = list(self.live.values())
        tasks = [task for endpoint in live for task in (endpoint.work, endpoint.revival) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        fleets = [fleet for one in live for fleet in (one.traffic.current, one.traffic.incoming) if fleet is not None]
        self.live.clear()
        await asyncio.gather(*(fleet.stop(keep_files=True) for fleet in fleets), return_exceptions=True)
        await self.spool.stop()
        await self.metrics.stop()

    # -- what handlers begin

    def begin_create(self, name: str) -> None:
        """Start the fleet of a Creating endpoint."""
        self._begin(name, self._create)

    def begin_update(self, name: str) -> None:
        """Deploy the pending fleet of an Updating endpoint, or give the current one its pending weights and counts."""
        self._begin(name, self._update)

    def begin_rollback(self, name: str) -> None:
        """Finish a rollback that a restart cut short: the old fleet is what comes back."""
        self._begin(name, self._finish_rollback)

    def begin_delete(self, name: str) -> None:
        """End a Deleting endpoint and remove it."""
        self._begin(name, self._delete)

    def _begin(self, name: str, work: Callable[[LiveEndpoint, Resource], Awaitable[None]]) -> None:
        endpoint = self.live.setdefault(name, LiveEndpoint(name))
        endpoint.work = asyncio.get_running_loop().create_task(self._guard(endpoint, work), name=f"endpoint {name}")

    async def _guard(self, endpoint: LiveEndpoint, work: Callable[[LiveEndpoint, Resource], Awaitable[None]]) -> None:
        """Run `work`; a defect in it must not leave the endpoint between two states."""
        record = await asyncio.to_thread(self.ctx.store.get, states.ENDPOINT, endpoint.name)
        if record is None:
            return
        try:
            await work(endpoint, record)
        except Exception as error:
            log.exception("endpoint %s: unexpected error", endpoint.name)
            reason = f"Internal error of the service: {type(error).__name__}: {error}"
            if endpoint.traffic.current is None:
                await self._fail(endpoint, states.FAILED, reason)
            else:
                await self._roll_back(endpoint, reason)
        finally:
            endpoint.stage = None

    # -- the work

    async def _create(self, endpoint: LiveEndpoint, record: Resource) -> None:
        spec = FleetSpec.from_dict(record.internal["pending"]["fleet"])
        fleet = endpoint.traffic.incoming = self._fleet(endpoint.name, spec)
        await self.set_stage(endpoint, "Creating")
        try:
            await fleet.grow(1.0)
        except DeploymentError as error:
            await self._fail(endpoint, states.FAILED, str(error))
            return
        endpoint.traffic.current, endpoint.traffic.incoming = fleet, None
        await self._commit(endpoint.name, spec)

    async def _update(self, endpoint: LiveEndpoint, record: Resource) -> None:
        pending = record.internal["pending"]
        spec = FleetSpec.from_dict(pending["fleet"])
        try:
            if pending["kind"] == "resize":
                await self._resize(endpoint, spec)
            else:
                await self._deploy(endpoint, spec, pending.get("deployment"))
        except DeploymentError as error:
            await self._roll_back(endpoint, str(error))
            return
        await self._commit(endpoint.name, spec)

    async def _resize(self, endpoint: LiveEndpoint, spec: FleetSpec) -> None:
        assert endpoint.traffic.current is not None
        await self.set_stage(endpoint, "Updating")
        await endpoint.traffic.current.resize(spec)

    async def _deploy(self, endpoint: LiveEndpoint, spec: FleetSpec, deployment: dict[str, Any] | None) -> None:
        traffic = endpoint.traffic
        plan = make_plan(deployment, spec.instances)
        traffic.share = 0.0
        traffic.incoming = self._fleet(endpoint.name, spec)
        watch = AlarmWatch(self.ctx.clients.get("cloudwatch"), plan.alarms)
        await carry_out(
            plan,
            FleetPair(traffic, lambda stage: self.set_stage(endpoint, stage)),
            alarm_reason=watch.reason,
            sleep=asyncio.sleep,
            now=asyncio.get_running_loop().time,
            poll_seconds=self.settings.alarm_poll,
        )
        old, traffic.current, traffic.incoming, traffic.share = traffic.current, traffic.incoming, None, 0.0
        await _cancelled(endpoint.revival)  # else it would go on to bring back the old fleet
        if old is not None:
            await old.stop()

    async def _roll_back(self, endpoint: LiveEndpoint, reason: str) -> None:
        """Give all traffic back to the old fleet, at its old size, and end the new one."""
        log.warning("endpoint %s: rolling back: %s", endpoint.name, reason)
        await self._set(endpoint.name, states.ROLLING_BACK, reason)
        record = await asyncio.to_thread(self.ctx.store.get, states.ENDPOINT, endpoint.name)
        traffic = endpoint.traffic
        assert record is not None
        assert traffic.current is not None
        try:
            await traffic.current.resize(FleetSpec.from_dict(record.internal["current"]))
        except DeploymentError as error:
            await self._fail(endpoint, states.UPDATE_ROLLBACK_FAILED, f"{reason} The rollback failed too: {error}")
            return
        traffic.share = 0.0
        failed, traffic.incoming = traffic.incoming, None
        if failed is not None:
            await failed.shrink(0.0)
            await failed.stop()
        await self._settle(endpoint.name)

    async def _finish_rollback(self, endpoint: LiveEndpoint, record: Resource) -> None:
        await self._settle(endpoint.name)

    async def _delete(self, endpoint: LiveEndpoint, record: Resource) -> None:
        fleets = [fleet for fleet in (endpoint.traffic.current, endpoint.traffic.incoming) if fleet is not None]
        await _cancelled(endpoint.revival)
        await self.queue.drop(endpoint.name)
        endpoint.traffic = Traffic()
        for fleet in fleets:
            await fleet.shrink(0.0)
            await fleet.stop()
        # Later deliveries need no endpoint: what S3 does not take now is sent by the spool when it does.
        await self.spool.flush(endpoint.name)
        await asyncio.to_thread(shutil.rmtree, self.root / endpoint.name, True)
        self.live.pop(endpoint.name, None)  # before its name is free for another
        await asyncio.to_thread(self.ctx.store.delete, states.ENDPOINT, endpoint.name)

    # -- helpers

    def _fleet(self, name: str, spec: FleetSpec) -> Fleet:
        return Fleet(self.ctx, name, spec, self.root / name, self.settings)

    def _revive(self, record: Resource) -> None:
        """Start the fleet of an endpoint that was serving; invocations wait for it meanwhile.

        What it needs from elsewhere (S3) is waited for as long as it takes. Model servers that end at every start, as
        with an artifact that this version's algorithm no longer reads, make the endpoint Failed with that reason.
        """
        endpoint = self.live.setdefault(record.name, LiveEndpoint(record.name))
        fleet = endpoint.traffic.current = self._fleet(record.name, FleetSpec.from_dict(record.internal["current"]))

        async def revive() -> None:
            for tries in count():
                try:
                    await fleet.grow(1.0, revive=True)
                except DeploymentError as error:
                    if isinstance(error.__cause__, StartError):
                        if endpoint.work is not None:  # an update may replace the fleet
                            await asyncio.wait({endpoint.work})
                        if endpoint.traffic.current is fleet and not fleet.serves:
                            await self._fail(endpoint, states.FAILED, str(error))
                        return
                    pause = _REVIVE_PAUSES[min(tries, len(_REVIVE_PAUSES) - 1)]
                    log.warning("endpoint %s does not come back (%s); again in %g s", record.name, error, pause)
                    await asyncio.sleep(pause)
                else:
                    await self.queue.resume(record.name, fleet.spec)
                    return

        endpoint.revival = asyncio.get_running_loop().create_task(revive(), name=f"revive {record.name}")

    async def _fail(self, endpoint: LiveEndpoint, status: str, reason: str) -> None:
        log.warning("endpoint %s: %s: %s", endpoint.name, status, reason)
        traffic, endpoint.traffic = endpoint.traffic, Traffic()
        if status == states.UPDATE_ROLLBACK_FAILED:
            endpoint.traffic.current, traffic.current = traffic.current, None  # what still runs of it still serves
        for fleet in (traffic.current, traffic.incoming):
            if fleet is not None:
                await fleet.stop()
        await self._set(endpoint.name, status, reason, _drop_pending)

    async def _commit(self, name: str, spec: FleetSpec) -> None:
        """The new fleet is the endpoint."""

        def change(record: Resource) -> None:
            pending = record.internal.pop("pending", {})
            record.internal["current"] = spec.as_dict()
            record.body["EndpointConfigName"] = spec.config_name
            if pending.get("kind") == "deploy":
                record.body["LastDeploymentConfig"] = pending.get("deployment")

        await self._set(name, states.IN_SERVICE, None, change)

    async def _settle(self, name: str) -> None:
        """InService again on what it was before; the FailureReason stays to be read."""
        await self._set(name, states.IN_SERVICE, "", _drop_pending)

    async def _set(
        self, name: str, status: str, reason: str | None, also: Callable[[Resource], None] | None = None
    ) -> None:
        """Write a status; `reason` None clears the FailureReason, "" keeps it."""

        def change(record: Resource) -> None:
            record.status = status
            if reason is None:
                record.body.pop("FailureReason", None)
            elif reason:
                record.body["FailureReason"] = reason[:1024]
            if also is not None:
                also(record)

        record = await asyncio.to_thread(self.ctx.store.update, states.ENDPOINT, name, change)
        if record is not None:
            self.announce(record)

    def announce(self, record: Resource) -> None:
        """Send the event of an endpoint's new status."""
        announcements.status_changed(self.ctx, record, self.live.get(record.name))

    async def set_stage(self, endpoint: LiveEndpoint, stage: str) -> None:
        """Say where the endpoint's deployment stands, in DescribeEndpoint and as an event."""
        endpoint.stage, endpoint.stage_since = stage, self.ctx.now()
        record = await asyncio.to_thread(self.ctx.store.get, states.ENDPOINT, endpoint.name)
        if record is not None:
            announcements.stage_changed(self.ctx, record, endpoint)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})


def _drop_pending(record: Resource) -> None:
    record.internal.pop("pending", None)
