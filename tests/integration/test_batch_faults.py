"""Batches on the whole platform while parts of it die, or someone stops them: one outcome for each image."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from scones.batch.names import batch_id_for
from tests.support.running_platform import RunningPlatform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DAG = "batch_inference"


def start_batch(platform: RunningPlatform, images: int, **params: Any) -> tuple[str, str, list[str]]:
    """Start a batch of new images; returns run id, batch id and keys."""
    folder = f"faults/{uuid.uuid4().hex[:8]}/"
    keys = platform.copy_test_images(folder, images)
    run_id = platform.start(DAG, {"prefix": folder, "threshold": 0, "defer_after_seconds": 0, **params})
    return run_id, batch_id_for(DAG, run_id), keys


def wait_started(platform: RunningPlatform, batch_id: str, at_least: int) -> None:
    platform.until(lambda: len(platform.executions(batch_id)), lambda number: number >= at_least)


def assert_one_outcome_each(platform: RunningPlatform, batch_id: str, keys: list[str]) -> list[dict[str, Any]]:
    rows = platform.rows(batch_id)
    assert sorted(row["key"] for row in rows) == keys
    assert {row["outcome"] for row in rows} == {"classified"}
    return rows


def test_marking_a_deferred_chunk_failed_stops_it_and_clearing_it_completes_the_run(
    trained_platform: RunningPlatform,
) -> None:
    platform = trained_platform
    run_id, batch_id, keys = start_batch(platform, 600)
    wait_started(platform, batch_id, 100)
    assert platform.task_state(DAG, run_id, "run_chunk") == "deferred"
    platform.mark_failed(DAG, run_id, "run_chunk", 0)

    assert platform.wait(DAG, run_id) == "failed"
    platform.until(lambda: platform.executions(batch_id, "RUNNING"), lambda running: not running)
    aborted = platform.executions(batch_id, "ABORTED")
    assert aborted
    described = platform.client("stepfunctions").describe_execution(executionArn=aborted[0]["executionArn"])
    assert described["error"] == "BatchKilled"
    # Nothing more is started by anybody: what is there now stays all there is.
    started = len(platform.executions(batch_id))
    assert started < 600

    platform.clear(DAG, run_id, "run_chunk")
    assert platform.wait(DAG, run_id) == "success", platform.explain(DAG, run_id)
    rows = assert_one_outcome_each(platform, batch_id, keys)
    # Only what had been stopped was started once more.
    assert len(platform.executions(batch_id)) == 600 + len(aborted)
    assert sum(row["attempt"] == 2 for row in rows) == len(aborted)


@pytest.mark.parametrize("victim", ["airflow-triggerer", "airflow-scheduler", "ministack"])
def test_a_part_of_the_platform_is_killed_in_mid_batch(trained_platform: RunningPlatform, victim: str) -> None:
    platform = trained_platform
    # So slow that there is a middle of the batch to hit.
    run_id, batch_id, keys = start_batch(platform, 150, starts_per_second=12)
    wait_started(platform, batch_id, 40)
    platform.kill(victim)
    assert platform.wait(DAG, run_id, timeout_s=400) == "success", platform.explain(DAG, run_id)
    assert_one_outcome_each(platform, batch_id, keys)
    summary = platform.summary(DAG, run_id)
    assert (summary["images"], summary["classified"]) == (150, 150)
    if victim != "ministack":
        # Whoever followed the batch next adopted what there was. (MiniStack forgets it all when it is killed.)
        assert len(platform.executions(batch_id)) == 150
