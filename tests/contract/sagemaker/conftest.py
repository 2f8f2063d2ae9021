"""A `sagemaker_local` of these tests' own: with a toy image mapped, a short grace, and a kill switch."""

from __future__ import annotations

import http.client
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.model import OperationModel

from tests.support.conformance import problems_of
from tests.support.local_service import ROOT, TOY_IMAGE, LocalService, channel

TOY = ROOT / "tests" / "data" / "sagemaker_local" / "toy_container.py"


@pytest.fixture(scope="session")
def new_service(ministack: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LocalService]]:
    """Start a service with options of its own; ended with the session."""
    started: list[LocalService] = []

    definitions = [{"Name": "toy:accuracy", "Regex": r"Validation-accuracy=([0-9.]+)"}]
    image = {"pattern": "*/toy:*", "command": [sys.executable, str(TOY)], "metric_definitions": definitions}

    def make(*options: str, aws_url: str = ministack, folder: Path | None = None) -> LocalService:
        place = folder or tmp_path_factory.mktemp("sagemaker")
        service = LocalService(place, aws_url, image, "--stop-grace-seconds", "2", *options)
        started.append(service)
        return service.start()

    yield make
    for service in started:
        service.stop()


@pytest.fixture(scope="session")
def service(new_service: Callable[..., LocalService]) -> LocalService:
    """The service most tests share."""
    return new_service("--max-training-jobs", "4")


@pytest.fixture(scope="session")
def client_of(ministack: str) -> Callable[[LocalService], Any]:
    import boto3

    config = Config(retries={"max_attempts": 1}, parameter_validation=True)
    session = boto3.Session(region_name="us-east-1")
    session.events.register("after-call.sagemaker", check_conformance)

    @cache  # by the service itself: another may get the port of one that has ended
    def client(service: LocalService) -> Any:
        return session.client("sagemaker", endpoint_url=service.url, config=config)

    return client


def check_conformance(http_response: Any, model: OperationModel, **_: Any) -> None:
    """Every answer any of these tests gets is held against the service model."""
    if http_response.status_code == http.client.OK:
        assert problems_of(model, http_response.content) == []


@pytest.fixture(scope="session")
def sm(service: LocalService, client_of: Callable[[LocalService], Any]) -> Any:
    """boto3's SageMaker client of the shared service."""
    return client_of(service)


@pytest.fixture(scope="session")
def role(ministack: str, aws: Callable[..., Any]) -> str:
    """An execution role's ARN in the emulator's account."""
    account = aws("sts").get_caller_identity()["Account"]
    return f"arn:aws:iam::{account}:role/sagemaker-execution"


@pytest.fixture(scope="session")
def bucket(ministack: str, aws: Callable[..., Any]) -> str:
    """A bucket with two small training files under data/train/ and one beside it."""
    s3 = aws("s3")
    name = f"sagemaker-tests-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    for key, body in {
        "data/train/a.txt": b"a\nb\n",
        "data/train/deep/b.txt": b"c\n",
        "data/train.lst": b"0\t1\ta.txt\n",
    }.items():
        s3.put_object(Bucket=name, Key=key, Body=body)
    return name


@pytest.fixture
def unique() -> str:
    """A name nobody has used."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def named_job_request(bucket: str, role: str) -> Callable[..., dict[str, Any]]:
    """`named_job_request("a", epochs=3)`: a CreateTrainingJob request of the toy image with these hyperparameters."""

    def request(name: str, **hyperparameters: object) -> dict[str, Any]:
        return {
            "TrainingJobName": name,
            "RoleArn": role,
            "AlgorithmSpecification": {"TrainingImage": TOY_IMAGE, "TrainingInputMode": "File"},
            "HyperParameters": {key: str(value) for key, value in hyperparameters.items()},
            "InputDataConfig": [channel("train", f"s3://{bucket}/data/train/")],
            "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/training/"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        }

    return request


@pytest.fixture
def job_request(named_job_request: Callable[..., dict[str, Any]], unique: str) -> Callable[..., dict[str, Any]]:
    """`job_request(epochs=3, ...)`: the same with the name `unique`, if none is given."""

    def request(name: str = unique, **hyperparameters: object) -> dict[str, Any]:
        return named_job_request(name, **hyperparameters)

    return request


@pytest.fixture
def provider_connection(service: LocalService, ministack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One aws_default connection that routes SageMaker here and the rest to the emulator."""
    extra = {
        "region_name": "us-east-1",
        "endpoint_url": ministack,
        "service_config": {"sagemaker": {"endpoint_url": service.url}},
    }
    value = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(value))
