"""The SageMaker SDK 3.x, unchanged, in a process of its own as its users run it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.local_service import ROOT, TOY_IMAGE

FLOWS = ROOT / "tests" / "data" / "sagemaker_local"


@pytest.fixture
def flow(sdk_python: str, service: Any, ministack: str) -> Callable[..., dict[str, Any]]:
    """Run one of `FLOWS`, and return what it reports."""
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": ministack,
        "AWS_ENDPOINT_URL_SAGEMAKER": service.url,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": service.url,
    }

    def run(script: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sdk_python, str(FLOWS / script), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        line = next(line for line in done.stdout.splitlines() if line.startswith("REPORT "))
        report: dict[str, Any] = json.loads(line.removeprefix("REPORT "))
        return report

    return run


@pytest.fixture
def checked_role(ministack: str, aws: Callable[..., Any], unique: str) -> Iterator[str]:
    """A role that exists and may do anything: ModelTrainer simulates the role's policies before it trains."""
    iam = aws("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName=unique, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=unique, PolicyName="all", PolicyDocument=json.dumps(allowed))
    yield arn
    iam.delete_role_policy(RoleName=unique, PolicyName="all")
    iam.delete_role(RoleName=unique)


@pytest.mark.slow
def test_the_sdks_classes_train_transform_and_see_failures(flow, bucket, checked_role, unique):
    report = flow("sdk_flow.py", unique, TOY_IMAGE, checked_role, bucket)
    assert report["status"] == "Completed"
    assert report["metrics"] == {"toy:accuracy": 0.5}
    assert report["artifact"] == f"s3://{bucket}/sdk/{unique}/output/model.tar.gz"
    assert report["trainer"] == ["Completed", "2"]
    assert report["trainer_metrics"] == {"toy:accuracy": 0.5}
    assert report["transform"] == "Completed"
    assert report["group"].endswith(f"model-package-group/{unique}")
    assert report["listed"] == [unique]
    assert report["packages"] == []
    assert "no images found" in report["failure"]
    assert "Could not find model" in report["gone"]


SCRIPT = """
import argparse, json, os, pathlib, numpy
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--word")
given = parser.parse_args()
found = sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"]))
model = {"epochs": given.epochs, "word": given.word, "found": found, "home": os.listdir("/opt/ml/input/data/code")}
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.json").write_text(json.dumps(model))
"""


@pytest.mark.slow
def test_script_mode_from_training_to_an_endpoint(flow, aws, bucket, checked_role, unique, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    report = flow("script_flow.py", unique, TOY_IMAGE, checked_role, bucket, str(tmp_path))
    assert (report["status"], report["answer"]) == ("Completed", "HELLO")
    key = report["artifact"].removeprefix(f"s3://{bucket}/")
    archive = io.BytesIO(aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=archive) as content:
        member = content.extractfile("model.json")
        assert member is not None
        model = json.loads(member.read())
    assert (model["epochs"], model["word"], model["home"]) == (2, "two words", ["train.py"])
    assert model["found"]


@pytest.mark.slow
def test_a_tuner_finds_the_best_and_its_package_is_refreshed(flow, bucket, checked_role, unique):
    report = flow("tuner_flow.py", unique, TOY_IMAGE, checked_role, bucket)
    assert (report["status"], report["best"]) == ("Completed", "Completed")
    assert {"epochs", "rate", "word"} <= set(report["hyperparameters"])
    assert report["package"].endswith(f"model-package/{unique}/1")
    assert report["approval"] == "Approved"
