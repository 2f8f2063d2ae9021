"""Whole batches on real Step Functions and real Lambdas: the three ways to fan out, and what must survive."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from embedded import environment
from embedded.settings import EmbeddedSettings
from scones.core.batch.results import COLUMNS
from scones.hooks.batch_chunks import ChunkFollower, ChunkRequest
from tests.support.batch_world import World, deploy_world, stub_sagemaker

_ids = count()


@pytest.fixture(scope="module")
def deployed(ministack: str, platform_settings: EmbeddedSettings, aws: Callable[..., Any]) -> Iterator[World]:
    with stub_sagemaker() as stub:
        yield deploy_world(aws, stub, environment.aws_connection(platform_settings))


@pytest.fixture
def world(deployed: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", deployed.airflow_connection)
    deployed.sagemaker.requests.clear()
    deployed.sagemaker.down_until = deployed.sagemaker.delay_s = 0.0
    return deployed


@pytest.fixture
def batch_id() -> str:
    return f"test-batch-{next(_ids)}"


def follower(world: World, chunk: dict[str, Any], concurrency: int = 16) -> ChunkFollower:
    return ChunkFollower(ChunkRequest(world.bucket, chunk["batch_id"], chunk["number"], concurrency, 1000.0))


def run_chunks(world: World, chunks: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    async def all_of_them() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(follower(world, chunk, **options).run() for chunk in chunks)))

    return asyncio.run(all_of_them())


def rows_of(world: World, batch_id: str) -> dict[str, dict[str, Any]]:
    parts = world.store.part_numbers(batch_id)
    rows = [row for number in parts for row in world.store.rows(batch_id, number)]
    keyed = {row["key"]: row for row in rows}
    assert len(keyed) == len(rows), "an image has two rows"
    return keyed


def executions_of(world: World, batch_id: str) -> list[dict[str, Any]]:
    pages = world.client("stepfunctions").get_paginator("list_executions")
    found = pages.paginate(stateMachineArn=world.outputs["StateMachineArn"])
    return [e for page in found for e in page["executions"] if e["name"].startswith(f"{batch_id}-")]


def upload(world: World, folder: str, sure: int = 0, unsure: int = 0, corrupt: int = 0) -> None:
    for kind, number in (("sure", sure), ("unsure", unsure), ("corrupt", corrupt)):
        for index in range(number):
            world.put(f"{folder}{kind}-{index:03d}.png", b"no image" if kind == "corrupt" else None)


@pytest.mark.parametrize("fan_out", ["executions", "distributed_map", "express"])
def test_the_same_results_whichever_way_they_fan_out(world: World, batch_id: str, fan_out: str) -> None:
    folder = f"photos/{fan_out}/"
    upload(world, folder, sure=6, unsure=3, corrupt=2)
    world.put(f"{folder}list.lst", b"0\t0\tsure-000.png\n")
    chunks = world.plan(batch_id, prefix=folder.rstrip("/"), fan_out=fan_out, chunk_size=7)
    assert len(chunks) == (1 if fan_out == "distributed_map" else 2)
    reports = run_chunks(world, chunks)
    assert sum(report["classified"] for report in reports) == 6
    rows = rows_of(world, batch_id)
    assert Counter(row["outcome"] for row in rows.values()) == {"classified": 6, "rejected": 3, "failed": 2}
    assert all(list(row) == list(COLUMNS) for row in rows.values())
    sure, unsure, corrupt = (rows[f"{folder}{kind}-000.png"] for kind in ("sure", "unsure", "corrupt"))
    assert (sure["confidence"], sure["predicted_index"], sure["threshold"]) == (0.98, 0, 0.9)
    assert sure["production_variant"] == "AllTraffic"
    assert (sure["endpoint_config"], sure["model_package"]) == ("config-7", "package/7")
    assert (unsure["probabilities"], unsure["error"]) == ([0.6, 0.4], "THRESHOLD_CONFIDENCE_NOT_MET")
    assert corrupt["error"] == "NotAnImageError"
    assert folder + "corrupt-000.png" in corrupt["message"]
    if fan_out == "executions":
        assert corrupt["failed_state"] == "SerializeImage"
    assert not any("list.lst" in key for key in world.sagemaker.requests)


def test_keys_of_any_kind(world: World, batch_id: str) -> None:
    names = ["a b.png", "a+b%20c.png", "Fahrrad-é-自転車-🚲.png", "quote'\"<>&.png", "deep/er/x.PNG"]
    for name in names:
        world.put(f"strange/{name}")
    run_chunks(world, world.plan(batch_id, prefix="strange/"))
    rows = rows_of(world, batch_id)
    assert set(rows) >= {f"strange/{name}" for name in names}
    assert {row["outcome"] for row in rows.values()} == {"classified"}
