"""What InvokeEndpoint costs: against the bare model server, by the same plain HTTP client, side by side.

The model server is the one process that both ways reach; rounds of both take turns, so that whatever else the machine
does meets both alike. Medians over the rounds.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.measure import Measurement
from benchmarks.platforms import own_settings, started
from embedded import environment, services
from embedded.settings import PROJECT_ROOT, EmbeddedSettings
from sagemaker_local.box import SWITCH

CLIENTS = 16
# Short rounds of one client, so that the three ways meet the same machine; long ones of many, so that the delivery of
# what was captured falls into the round that captured it.
ONE_CLIENT_ROUNDS, ONE_CLIENT_REQUESTS = 25, 30
MANY_CLIENT_ROUNDS, MANY_CLIENT_REQUESTS = 7, 640
TINY_SERVER = PROJECT_ROOT / "tests" / "data" / "model_server.py"


@dataclass
class Target:
    """Where a plain HTTP client posts to."""

    port: int
    path: str


@dataclass
class Platform:
    """A running service with its clients."""

    settings: EmbeddedSettings
    sm: Any
    s3: Any
    cloudwatch: Any
    role: str
    process: psutil.Process
    bucket: str = "serving-benchmark"

    def endpoint(self, name: str, image: str, archive: bytes, capture: bool = False) -> Target:
        """An endpoint in service."""
        self.s3.put_object(Bucket=self.bucket, Key=f"{name}/model.tar.gz", Body=archive)
        container = {"Image": image, "ModelDataUrl": f"s3://{self.bucket}/{name}/model.tar.gz"}
        self.sm.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=self.role)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        capturing = {
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"s3://{self.bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        }
        more = {"DataCaptureConfig": capturing} if capture else {}
        self.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)
        self.sm.create_endpoint(EndpointName=name, EndpointConfigName=name)
        self.sm.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        return Target(self.settings.sagemaker_port, f"/endpoints/{name}/invocations")

    def delivered(self, invocations: int, timeout_s: float = 120) -> None:
        """Wait until CloudWatch has counted so many invocations; captures are delivered more often than metrics."""
        until = time.monotonic() + timeout_s
        while True:
            now = datetime.now(UTC)
            counted = self.cloudwatch.get_metric_statistics(
                Namespace="AWS/SageMaker", MetricName="Invocations", Statistics=["Sum"], Period=86400,
                Dimensions=[{"Name": "EndpointName", "Value": "tiny"}, {"Name": "VariantName", "Value": "AllTraffic"}],
                StartTime=now - timedelta(hours=12), EndTime=now + timedelta(hours=12),
            )["Datapoints"]  # fmt: skip
            if sum(point["Sum"] for point in counted) >= invocations:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"CloudWatch counts {counted}, not {invocations} invocations")
            time.sleep(0.2)

    def model_server(self, endpoint: str) -> Target:
        """The bare model server of an endpoint."""
        for child in self.process.children(recursive=True):
            environment = child.environ()
            if f"/endpoints/{endpoint}/" in environment.get("SM_ML_ROOT", ""):
                return Target(int(environment["SAGEMAKER_BIND_TO_PORT"]), "/invocations")
        raise RuntimeError(f"endpoint {endpoint} has no model server")


@contextmanager
def platform() -> Iterator[Platform]:
    """MiniStack and sagemaker_local as processes of their own, ended at the end."""
    with own_settings(EmbeddedSettings()) as settings:
        images = settings.run_dir / "images.json"
        images.write_text(
            json.dumps({"images": [{"pattern": "tiny:*", "command": [sys.executable, str(TINY_SERVER)]}]})
        )
        usual = services.sagemaker_local(settings)
        sagemaker = replace(
            usual,
            command=[*usual.command, "--images", str(images)],
            # Without a box, or the bare model server could not be asked from outside.
            environment={**usual.environment, SWITCH: "off"},
        )
        with started(services.ministack(settings), sagemaker):
            account = environment.client(settings, "sts").get_caller_identity()["Account"]
            assert sagemaker.process is not None
            found = Platform(
                settings=settings,
                sm=environment.client(settings, "sagemaker"),
                s3=environment.client(settings, "s3"),
                cloudwatch=environment.client(settings, "cloudwatch"),
                role=f"arn:aws:iam::{account}:role/benchmark-role",
                process=psutil.Process(sagemaker.process.pid),
            )
            found.s3.create_bucket(Bucket=found.bucket)
            yield found


async def _client(target: Target, body: bytes, content_type: str, count: int, seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    host = f"localhost:{target.port}"
    signed = AWSRequest("POST", f"http://{host}{target.path}", {"content-type": content_type}, body)
    SigV4Auth(Credentials("test", "test"), "sagemaker", "us-east-1").add_auth(signed)
    headers = "".join(f"{name}: {value}\r\n" for name, value in {"host": host, **signed.headers}.items())
    request = f"POST {target.path} HTTP/1.1\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(count):
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{target.path} answered {head!r}")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        seconds.append(time.perf_counter() - started)
    writer.close()


def load(target: Target, body: bytes, content_type: str, clients: int, count: int) -> tuple[float, float]:
    """Requests a second, and the median latency in milliseconds, of `count` requests by `clients` at once."""
    seconds: list[float] = []

    async def run() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(_client(target, body, content_type, count // clients, seconds) for _ in range(clients)))
        return len(seconds) / (time.perf_counter() - started)

    return asyncio.run(run()), statistics.median(seconds) * 1000


def measure_invocations() -> list[Measurement]:
    """Overhead at one client, throughput at 16, and what capture takes of it, with the built-in algorithm's model."""
    image = _picture()
    with platform() as running:
        archive = _trained_model(running.settings.run_dir)
        plain = running.endpoint("plain", "image-classification:1", archive)
        captured = running.endpoint("captured", "image-classification:1", archive, capture=True)
        bare = running.model_server("plain")
        targets = {"bare": bare, "endpoint": plain, "endpoint with capture": captured}
        for target in targets.values():
            load(target, image, "image/png", 1, 50)
        p50: dict[str, list[float]] = {name: [] for name in targets}
        rate: dict[str, list[float]] = {name: [] for name in targets}
        for _ in range(ONE_CLIENT_ROUNDS):
            for name, target in targets.items():
                p50[name].append(load(target, image, "image/png", 1, ONE_CLIENT_REQUESTS)[1])
        for _ in range(MANY_CLIENT_ROUNDS):
            for name, target in targets.items():
                rate[name].append(load(target, image, "image/png", CLIENTS, MANY_CLIENT_REQUESTS)[0])
    # Each round's ways follow one another at once: compared within the round, the machine's other work cancels out.
    overhead = statistics.median(b - a for a, b in zip(p50["bare"], p50["endpoint"], strict=True))
    share = statistics.median(b / a for a, b in zip(rate["bare"], rate["endpoint"], strict=True))
    cost = 1 - statistics.median(b / a for a, b in zip(rate["endpoint"], rate["endpoint with capture"], strict=True))
    latencies = {f"{name} p50, ms": statistics.median(values) for name, values in p50.items()}
    rates = {f"{name}, requests/s": statistics.median(values) for name, values in rate.items()}
    return [
        Measurement("endpoint-overhead-p50-ms", overhead, "ms", "< 2", overhead < 2, latencies),
        Measurement("endpoint-throughput-share", share, "share", ">= 0.5", share >= 0.5, rates),
        Measurement("endpoint-capture-cost", cost, "share", "< 0.1", cost < 0.1, rates),
    ]


def measure_memory() -> list[Measurement]:
    """The service's memory after 100,000 invocations against that after 10,000, with capture on.

    Read once the captures and metrics of the load have been delivered: the first delivery loads what delivering needs.
    """
    with platform() as running:
        target = running.endpoint("tiny", "tiny:1", _archive({"behaviour.json": b"{}"}), capture=True)
        sizes: dict[str, float] = {}
        counts, labels = (10_000, 90_000), ("after 10,000, MB", "after 100,000, MB")
        for count, label in zip(counts, labels, strict=True):
            load(target, b"x" * 1000, "image/png", CLIENTS, count)
            running.delivered(sum(counts[: len(sizes) + 1]))
            sizes[label] = running.process.memory_info().rss / 1e6
    before, after = sizes.values()
    growth = after - before
    return [Measurement("endpoint-memory-growth-mb", growth, "MB", "<= 10", growth <= 10, sizes)]


def _trained_model(folder: Path) -> bytes:
    """A model.tar.gz of the built-in algorithm, trained on drawn images for this benchmark."""
    import numpy
    from PIL import Image

    root = folder / "training"
    draw = numpy.random.default_rng(0)
    listing = []
    for index in range(200):
        label = index % 2
        pixels = draw.normal(90 + 60 * label, 40, (32, 32, 3)).clip(0, 255).astype("uint8")
        path = root / "input" / "data" / "train" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        listing.append(f"{index}\t{label}\t{index}.png\n")
    channels = {"train": "train", "validation": "train", "train_lst": "lst", "validation_lst": "lst"}
    for channel, kind in channels.items():
        place = root / "input" / "data" / channel
        if kind == "lst":
            place.mkdir(parents=True)
            (place / f"{channel.removesuffix('_lst')}.lst").write_text("".join(listing))
        elif channel != "train":
            place.symlink_to(root / "input" / "data" / "train")
    config = root / "input" / "config"
    config.mkdir(parents=True)
    hyperparameters = {"num_classes": "2", "num_training_samples": "200", "image_shape": "3,32,32", "epochs": "1"}
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    described = {
        "ContentType": "application/x-image",
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
    }
    (config / "inputdataconfig.json").write_text(json.dumps(dict.fromkeys(channels, described)))
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(json.dumps(hosts))
    for name in ("model", "output"):
        (root / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "sagemaker_local.algorithms.image_classification", "train"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "SM_ML_ROOT": str(root), "TRAINING_JOB_NAME": "benchmark"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"training the benchmark's model failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return _archive({path.name: path.read_bytes() for path in (root / "model").iterdir() if path.is_file()})


def _picture() -> bytes:
    import numpy
    from PIL import Image

    target = io.BytesIO()
    pixels = numpy.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype="uint8")
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def _archive(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


BENCHMARKS: dict[str, Callable[[], list[Measurement]]] = {
    "endpoint-overhead-p50-ms": measure_invocations,
    "endpoint-throughput-share": measure_invocations,
    "endpoint-capture-cost": measure_invocations,
    "endpoint-memory-growth-mb": measure_memory,
}
