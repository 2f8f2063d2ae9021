"""Transform jobs with a model server of their own, and without S3 or logs."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local import container_run, models, s3, transform
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceUnavailable, ValidationException
from sagemaker_local.transform import operations, runner
from tests.support.local_service import wait_until

SERVER = """
import os, pathlib, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        if self.rfile.read(int(self.headers["Content-Length"])) == b"hang":
            pathlib.Path(sys.argv[1]).touch()
            time.sleep(60)
        self.do_GET()

ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


class NoLogs:
    def __init__(self, *_: Any) -> None:
        pass

    def start(self) -> NoLogs:
        return self

    def finish(self) -> None:
        pass


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """There once the model server is at work on what it never answers."""
    return tmp_path / "asked"


@pytest.fixture
def ctx(tmp_path: Path, asked: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    (tmp_path / "server.py").write_text(SERVER)
    command = [sys.executable, str(tmp_path / "server.py"), str(asked)]
    (tmp_path / "images.json").write_text(json.dumps({"images": [{"pattern": "toy", "command": command}]}))
    made = Context(Config(tmp_path / "data", account_id="1" * 12, images_file=tmp_path / "images.json"))
    monkeypatch.setattr(made.events, "publish", lambda *_: None)
    monkeypatch.setattr(container_run, "LogShipper", NoLogs)
    models.create_model(made, {"ModelName": "m", "PrimaryContainer": {"Image": "toy"}})
    transform.start(made)
    yield made
    transform.stop(made)
    made.close()


@pytest.fixture
def create(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the job `j` over one object."""

    def made(content: bytes, **changes: Any) -> None:
        monkeypatch.setattr(runner, "find_files", lambda *_: ("b", {"k": "k"}))
        monkeypatch.setattr(s3, "get_bytes", lambda *_: content)
        monkeypatch.setattr(s3, "put_bytes", lambda *_: None)
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}}
        request = {
            "TransformJobName": "j",
            "ModelName": "m",
            "TransformInput": {"DataSource": source, **changes},
            "TransformOutput": {"S3OutputPath": "s3://b/out"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }
        operations.create_transform_job(ctx, request)

    return made


def job(ctx: Context) -> dict[str, Any]:
    return operations.describe_transform_job(ctx, {"TransformJobName": "j"})


def ended(ctx: Context) -> dict[str, Any]:
    """The job, once it has ended and let go of its folder."""
    wait_until(lambda: job(ctx)["TransformJobStatus"] not in ("InProgress", "Stopping"), "the job ends", 20)
    folder = ctx.config.data_dir / "transform" / "j" / "ml"
    wait_until(lambda: not folder.exists(), f"{folder} is removed", 20)
    return job(ctx)


def test_a_job_is_stopped_though_the_model_does_not_answer(ctx, create, asked):
    create(b"hang")
    wait_until(asked.exists, "the model server is asked", 20)
    operations.stop_transform_job(ctx, {"TransformJobName": "j"})
    assert ended(ctx)["TransformJobStatus"] == "Stopped"


def test_the_service_ends_though_the_model_does_not_answer(ctx, create, asked):
    create(b"hang")
    wait_until(asked.exists, "the model server is asked", 20)
    transform.stop(ctx)
    assert not [thread for thread in threading.enumerate() if thread.name == "transform-j"]
    assert job(ctx)["TransformJobStatus"] == "InProgress"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no gzip", "is not gzip data"),
        (gzip.compress(b"x" * 999)[:-9], "is not gzip data"),
        (gzip.compress(b"")[:10] + b"\xff" * 99, "is not gzip data"),
        (gzip.compress(bytes(1001)), "unpacks to more than 1000 bytes"),
    ],
    ids=["none", "cut", "damaged", "bomb"],
)
def test_gzip_data_that_are_none_or_too_much_are_the_clients_fault(ctx, create, monkeypatch, content, words):
    monkeypatch.setattr(runner, "_MOST_UNPACKED", 1000)
    create(content, CompressionType="Gzip")
    assert ended(ctx)["FailureReason"].startswith(f"ClientError: s3://b/k {words}")


def test_gzip_data_are_unpacked(ctx, create, monkeypatch):
    monkeypatch.setattr(runner, "_MOST_UNPACKED", 1000)
    create(gzip.compress(bytes(1000)), CompressionType="Gzip")
    assert ended(ctx)["TransformJobStatus"] == "Completed"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValidationException("Could not find model"), "ClientError: Could not find model"),
        (ServiceUnavailable("STS did not say"), "InternalServerError: STS did not say"),
    ],
)
def test_what_a_job_refers_to_and_is_gone_is_no_defect(ctx, create, monkeypatch, error, reason):
    def gone(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(runner, "find_model", gone)
    create(b"x")
    assert ended(ctx)["FailureReason"] == reason
