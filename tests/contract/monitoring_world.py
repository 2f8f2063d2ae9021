"""A small world for the monitoring tests: an endpoint's captures and documents in a real S3, and its drift."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from scones.images.statistics import baseline_statistics
from scones.monitoring.drift import suggest_constraints

CLASSES = ["bicycle", "motorcycle"]
DATASET = "ds-0123456789ab"
JOB = "scones-courier-train"


def vehicles(count: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured images, uint8 (count, 32, 32, 3), alike in their statistics but all different."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, 35, (count, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    level = generator.normal(125, 20, (count, 1, 1, 1))
    return np.clip(level + coarse + generator.normal(0, 6, (count, 32, 32, 3)), 0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """One image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def capture_line(
    image: bytes,
    probabilities: Sequence[float],
    at: datetime,
    *,
    inference_id: str | None = None,
    source: str | None = None,
    event_id: str | None = None,
) -> str:
    """A line as data capture writes it."""
    metadata: dict[str, Any] = {"eventId": event_id or str(uuid.uuid4()), "inferenceTime": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
    if inference_id:
        metadata["inferenceId"] = inference_id
    if source:
        metadata["customAttributes"] = [source]
    return json.dumps(
        {
            "captureData": {
                "endpointInput": {
                    "observedContentType": "image/png",
                    "mode": "INPUT",
                    "data": base64.b64encode(image).decode(),
                    "encoding": "BASE64",
                },
                "endpointOutput": {
                    "observedContentType": "application/json",
                    "mode": "OUTPUT",
                    "data": json.dumps(list(probabilities)),
                    "encoding": "JSON",
                },
            },
            "eventMetadata": metadata,
            "eventVersion": "0",
        }
    )


def capture_key(endpoint: str, at: datetime) -> str:
    """A key as data capture writes it."""
    return f"capture/{endpoint}/AllTraffic/{at:%Y/%m/%d/%H/%M-%S}-000-{uuid.uuid4()}.jsonl"


def confidences(count: int, seed: int = 0) -> np.ndarray:
    """Answers of a model that is mostly sure: (count, 2)."""
    generator = np.random.default_rng(seed)
    sure = 0.5 + 0.5 * generator.beta(5, 1, count)
    first = generator.random(count) < 0.5
    return np.stack([np.where(first, sure, 1 - sure), np.where(first, 1 - sure, sure)], axis=1)


@cache  # the statistics of 600 images take a while, and are the same in each test's bucket
def _documents() -> dict[str, bytes]:
    images = vehicles(600, seed=100)
    baseline = baseline_statistics(images, np.arange(600) % 2, CLASSES)
    sure = confidences(400, seed=101).max(axis=1)
    sweep = [{"threshold": t / 100, "coverage": float((sure >= t / 100).mean())} for t in range(50, 100)]
    documents: dict[str, Any] = {
        f"datasets/{DATASET}/baseline/statistics.json": baseline,
        f"datasets/{DATASET}/baseline/constraints.json": suggest_constraints(baseline),
        f"datasets/{DATASET}/label_map.json": {str(i): name for i, name in enumerate(CLASSES)},
        "datasets/current.json": {"dataset_version": DATASET, "manifest_key": f"datasets/{DATASET}/manifest.json"},
        "config/threshold.json": {"threshold": 0.93, "version": 2},
        f"evaluations/{JOB}/evaluation.json": {
            "images": 400,
            "threshold_sweep": sweep,
            "confidence_quantiles": np.quantile(sure, np.linspace(0, 1, 201)).tolist(),
        },
    }
    return {key: json.dumps(document).encode() for key, document in documents.items()}


def put_documents(s3: Any, bucket: str) -> None:
    """Baseline, constraints, label map, threshold and evaluation of the live model."""
    for key, body in _documents().items():
        s3.put_object(Bucket=bucket, Key=key, Body=body)


def put_traffic(
    s3: Any, bucket: str, endpoint: str, images: np.ndarray, answers: np.ndarray, start: datetime, per_file: int = 25
) -> list[str]:
    """Capture files with ``per_file`` records each, a second between records. Return their InferenceIds."""
    identifiers = []
    for first in range(0, len(images), per_file):
        lines = []
        for index in range(first, min(first + per_file, len(images))):
            at = start + timedelta(seconds=index)
            identifiers.append(f"id-{uuid.uuid4().hex}")
            lines.append(
                capture_line(
                    png(images[index]),
                    answers[index].tolist(),
                    at,
                    inference_id=identifiers[-1],
                    source=f"photos%2Fvehicle%20{index}.png",
                )
            )
        key = capture_key(endpoint, start + timedelta(seconds=first))
        s3.put_object(Bucket=bucket, Key=key, Body="".join(line + "\n" for line in lines).encode())
    return identifiers


def put_invocations(cloudwatch: Any, endpoint: str, at: datetime, count: int) -> None:
    """What the endpoint would have told CloudWatch."""
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}]
    cloudwatch.put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {"MetricName": name, "Dimensions": dimensions, "Timestamp": at, "Values": [value], "Counts": [float(count)]}
            for name, value in (("Invocations", 1.0), ("ModelLatency", 1500.0))
        ],
    )


class FakeSageMaker:
    """The few describes that monitoring needs, in memory, with the real hook's interface."""

    def __init__(self, bucket: str, endpoint: str, created: datetime) -> None:
        self.bucket, self.name, self.created = bucket, endpoint, created
        self.capture_enabled = True
        self.dataset = DATASET

    def endpoint(self, name: str) -> dict[str, Any] | None:
        if name != self.name:
            return None
        return {
            "EndpointName": name,
            "EndpointStatus": "InService",
            "EndpointConfigName": "config-1",
            "CreationTime": self.created,
        }

    def endpoint_config(self, name: str) -> dict[str, Any]:
        return {
            "DataCaptureConfig": {
                "EnableCapture": self.capture_enabled,
                "InitialSamplingPercentage": 100,
                "DestinationS3Uri": f"s3://{self.bucket}/capture",
            },
            "ProductionVariants": [{"VariantName": "AllTraffic", "ModelName": "model-1"}],
        }

    def model(self, name: str) -> dict[str, Any]:
        url = f"s3://{self.bucket}/training/{JOB}/output/model.tar.gz"
        return {"ModelArn": f"arn:model/{name}", "PrimaryContainer": {"ModelDataUrl": url}}

    def training_job(self, name: str) -> dict[str, Any]:
        return {"TrainingJobArn": f"arn:training-job/{name}"}

    def find(self, group: str, model_data_url: str) -> dict[str, Any]:
        return {
            "ModelPackageArn": "arn:package/scones-courier/3",
            "ModelPackageVersion": 3,
            "InferenceSpecification": {"Containers": [{"ModelDataUrl": model_data_url}]},
        }

    def tags_of(self, arn: str | None) -> dict[str, str]:
        return {"scones:dataset_version": self.dataset} if (arn or "").startswith("arn:training-job/") else {}


def now() -> datetime:
    """This second, UTC."""
    return datetime.now(UTC).replace(microsecond=0)
