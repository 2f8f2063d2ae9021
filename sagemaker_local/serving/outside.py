"""What serving does outside its event loop, all of it blocking: S3, CloudWatch, what a killed service left on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.serving.fleet import LOG_PATIENCE, instance_log
from sagemaker_local.serving.metrics import NAMESPACE
from sagemaker_local.serving.spool import Destination
from sagemaker_local.store import Resource


def deliver_capture(ctx: Context, destination: Destination, path: Path) -> None:
    """Put a capture file into S3.

    Raises:
        botocore.exceptions.ClientError: S3 answers with an error.
        botocore.exceptions.BotoCoreError: S3 does not answer, or cannot be asked.
    """
    encryption = {}
    if destination.kms_key_id:
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": destination.kms_key_id}
    with path.open("rb") as body:
        ctx.clients.get("s3").put_object(
            Bucket=destination.bucket, Key=destination.key, Body=body, ContentType="application/json", **encryption
        )


def put_metrics(ctx: Context, data: list[dict[str, Any]]) -> None:
    """Put one batch of metric data.

    Raises:
        botocore.exceptions.ClientError: CloudWatch answers with an error.
        botocore.exceptions.BotoCoreError: CloudWatch does not answer, or cannot be asked.
    """
    ctx.clients.get("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=data)


def find_leftovers(root: Path, records: Iterable[Resource]) -> tuple[list[Path], list[Path]]:
    """Directories a killed service left: fleets that are no more, and instances of fleets that come back."""
    keep = set()
    for record in records:
        for spec in (record.internal.get("current"), (record.internal.get("pending") or {}).get("fleet")):
            if spec:
                keep.add(root / record.name / spec["id"])
    gone = [fleet for fleet in root.glob("*/*") if fleet not in keep]
    return gone, [instance for fleet in keep for instance in fleet.glob("*/i-*")]


def clear_leftovers(ctx: Context, fleets: list[Path], instances: list[Path]) -> None:
    """Remove leftovers, the instances' logs shipped first as far as CloudWatch Logs takes them."""
    for instance in instances:
        variant = instance.parent
        endpoint = variant.parent.parent.name
        instance_log(ctx, endpoint, variant.name, instance).start().finish(LOG_PATIENCE)
    for folder in (*fleets, *instances):
        shutil.rmtree(folder, ignore_errors=True)
