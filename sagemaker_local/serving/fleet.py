"""Running fleets: the model servers of an endpoint's variants, and which of two fleets takes an invocation."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from sagemaker_local import s3
from sagemaker_local.artifacts import unpack
from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceError, ThrottlingException, ValidationError
from sagemaker_local.logs import LogShipper
from sagemaker_local.serving.deployment import DeploymentError
from sagemaker_local.serving.model_server import LOG_FILE, ModelServer, ServerSpec, StartError
from sagemaker_local.serving.routing import choose_instance, choose_weighted
from sagemaker_local.serving.settings import (
    MAX_ASYNC_PAYLOAD_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SERVERLESS_PAYLOAD_BYTES,
    ServingSettings,
)
from sagemaker_local.serving.specs import FleetSpec, VariantSpec

MODEL_ARCHIVE = "model.tar.gz"
LOG_GROUP = "/aws/sagemaker/Endpoints/"
LOG_PATIENCE = 3.0  # seconds that an ending instance waits for CloudWatch Logs


class NoInstanceError(Exception):
    """No instance of the variant became healthy in time."""


class VariantFleet:
    """The instances of one variant. `weight` is the one in force."""

    def __init__(
        self, ctx: Context, endpoint: str, spec: VariantSpec, root: Path, settings: ServingSettings, max_answer: int
    ) -> None:
        self.name = spec.name
        self.weight = spec.weight
        self.spec = spec
        self.one_at_a_time = asyncio.Lock()
        self._ctx = ctx
        self._endpoint = endpoint
        self._root = root
        self._settings = settings
        self._max_answer = max_answer
        self._instances: list[ModelServer] = []
        self._logs: dict[str, LogShipper] = {}
        self._healthy: list[ModelServer] = []
        self._any_healthy = asyncio.Event()
        self._scaling = asyncio.Lock()

    @property
    def instance_count(self) -> int:
        """Healthy instances."""
        return len(self._healthy)

    def admit(self, body: bytes) -> None:
        """Hold a serverless variant to its limits.

        Raises:
            ValidationError: the body is longer than a serverless variant takes.
            ThrottlingException: MaxConcurrency invocations are under way already.
        """
        if self.spec.serverless is None:
            return
        if len(body) > MAX_SERVERLESS_PAYLOAD_BYTES:
            raise ValidationError(
                "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length "
                f"less than or equal to {MAX_SERVERLESS_PAYLOAD_BYTES}"
            )
        if sum(instance.outstanding for instance in self._instances) >= self.spec.serverless["MaxConcurrency"]:
            raise ThrottlingException(
                f"MaxConcurrency of variant {self.name} is {self.spec.serverless['MaxConcurrency']}."
            )

    @property
    def size(self) -> int:
        """Instances, healthy or not."""
        return len(self._instances)

    def apply(self, spec: VariantSpec) -> None:
        """Take over another weight and instance count; `scale` brings the instances."""
        self.spec, self.weight = spec, spec.weight

    async def pick(self, timeout: float) -> ModelServer:
        """An instance to send an invocation to, waiting up to `timeout` seconds for a healthy one.

        Raises:
            NoInstanceError: there is none in time; at once where every instance keeps failing to start.
        """
        instance = choose_instance(self._healthy, self.spec.strategy, random.random())  # noqa: S311
        if instance is not None:
            return instance
        if self._instances and all(one.keeps_failing for one in self._instances):
            raise NoInstanceError(f"the model server of variant {self.name} ends whenever it is started")
        try:
            async with asyncio.timeout(max(timeout, 0.0)):
                await self._any_healthy.wait()
        except TimeoutError:
            raise NoInstanceError(f"variant {self.name} has no healthy instance") from None
        return await self.pick(timeout)

    async def scale(self, count: int, *, revive: bool = False) -> None:
        """Have `count` instances. More: returns when all are healthy; fewer: the least busy end, drained.

        With `revive` they are tried more often, and another call of `scale` need not wait for that.

        At an error those that did start are left for the caller to end.

        Raises:
            StartError: an instance does not become healthy.
            ValidationException: nothing stands for the image any more.
            s3.DataError: the model artifact cannot be had or unpacked.
            s3.OutageError: S3 did not answer for as long as the service waits.
        """
        async with self._scaling:
            starting = await self._scale(count, revive)
            if not revive:
                await _all_started(starting)
        if revive:
            await _all_started(starting)

    async def _scale(self, count: int, revive: bool) -> list[asyncio.Future[None]]:
        if count > len(self._instances):
            await asyncio.to_thread(self._fetch_model)
            return [await self._add(revive) for _ in range(count - len(self._instances))]
        if count < len(self._instances):
            ending = sorted(self._instances, key=lambda instance: (instance.healthy, instance.outstanding))
            await self._remove(ending[: len(self._instances) - count])
        return []

    async def stop(self) -> None:
        """End all instances at once."""
        await self._remove(list(self._instances), drain=False)

    async def _add(self, revive: bool) -> asyncio.Future[None]:
        instance_id = f"i-{uuid.uuid4().hex[:17]}"
        root = self._root / instance_id
        await asyncio.to_thread(self._prepare, root)
        image = self._ctx.images.find(self.spec.image)
        log = instance_log(self._ctx, self._endpoint, self.name, root)
        spec = ServerSpec(
            variant=self.name,
            root=root,
            command=image.run("serve"),
            environment={**image.environment, "AWS_REGION": self._ctx.config.region, **self.spec.environment},
            startup_timeout=self.spec.startup_timeout or self._settings.startup_timeout,
            max_answer=self._max_answer,
        )
        instance = ModelServer(spec, self._ctx.processes, self._settings, self._note_health)
        log.start()
        self._logs[instance_id] = log
        self._instances.append(instance)
        return instance.start(revive=revive)

    async def _remove(self, instances: list[ModelServer], *, drain: bool = True) -> None:
        self._instances = [instance for instance in self._instances if instance not in instances]
        self._note_health()
        await asyncio.gather(*(self._end(instance, drain) for instance in instances))

    async def _end(self, instance: ModelServer, drain: bool) -> None:
        if drain and instance.healthy:
            await instance.drained(self._settings.drain_timeout)
        await instance.stop()
        await asyncio.to_thread(self._logs.pop(instance.instance_id).finish, LOG_PATIENCE)
        await asyncio.to_thread(shutil.rmtree, self._root / instance.instance_id, True)

    def _note_health(self) -> None:
        self._healthy = [instance for instance in self._instances if instance.healthy]
        if self._healthy:
            self._any_healthy.set()
        else:
            self._any_healthy.clear()

    def _fetch_model(self) -> None:
        """Fetch the artifact once; it stays for later instances, also when S3 is down at a restart."""
        uri, archive = self.spec.model_data_url, self._root / MODEL_ARCHIVE
        if uri is None or archive.exists():
            return
        bucket, key = s3.split_uri(uri)
        partial = f"{MODEL_ARCHIVE}.partial"
        s3.download(self._ctx, bucket, {key: partial}, self._root)
        os.replace(self._root / partial, archive)

    def _prepare(self, root: Path) -> None:
        (root / "model").mkdir(parents=True, exist_ok=True)
        if self.spec.model_data_url is not None:
            unpack(self._root / MODEL_ARCHIVE, root / "model")


class Fleet:
    """All variants of one endpoint config, running."""

    def __init__(self, ctx: Context, endpoint: str, spec: FleetSpec, root: Path, settings: ServingSettings) -> None:
        self.spec = spec
        self.root = root / spec.id
        self.capture = spec.capture_settings()
        max_answer = MAX_ASYNC_PAYLOAD_BYTES if spec.async_inference else MAX_PAYLOAD_BYTES
        self.variants = {
            variant.name: VariantFleet(ctx, endpoint, variant, self.root / variant.name, settings, max_answer)
            for variant in spec.variants
        }

    @property
    def serves(self) -> bool:
        """Whether any instance is healthy."""
        return any(variant.instance_count for variant in self.variants.values())

    async def grow(self, capacity: float, *, revive: bool = False) -> None:
        """Have this share (in [0, 1]) of every variant's instances, at least one each.

        Raises:
            DeploymentError: an instance cannot be had; the message is the FailureReason.
        """
        try:
            await asyncio.gather(
                *(variant.scale(_part(variant.spec, capacity), revive=revive) for variant in self.variants.values())
            )
        except (StartError, s3.DataError, s3.OutageError, ServiceError, OSError) as error:
            raise DeploymentError(_reason(error)) from error

    async def shrink(self, capacity: float) -> None:
        """End all but this share of every variant's instances, each when its invocations are answered."""
        await asyncio.gather(
            *(
                variant.scale(0 if capacity <= 0 else min(_part(variant.spec, capacity), variant.size))
                for variant in self.variants.values()
            )
        )

    async def resize(self, spec: FleetSpec) -> None:
        """Take over other weights and instance counts of the same variants.

        Raises:
            DeploymentError: an instance cannot be had; the message is the FailureReason.
        """
        self.spec = spec
        for variant in spec.variants:
            self.variants[variant.name].apply(variant)
        await self.grow(1.0)

    async def stop(self, *, keep_files: bool = False) -> None:
        """End every instance now; without `keep_files` the directory goes too."""
        await asyncio.gather(*(variant.stop() for variant in self.variants.values()))
        if not keep_files:
            await asyncio.to_thread(shutil.rmtree, self.root, True)


class Traffic:
    """Which fleet and variant takes an invocation. During a deployment `incoming` takes `share` of them."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self.current: Fleet | None = None
        self.incoming: Fleet | None = None
        self.share = 0.0
        self._draw = draw

    def choose(self, target_variant: str | None = None) -> tuple[Fleet, VariantFleet] | None:
        """Fleet and variant; None when there is no fleet, no such variant or no variant with a weight."""
        candidates = [self.current, self.incoming]
        if self.incoming is not None and (self.share >= 1.0 or self._draw() < self.share):
            candidates.reverse()
        if not 0.0 < self.share < 1.0:
            del candidates[1:]  # the other fleet takes no traffic at all
        for fleet in candidates:
            if fleet is None:
                continue
            weights = {name: variant.weight for name, variant in fleet.variants.items()}
            name = target_variant or choose_weighted(weights, self._draw())
            if name in fleet.variants:
                return fleet, fleet.variants[name]
        return None


def instance_log(ctx: Context, endpoint: str, variant: str, root: Path) -> LogShipper:
    """Ships the log of the instance whose directory is `root`, named as the instance, to the endpoint's log group."""
    return LogShipper(ctx, LOG_GROUP + endpoint, f"{variant}/{root.name}", root / LOG_FILE)


async def _all_started(starting: list[asyncio.Future[None]]) -> None:
    for result in await asyncio.gather(*starting, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _part(spec: VariantSpec, capacity: float) -> int:
    return min(spec.instance_count, max(1, math.ceil(spec.instance_count * capacity - 1e-9)))


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", error))[:1024]
