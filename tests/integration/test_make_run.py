"""`make run` as a user gets it: every part real, from the archive to the report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkout import Checkout

pytestmark = pytest.mark.timeout(900)


def _real_archive() -> Path | None:
    folder = Path(os.environ.get("SCONES_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    archive = folder / "cifar-100-python.tar.gz"
    return archive if archive.exists() else None


def test_one_command_does_the_main_job_and_leaves_nothing_running(checkout_factory: Callable[..., Checkout]):
    archive = _real_archive()
    # Without the real archive the run draws its own sample, as it does on a machine without internet.
    checkout = checkout_factory(**({"CIFAR100_ARCHIVE": str(archive)} if archive else {"CIFAR100_MIRRORS": ""}))

    done = checkout.call("run")

    assert done.returncode == 0, done.stdout
    summary = json.loads((checkout.run_dir / "summary.json").read_text())
    dataset, batch = summary["dataset"], summary["batch"]
    assert dataset["train"] > dataset["validation"] > 0
    assert summary["training"]["job_name"]
    assert summary["training"]["seconds"] > 0
    assert summary["training"]["validation_accuracy"] > 0.8
    assert summary["endpoint"]["status"] == "InService"
    assert batch["images"] == dataset["test"]
    assert batch["classified"] + batch["rejected"] + batch["failed"] == batch["images"]
    assert batch["failed"] == 0
    # Every image of the batch went through the endpoint, and so did the golden images of the deployment. Those are in
    # the deployment's report as well: this one is on the whole run, whatever other reports took what was new.
    assert summary["report"]["captured_records"] > batch["images"]
    report = Path(summary["report"]["html"]).read_text()
    assert "<html" in report
    assert summary["endpoint"]["name"] in report
    if archive:
        assert (dataset["train"] + dataset["validation"], dataset["test"]) == (1000, 100)
        assert dataset["source"] == "archive"
        assert summary["evaluation"]["test_accuracy"] >= 0.88
        # What is accepted is more often right than what is not: that is what the threshold is for.
        assert batch["accuracy"] >= summary["evaluation"]["test_accuracy"]
    else:
        assert dataset["source"] == "sample"
        assert "drawn sample" in done.stdout
    for name in ("train_and_deploy", "batch_inference", "monitor_endpoint", "stage_images", "InService"):
        assert name in done.stdout
    assert checkout.running() == []
