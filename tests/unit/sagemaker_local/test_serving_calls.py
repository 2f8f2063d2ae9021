"""Invocations on their way, with stand-ins for instances."""

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
from sagemaker_local.serving.invocation import Call
from sagemaker_local.serving.metrics import EndpointMetrics
from sagemaker_local.serving.model_client import ResponseTooLargeError


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
