"""The whole command line against a platform that is up: every command, as a program reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded.settings import PROJECT_ROOT
from tests.integration.live import LivePlatform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
QUICK = ("--epochs", "2", "--mini-batch-size", "16", "--minimum-accuracy", "0.5", "--champion-tolerance", "1")


@pytest.fixture
def scones(live: LivePlatform, shared_data: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """`scones(*words)`: exit code, the document on standard output, and what standard error said."""
    archive = {"CIFAR100_ARCHIVE": str(shared_data / "cifar-100-python.tar.gz")}

    def call(*words: str) -> tuple[int, dict[str, Any], str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words, "--json"],
            cwd=PROJECT_ROOT,
            env={**os.environ, **archive, "SCONES_RUN_DIR": str(live.run_dir)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    return call


def test_all_commands_in_order(live: LivePlatform, scones: Callable[..., tuple[int, dict[str, Any], str]]) -> None:
    endpoint = live.stack_output("EndpointName")
    code, staged, said = scones("stage", "--seed", "7")
    assert code == 0, said
    assert staged["params"] == {"seed": 7}
    assert {one["task_id"] for one in staged["tasks"]} == {"resolve_resources", "stage_images"}
    assert staged["returned"]["stage_images"]["counts"]["train"] > 0
    assert "900 train" in said

    def served() -> list[str]:
        sagemaker = live.client("sagemaker")
        names = [one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]]
        return [sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] for name in names]

    before = served()
    code, trained, said = scones("train", *QUICK, "--seed", "7")
    assert code == 0, said
    job = trained["returned"]["train_model"]["job_name"]
    code, asked, said = scones("deploy", *QUICK, "--seed", "7", "--require-approval")
    assert code == 4, said
    assert "no terminal" in said
    assert asked["returned"]["train_model"]["reused"]
    assert asked["returned"]["register_model"]["asks_person"]
    assert served() == before, "neither training nor a question deploys anything"

    code, deployed, said = scones("deploy", *QUICK, "--seed", "7")
    assert code == 0, said
    assert deployed["returned"]["train_model"]["job_name"] == job, "the model that was trained is the one that serves"
    assert deployed["returned"]["verify_endpoint"]["problems"] == []
    assert deployed["returned"]["deploy_endpoint"]["endpoint_config_name"] in served()
    assert len(deployed["reports"]) >= 2
    assert all("<html" in Path(page).read_text() for page in deployed["reports"])

    code, scored, said = scones("batch", "--sample-size", "20", "--max-rejected-share", "1")
    assert code == 0, said
    assert scored["returned"]["summarize_batch"]["images"] == 20
    code, reported, said = scones("report")
    assert code == 0, said
    assert reported["returned"]["write_report"]["captured_records"] >= 20
    code, failed, said = scones("batch", "--prefix", "nothing/here/")
    assert code == 1
    assert failed["errors"]["plan_batch"] in said

    code, cleaned, said = scones("cleanup", "--end-production", endpoint, "--older-than-days", "0")
    assert code == 0, said
    assert cleaned["returned"]["plan_cleanup"]["delete"] > 0
    assert deployed["returned"]["deploy_endpoint"]["endpoint_config_name"] in served(), "only shown"
    code, cleaned, said = scones("cleanup", "--end-production", endpoint, "--older-than-days", "0", "--no-dry-run")
    assert code == 0, said
    assert served() == []
