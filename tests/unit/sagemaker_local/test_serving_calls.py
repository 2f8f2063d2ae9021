"""Invocations on their way, direct and asynchronous, with stand-ins for instances."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import ModelError
from sagemaker_local.serving.async_inference import AsyncInvocations
from sagemaker_local.serving.invocation import Call
from sagemaker_local.serving.metrics import EndpointMetrics
from sagemaker_local.serving.model_client import ResponseTooLargeError
from sagemaker_local.serving.specs import FleetSpec, VariantSpec


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    made = Context(Config(data_dir=tmp_path, account_id="1" * 12))
    yield made
    made.close()


def test_an_answer_that_is_too_large_is_told_with_the_limit_of_its_endpoint(ctx):
    class Instance:
        spec = SimpleNamespace(max_answer=4_194_304)

        async def invoke(self, *_: Any) -> Any:
            raise ResponseTooLargeError("too large", sent=True)

    class Variant:
        name = "v"

        async def pick(self, timeout: float) -> Instance:
            return Instance()

    call = Call(ctx, EndpointMetrics(lambda data: None, 1.0), "e", cast(Any, Variant()), 1.0)
    with pytest.raises(ModelError, match="larger than 4194304 bytes"):
        asyncio.run(call.run([], b""))


def test_more_instances_answer_more_asynchronous_requests_at_once(ctx, monkeypatch):
    config = {
        "OutputConfig": {"S3OutputPath": "s3://b/out"},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
    }
    traffic = SimpleNamespace(current=None)

    def have(instances: int) -> None:
        given = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": instances}
        variant = VariantSpec.resolve(given, {"Image": "i"})
        traffic.current = SimpleNamespace(spec=FleetSpec("f", "c", 0.0, (variant,), async_inference=config))

    async def at_once() -> list[int]:
        begun = asyncio.Semaphore(0)
        at_work = 0

        async def invoke(*_: Any) -> Any:
            nonlocal at_work
            at_work += 1
            begun.release()
            await asyncio.Event().wait()

        live = cast(Any, {"e": SimpleNamespace(traffic=traffic)})
        queue = AsyncInvocations(ctx, live, EndpointMetrics(lambda data: None, 1.0))
        monkeypatch.setattr(queue, "_invoke", invoke)
        seen = []
        for instances, requests in ((1, 2), (3, 3)):
            have(instances)
            for _ in range(requests):
                await queue.submit("e", {"Body": ""})
            for _ in range(instances):
                await asyncio.wait_for(begun.acquire(), 10)
            seen.append(at_work)
        await queue.stop()
        return seen

    assert asyncio.run(at_once()) == [1, 4]
