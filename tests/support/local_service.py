"""A `sagemaker_local` of a test's own, to kill and start again, and what tests ask of it over and over."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from embedded.processes import http_ok
from embedded.settings import free_port
from scones.dataset.sample import draw_images

ROOT = Path(__file__).resolve().parents[2]
TOY_IMAGE = "registry.example/toy:1"
FINAL = {"Completed", "Failed", "Stopped"}
CLASSES = ("bicycle", "motorcycle")
TRAINING, TEST = 200, 20


class LocalService:
    """One service process that can be killed and started again on the same data directory and port.

    `image` is its entry in the images file, `options` are added to its command line, `environment` to its environment.
    """

    def __init__(
        self,
        folder: Path,
        aws_url: str,
        image: dict[str, Any],
        *options: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "service.log"
        images = folder / "images.json"
        images.write_text(json.dumps({"images": [image]}))
        self._command = [sys.executable, "-m", "sagemaker_local", "--port", str(self.port)]
        self._command += ["--data-dir", str(folder / "data"), "--images", str(images), *options]
        self._environment = {**os.environ, "AWS_ENDPOINT_URL": aws_url, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> LocalService:
        with self.log.open("ab") as output:
            self.process = started = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(lambda: started.poll() is not None or http_ok(f"{self.url}/health"), "the service answers", 300)
        assert started.poll() is None, self.log.read_text()[-2000:]
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int | None:
        """Its exit code; None when it was never started."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(120)


def unique(kind: str) -> str:
    """A name nobody has used."""
    return f"{kind}-{uuid.uuid4().hex[:10]}"


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 40) -> Any:
    """The first true value of `condition`; fails the test after `timeout_s` seconds."""
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < timeout_s, f"not within {timeout_s} s: {what}"
        # To ask takes the processor that what is waited for needs: the longer it takes, the less often.
        time.sleep(min(0.02 + waited / 20, 0.2))
    return value


def wait_execution(states: Any, arn: str) -> dict[str, Any]:
    """An execution's description once it has ended; `states` is a client of Step Functions."""

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = states.describe_execution(executionArn=arn)
        return found if found["status"] != "RUNNING" else None

    found: dict[str, Any] = wait_until(ended, f"{arn} ends", 60)
    return found


def wait_job(kind: str, client: Any, name: str, timeout_s: float = 60) -> dict[str, Any]:
    """The final description of a job; `kind` is Training, Transform or Processing."""
    describe = getattr(client, f"describe_{kind.lower()}_job")

    def done() -> dict[str, Any] | None:
        found: dict[str, Any] = describe(**{f"{kind}JobName": name})
        return found if found[f"{kind}JobStatus"] in FINAL else None

    found: dict[str, Any] = wait_until(done, f"{name} ends", timeout_s)
    return found


def wait_training(client: Any, name: str, timeout_s: float = 60) -> dict[str, Any]:
    """The final description of a training job."""
    return wait_job("Training", client, name, timeout_s)


def channel(name: str, uri: str, **source: Any) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}},
    }


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[str, str]:
    """The error code and message of a call that must be refused, with HTTP status 400."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return response["Error"]["Code"], response["Error"]["Message"]


def read_model(aws: Callable[..., Any], uri: str, member: str = "model.json") -> dict[str, Any]:
    """A JSON member of a model artifact in S3."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        content = tar.extractfile(member)
        assert content is not None
        found: dict[str, Any] = json.load(content)
        return found


def put_channels(s3: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Drawn bicycles and motorcycles as PNG files with .lst files under `prefix`/; gives the test images' labels."""
    draw = np.random.default_rng(7)
    labels: dict[str, int] = {}
    for split, count in (("train", TRAINING), ("test", TEST)):
        listing: list[str] = []
        for label, name in enumerate(CLASSES):
            for index, pixels in enumerate(draw_images(name, count // 2, draw)):
                file = f"{name}-{index}.png"
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                s3.put_object(Bucket=bucket, Key=f"{prefix}/{split}/{file}", Body=buffer.getvalue())
                listing.append(f"{len(listing)}\t{label}\t{file}\n")
                if split == "test":
                    labels[f"{prefix}/{split}/{file}"] = label
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{split}.lst", Body="".join(listing).encode())
    return labels
