"""A `sagemaker_local` of these tests' own: with a toy image mapped, a short grace, and a kill switch."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel

from embedded.processes import http_ok
from embedded.settings import free_port
from tests.contract.sagemaker.conformance import problems_of

ROOT = Path(__file__).resolve().parents[3]
TOY = ROOT / "tests" / "data" / "sagemaker_local" / "toy_container.py"
TOY_IMAGE = "registry.example/toy:1"
FINAL = {"Completed", "Failed", "Stopped"}


class LocalService:
    """One service process that can be killed and started again on the same data directory and port."""

    def __init__(self, folder: Path, aws_url: str, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "service.log"
        images = folder / "images.json"
        definitions = [{"Name": "toy:accuracy", "Regex": r"Validation-accuracy=([0-9.]+)"}]
        entry = {"pattern": "*/toy:*", "command": [sys.executable, str(TOY)], "metric_definitions": definitions}
        images.write_text(json.dumps({"images": [entry]}))
        self._command = [sys.executable, "-m", "sagemaker_local", "--port", str(self.port)]
        self._command += ["--data-dir", str(folder / "data"), "--images", str(images), *options]
        self._environment = {**os.environ, "AWS_ENDPOINT_URL": aws_url}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> LocalService:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(lambda: http_ok(f"{self.url}/health"), 30, "the service answers")
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true value of `condition`; fails the test after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="session")
def new_service(ministack: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LocalService]]:
    """Start a service with options of its own; ended with the session."""
    started: list[LocalService] = []

    def make(*options: str, aws_url: str = ministack) -> LocalService:
        service = LocalService(tmp_path_factory.mktemp("sagemaker"), aws_url, "--stop-grace-seconds", "2", *options)
        started.append(service)
        return service.start()

    yield make
    for service in started:
        if service.process is not None and service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="session")
def service(new_service: Callable[..., LocalService]) -> LocalService:
    """The service most tests share."""
    return new_service("--max-training-jobs", "4")


@pytest.fixture
def client_of(ministack: str) -> Callable[[LocalService], Any]:
    import boto3

    def client(service: LocalService) -> Any:
        config = Config(retries={"max_attempts": 1}, parameter_validation=True)
        made = boto3.client("sagemaker", endpoint_url=service.url, region_name="us-east-1", config=config)
        made.meta.events.register("after-call.sagemaker", check_conformance)
        return made

    return client


def check_conformance(http_response: Any, model: OperationModel, **_: Any) -> None:
    """Every answer any of these tests gets is held against the service model."""
    if http_response.status_code == http.client.OK:
        assert problems_of(model, http_response.content) == []


@pytest.fixture
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


@pytest.fixture
def job_request(bucket: str, role: str, unique: str) -> Callable[..., dict[str, Any]]:
    """`job_request(epochs=3, ...)`: a CreateTrainingJob request of the toy image with these hyperparameters."""

    def request(name: str = unique, **hyperparameters: object) -> dict[str, Any]:
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


def channel(name: str, uri: str, **source: Any) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}},
    }


def wait_training(client: Any, name: str, timeout_s: float = 60) -> dict[str, Any]:
    """The final description of a training job."""

    def done() -> dict[str, Any] | None:
        found = client.describe_training_job(TrainingJobName=name)
        return found if found["TrainingJobStatus"] in FINAL else None

    return wait_until(done, timeout_s, f"{name} ends")


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[str, str]:
    """The error code and message of a call that must be refused, with HTTP status 400."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return response["Error"]["Code"], response["Error"]["Message"]
