"""Batches and traffic as whole DAG runs, started through the REST API as the trigger form does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.running_platform import RunningPlatform, seconds_between

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("fan_out", ["distributed_map", "express"])
def test_every_fan_out_gives_what_executions_give(trained_platform: RunningPlatform, fan_out: str) -> None:
    platform = trained_platform
    folder = f"fan-out/{fan_out}/"
    keys = platform.copy_test_images(folder, 60)

    def answers(fan_out: str) -> dict[str, tuple[Any, ...]]:
        summary = platform.run("batch_inference", {"prefix": folder, "fan_out": fan_out})
        assert summary["fan_out"] == fan_out
        rows = platform.rows(summary["batch_id"])
        assert sorted(row["key"] for row in rows) == keys
        return {
            row["key"]: (row["outcome"], row["predicted_class"], row["probabilities"], row["threshold"]) for row in rows
        }

    assert answers(fan_out) == answers("executions")


def test_a_burst_of_drifted_traffic(trained_platform: RunningPlatform) -> None:
    platform = trained_platform
    conf = {"images": 60, "drift": "night", "drifted_share": 1.0, "class_mix": "bicycle=3, motorcycle=1", "seed": 7}
    summary = platform.run("generate_traffic", conf)
    rows = platform.rows(summary["batch_id"])
    assert summary["images"] == len(rows) == 60
    assert summary["classified"] + summary["rejected"] == 60
    assert {row["key"].split("/")[0] for row in rows} == {"traffic"}
    assert len(platform.keys(f"traffic/{summary['batch_id']}/")) > 0
    bicycles = sum(row["label_class"] == "bicycle" for row in rows)
    assert 35 <= bicycles <= 55


def test_a_stream_keeps_its_rate(trained_platform: RunningPlatform) -> None:
    platform = trained_platform
    conf = {"mode": "stream", "rate_per_second": 5, "duration_seconds": 12, "drift": "mixed", "drifted_share": 0.5}
    summary = platform.run("generate_traffic", conf)
    rows = platform.rows(summary["batch_id"])
    assert summary["images"] == len(rows) == 60
    started = sorted(row["started_at"] for row in rows)
    assert 11.0 <= seconds_between(started[0], started[-1]) <= 20.0
    drifted = sum(row["key"].startswith("traffic/") for row in rows)
    assert 15 <= drifted <= 45
