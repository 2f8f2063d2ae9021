"""Runs that nobody starts: a deployed model starts a batch of what waited for it, and enough labels start a training.

Scheduler, triggerer, queue, workflow and endpoint are real; labels are given by the form of the reject queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from embedded.airflow_api import TERMINAL_RUN_STATES
from embedded.processes import end_leftovers
from scones.dataset.sample import draw_images
from tests.support.checkout import make_checkout
from tests.support.picture_files import encoded
from tests.support.running_platform import RunningPlatform, give_labels, patiently

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ENOUGH = 6
QUICK = {"epochs": 3, "minimum_accuracy": 0.5}


def photographs(number: int, seed: int) -> list[tuple[str, bytes]]:
    """Drawn, each with what it shows; none of them is an image of the dataset."""
    return [
        (name, encoded(pixels))
        for name in ("bicycle", "motorcycle")
        for pixels in draw_images(name, number // 2, np.random.default_rng(seed))
    ]


def runs_by(platform: RunningPlatform, dag_id: str, asset: str) -> list[dict[str, Any]]:
    """The runs that an event of the asset started, oldest first."""
    path = f"/dags/{dag_id}/dagRuns"

    def look() -> list[dict[str, Any]]:
        runs = platform.api.call("GET", f"{path}?run_type=asset_triggered&order_by=run_after")["dag_runs"]
        events = [platform.api.call("GET", f"{path}/{quote(run['dag_run_id'])}/upstreamAssetEvents") for run in runs]
        names = [{event["name"] for event in one["asset_events"]} for one in events]
        return [run for run, causes in zip(runs, names, strict=True) if asset in causes]

    return patiently(look)


def ended(platform: RunningPlatform, dag_id: str, asset: str) -> str:
    """Wait until the asset has started a run and all of them have ended; return the first one's id."""

    def all_ended(runs: list[dict[str, Any]]) -> bool:
        return bool(runs) and all(run["state"] in TERMINAL_RUN_STATES for run in runs)

    runs = platform.until(lambda: runs_by(platform, dag_id, asset), all_ended, 900)
    return str(runs[0]["dag_run_id"])


def run(platform: RunningPlatform, dag_id: str, conf: dict[str, Any]) -> str:
    """A run by hand to its green end; returns its id."""
    run_id = platform.start(dag_id, conf)
    assert platform.wait(dag_id, run_id, 900) == "success", platform.explain(dag_id, run_id)
    return run_id


def label(platform: RunningPlatform, labels: dict[str, str]) -> None:
    answer = give_labels(platform.settings, labels)
    assert answer.status_code == 200, answer.text[-1000:]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """One without any model, where six new labels ask for a training."""
    checkout = make_checkout(tmp_path_factory, CIFAR100_MIRRORS="", SCONES_LABELS_TO_RETRAIN=str(ENOUGH))
    try:
        done = checkout.call("up")
        assert done.returncode == 0, done.stdout
        yield RunningPlatform(checkout)
        assert checkout.call("down").returncode == 0
    finally:
        end_leftovers(checkout.run_dir)


def test_what_arrived_before_there_was_a_model_is_scored_when_one_is_deployed(platform: RunningPlatform) -> None:
    s3, bucket = platform.client("s3"), platform.outputs["BucketName"]
    platform.api.wait_dag("score_arrivals")
    platform.api.pause("score_arrivals", False)
    token = platform.api.call("GET", "/dags/score_arrivals/details")["file_token"]
    platform.api.call("PUT", f"/parseDagFile/{token}")  # as the button Reparse Dag does
    try:
        keys = [f"incoming/early-{index}.png" for index in range(8)]
        for key, (_, body) in zip(keys, photographs(8, seed=5), strict=True):
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        too_early = ended(platform, "score_arrivals", "scones_arrivals")
        assert platform.task_state("score_arrivals", too_early, "plan_arrivals") == "skipped"
        assert platform.keys("batches/") == []

        run(platform, "train_and_deploy", QUICK)
        scoring = ended(platform, "score_arrivals", "scones_model")
        assert platform.task_state("score_arrivals", scoring, "summarize_batch") == "success"
        batches = {key.split("/")[1] for key in platform.keys("batches/") if key.endswith("/summary.json")}
        assert [row["key"] for batch in batches for row in platform.rows(batch)] == keys
    finally:
        platform.api.pause("score_arrivals", True)


def test_enough_labels_start_a_training_that_takes_them_once(platform: RunningPlatform) -> None:
    s3, bucket, shown = platform.client("s3"), platform.outputs["BucketName"], dict[str, str]()
    for index, (name, body) in enumerate(photographs(ENOUGH, seed=11)):
        shown[f"photos/{index}.png"] = name
        s3.put_object(Bucket=bucket, Key=f"photos/{index}.png", Body=body)
    run(platform, "batch_inference", {"prefix": "photos/", "threshold": 1.0, "max_rejected_share": 1.0})
    first, *rest = shown

    label(platform, {key: shown[key] for key in rest})
    monitored = run(platform, "monitor_endpoint", {})
    assert platform.task_state("monitor_endpoint", monitored, "report_labels") == "skipped", "five are not enough"

    label(platform, {first: shown[first]})
    run(platform, "monitor_endpoint", {})
    retraining = ended(platform, "train_and_deploy", "scones_labels")
    assert platform.task_state("train_and_deploy", retraining, "train_model") == "success"
    dataset = platform.api.xcom("train_and_deploy", retraining, "stage_images")
    lists = [platform.read(f"datasets/{dataset['dataset_version']}/{part}.lst") for part in ("train", "validation")]
    assert "".join(lists).count("accepted_") == ENOUGH
    assert platform.api.xcom("train_and_deploy", retraining, "train_model")["reused"] is False

    monitored = run(platform, "monitor_endpoint", {})
    assert platform.task_state("monitor_endpoint", monitored, "report_labels") == "skipped", "those were taken"
    assert len(runs_by(platform, "train_and_deploy", "scones_labels")) == 1
