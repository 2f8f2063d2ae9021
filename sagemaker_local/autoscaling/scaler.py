"""What scales: once a minute, every policy's variant is given the instances that its invocations ask for."""

from __future__ import annotations

import asyncio
import logging

from sagemaker_local.autoscaling.records import POLICY, TARGET, is_cool, variant_of, wanted_instances
from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceError
from sagemaker_local.serving.controller import Endpoints
from sagemaker_local.serving.operations import update_endpoint_weights_and_capacities
from sagemaker_local.serving.specs import FleetSpec
from sagemaker_local.serving.states import ENDPOINT, IN_SERVICE
from sagemaker_local.store import Resource

log = logging.getLogger(__name__)


class Scaler:
    """Compares how many invocations there were since the last look. Used on the event loop of the endpoints."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._counted: dict[tuple[str, str], int] = {}
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look every period, for ever."""
        period = self._ctx.use(Endpoints).settings.scaling_period
        while True:
            await asyncio.sleep(period)
            for policy in await asyncio.to_thread(lambda: list(self._ctx.store.every(POLICY))):
                try:
                    await self._apply(policy, period)
                except ServiceError as error:  # the endpoint changed meanwhile; the next look sees it as it is
                    log.warning("%s was not scaled: %s", policy.parent, error.message)
                except Exception:
                    log.exception("%s was not scaled", policy.parent)

    async def _apply(self, policy: Resource, period: float) -> None:
        endpoint, variant = variant_of(policy.body)
        total = self._ctx.use(Endpoints).metrics.totals[endpoint, variant]
        # A policy seen for the first time has nothing to compare with yet.
        per_minute = (total - self._counted.setdefault((endpoint, variant), total)) * 60.0 / period
        self._counted[endpoint, variant] = total
        target = await asyncio.to_thread(self._ctx.store.get, TARGET, policy.parent)
        record = await asyncio.to_thread(self._ctx.store.get, ENDPOINT, endpoint)
        if target is None or record is None or record.status != IN_SERVICE:
            return
        variants = {one.name: one for one in FleetSpec.from_dict(record.internal["current"]).variants}
        current = variants[variant].instance_count
        wanted = wanted_instances(target.body, policy.body, current, per_minute)
        now = self._ctx.now()
        if wanted == current or not is_cool(policy, wanted, current, now):
            return
        log.info("%s: %d instances become %d at %.0f invocations a minute", policy.parent, current, wanted, per_minute)
        change = {"VariantName": variant, "DesiredInstanceCount": wanted}
        request = {"EndpointName": endpoint, "DesiredWeightsAndCapacities": [change]}
        await update_endpoint_weights_and_capacities(self._ctx, request)
        await asyncio.to_thread(
            self._ctx.store.update, POLICY, policy.name, lambda row: row.internal.update(changed=now), touch=False
        )


async def start(ctx: Context) -> None:
    """Begin to look."""
    scaler = Scaler(ctx)
    scaler.task = asyncio.get_running_loop().create_task(scaler.run(), name="autoscaling")
    ctx.provide(scaler)


async def stop(ctx: Context) -> None:
    """Look no more."""
    task = ctx.use(Scaler).task
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
