"""A `sagemaker_local` of these tests' own: a tiny model server as image, short times, and a kill switch."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.local_service import ROOT, LocalService, unique, wait_until

MODEL_SERVER = ROOT / "tests" / "data" / "model_server.py"
IMAGE = "echo-model:1"
SHORT_TIMES = {
    "INVOCATION_TIMEOUT": "6",
    "STARTUP_ATTEMPTS": "2",
    "PING_INTERVAL": "0.5",
    "PING_TIMEOUT": "1.5",
    "STOP_GRACE": "2",
    "DRAIN_TIMEOUT": "8",
    "CAPTURE_FLUSH_AGE": "0.3",
    "METRICS_PERIOD": "0.5",
    "ALARM_POLL": "0.2",
}


@dataclass
class Serving:
    """Makes models, configs and endpoints on one service, and ends the endpoints with the test."""

    service: LocalService
    sm: Any
    runtime: Any
    s3: Any
    bucket: str
    role: str
    endpoints: list[str] = field(default_factory=list)

    def model(self, **behaviour: Any) -> str:
        """A model whose server behaves as said; `name` in its answers is the model's name unless given."""
        name = unique("model")
        document = json.dumps({"name": name, **behaviour}).encode()
        return self.model_of_archive(archive({"behaviour.json": document}), name)

    def model_of_archive(self, content: bytes, name: str | None = None, upload: bool = True) -> str:
        name = name or unique("model")
        key = f"models/{name}/model.tar.gz"
        if upload:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{self.bucket}/{key}"}
        self.sm.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=self.role)
        return name

    def config(
        self, *models: str, count: int = 1, weights: tuple[float, ...] = (), kind: str = "ml.m5.large", **request: Any
    ) -> str:
        """A config with one variant for each model: AllTraffic, or named v0, v1, ..."""
        name = unique("config")
        names = ["AllTraffic"] if len(models) == 1 else [f"v{index}" for index in range(len(models))]
        variants = [
            {
                "VariantName": variant,
                "ModelName": model,
                "InstanceType": kind,
                "InitialInstanceCount": count,
                **({"InitialVariantWeight": weights[index]} if weights else {}),
            }
            for index, (variant, model) in enumerate(zip(names, models, strict=True))
        ]
        self.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **request)
        return name

    def capture_config(self, percentage: int = 100, headers: bool = True, **changes: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": percentage,
            "DestinationS3Uri": f"s3://{self.bucket}/capture/",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        }
        if headers:
            config["CaptureContentTypeHeader"] = {
                "CsvContentTypes": ["text/csv"],
                "JsonContentTypes": ["application/json"],
            }
        return {**config, **changes}

    def create(self, config: str, **request: Any) -> str:
        name = unique("endpoint")
        self.sm.create_endpoint(EndpointName=name, EndpointConfigName=config, **request)
        self.endpoints.append(name)
        return name

    def in_service(self, config: str, **request: Any) -> str:
        name = self.create(config, **request)
        assert self.settled(name)["EndpointStatus"] == "InService"
        return name

    def describe(self, name: str) -> dict[str, Any]:
        return self.sm.describe_endpoint(EndpointName=name)

    def settled(self, name: str) -> dict[str, Any]:
        """Its description once nothing is under way."""

        def done() -> dict[str, Any] | None:
            found = self.describe(name)
            return None if found["EndpointStatus"] in ("Creating", "Updating", "RollingBack") else found

        return wait_until(done, f"{name} settles")

    def delete(self, name: str) -> None:
        self.sm.delete_endpoint(EndpointName=name)
        wait_until(lambda: not self.exists(name), f"{name} is gone")

    def exists(self, name: str) -> bool:
        try:
            self.describe(name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return False
        return True

    def invoke(self, name: str, request: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The model server's JSON answer."""
        answer = self.runtime.invoke_endpoint(
            EndpointName=name, Body=json.dumps(request or {}), ContentType="application/json", **more
        )
        return json.loads(answer["Body"].read())

    def captures(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Captured records by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"capture/{name}/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        bodies = {key: self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}
        return {key: [json.loads(line) for line in body.splitlines()] for key, body in bodies.items()}

    def records(self, name: str) -> list[dict[str, Any]]:
        return [record for lines in self.captures(name).values() for record in lines]

    def close(self) -> None:
        for name in self.endpoints:
            with contextlib.suppress(ClientError):
                self.settled(name)
                self.sm.delete_endpoint(EndpointName=name)
        for name in self.endpoints:
            wait_until(lambda name=name: not self.exists(name), f"{name} is gone")  # type: ignore[misc]


def archive(files: dict[str, bytes]) -> bytes:
    """A model.tar.gz; names are taken as they are, hostile ones too."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


@pytest.fixture
def make_archive() -> Callable[[dict[str, bytes]], bytes]:
    return archive


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def serving_bucket(ministack: str, aws: Callable[..., Any]) -> str:
    name = f"serving-{uuid.uuid4().hex[:8]}"
    aws("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def new_serving(
    ministack: str, aws: Callable[..., Any], serving_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Serving]]:
    """Start a service of its own; `environment` is added to its environment."""
    import boto3

    started: list[LocalService] = []
    account = aws("sts").get_caller_identity()["Account"]

    def make(environment: dict[str, str] | None = None) -> Serving:
        image = {"pattern": "*echo-model*", "command": [sys.executable, str(MODEL_SERVER)]}
        settings = {f"SAGEMAKER_LOCAL_{key}": value for key, value in SHORT_TIMES.items()} | (environment or {})
        service = LocalService(tmp_path_factory.mktemp("serving"), ministack, image, environment=settings)
        started.append(service)
        service.start()
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=64, read_timeout=90)
        control, runtime = (
            boto3.client(kind, endpoint_url=service.url, region_name="us-east-1", config=config)
            for kind in ("sagemaker", "sagemaker-runtime")
        )
        role = f"arn:aws:iam::{account}:role/sagemaker-execution"
        return Serving(service, control, runtime, aws("s3"), serving_bucket, role)

    yield make
    for service in started:
        service.stop()


@pytest.fixture(scope="session")
def shared_serving(new_serving: Callable[..., Serving]) -> Serving:
    return new_serving()


@pytest.fixture
def serving(shared_serving: Serving) -> Iterator[Serving]:
    """The service most tests share, with the test's own endpoints."""
    mine = Serving(**{**shared_serving.__dict__, "endpoints": []})
    yield mine
    mine.close()


@pytest.fixture
def own_serving(new_serving: Callable[..., Serving]) -> Iterator[Serving]:
    """A service of the test's own, to kill."""
    mine = new_serving()
    yield mine
    mine.service.stop()
