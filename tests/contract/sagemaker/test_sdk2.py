"""The SageMaker SDK 2.x, unchanged, in an environment of its own: the flow that courses teach, on this service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.local_service import ROOT, TOY_IMAGE, TRAINING, put_channels

FLOWS = ROOT / "tests" / "data" / "sagemaker_local"
REQUIREMENT = "sagemaker>=2.200,<3"


@pytest.fixture(scope="session")
def sdk2_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with the SDK 2.x from PyPI. Skips where PyPI is out of reach; SCONES_SDK2_PYTHON names one made before.

    It can't share the project's environment: SDK 3.x is the same package.
    """
    if made := os.environ.get("SCONES_SDK2_PYTHON"):
        return made
    folder: Path = tmp_path_factory.mktemp("sdk2")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20", REQUIREMENT]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        pytest.skip(f"{REQUIREMENT} could not be installed from PyPI: {done.stderr.strip()[-300:]}")
    return python


@pytest.fixture
def flow(sdk2_python: str, service: Any, ministack: str, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run one of `FLOWS`, and return what it reports and all that it printed."""
    # Else the SDK reports its use to its makers; these tests talk to nobody but this machine.
    defaults = tmp_path / "config.yaml"
    defaults.write_text(
        json.dumps({"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}})
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(defaults),
        "AWS_ENDPOINT_URL": ministack,
        "AWS_ENDPOINT_URL_SAGEMAKER": service.url,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": service.url,
        "AWS_ENDPOINT_URL_SAGEMAKER_METRICS": service.url,
    }

    def run(script: str, *arguments: str) -> tuple[dict[str, Any], str]:
        done = subprocess.run(
            [sdk2_python, str(FLOWS / script), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        # The SDK's progress marks end without a line end: the report may stand behind them.
        return json.loads(done.stdout.rpartition("REPORT ")[2]), done.stdout

    return run


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the service's containers need POSIX")
def test_the_flow_that_courses_teach_runs_unchanged(
    flow: Callable[..., tuple[dict[str, Any], str]], aws: Callable[..., Any], bucket: str, role: str, unique: str
) -> None:
    s3 = aws("s3")
    labels = put_channels(s3, bucket, unique)
    report, printed = flow("sdk2_flow.py", unique, role, bucket, str(TRAINING))
    assert report["status"] == "Completed"
    assert report["job"].startswith(unique)
    assert report["artifact"] == f"s3://{bucket}/{unique}/models/{report['job']}/output/model.tar.gz"
    assert report["metrics"] == ["train:accuracy", "validation:accuracy"]
    assert "Validation-accuracy=" in printed, "fit() shows the container's log"
    assert set(report["answers"]) == set(labels)
    right = sum(int(np.argmax(report["answers"][key])) == label for key, label in labels.items())
    assert right / len(labels) >= 0.7
    for key, answer in report["answers"].items():
        assert report["scored"][key] == pytest.approx(answer)
    assert report["package"].endswith(f"model-package/{unique}/1")
    assert report["of_package"] == pytest.approx(report["answers"][min(labels)])
    prefix = f"{unique}/capture/{report['endpoint']}/AllTraffic/"
    files = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    lines = [
        json.loads(line)
        for file in files
        for line in s3.get_object(Bucket=bucket, Key=file["Key"])["Body"].read().splitlines()
    ]
    assert len(lines) == len(labels), "each prediction is captured once, flushed when the endpoint is deleted"
    assert {line["captureData"]["endpointInput"]["observedContentType"] for line in lines} == {"image/png"}


@pytest.mark.slow
def test_a_tuner_finds_the_best_and_deploys_it(
    flow: Callable[..., tuple[dict[str, Any], str]], bucket: str, role: str, unique: str
) -> None:
    report, _ = flow("tuner2_flow.py", unique, TOY_IMAGE, role, bucket)
    assert (report["status"], report["answer"]) == ("Completed", "HELLO")
    assert report["best"] == report["attached"]
    assert len(report["objectives"]) == 2


@pytest.mark.slow
def test_a_run_logs_parameters_and_metrics(
    flow: Callable[..., tuple[dict[str, Any], str]], bucket: str, unique: str
) -> None:
    report, _ = flow("run2_flow.py", unique, bucket)
    assert (report["runs"], report["status"]) == (["first"], "Completed")
    assert report["parameters"] == {"epochs": {"NumberValue": 3.0}, "optimizer": {"StringValue": "sgd"}}
    loss = {"Count": 4, "Min": 0.1, "Max": 0.9, "Avg": pytest.approx(0.45), "Last": 0.3}
    assert report["metrics"]["loss"] == loss
    assert report["metrics"]["accuracy"]["Last"] == 0.75
