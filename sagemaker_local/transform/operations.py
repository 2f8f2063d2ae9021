"""CreateTransformJob, DescribeTransformJob, ListTransformJobs, StopTransformJob."""

from __future__ import annotations

from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ValidationException, unsupported
from sagemaker_local.input_files import SERVED_TYPES
from sagemaker_local.jobs import JobQueue
from sagemaker_local.models import find_model
from sagemaker_local.tags import tag_dict
from sagemaker_local.transform.runner import TRANSFORM, TransformRun

_LARGEST_PAYLOAD_MB = 100
_NEUTRAL = {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}


class TransformQueue(JobQueue):
    """The queue of transform jobs."""


def create_transform_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Sends every object (or its lines) to the model's `/invocations` and stores the answers as `<key>.out`."""
    tags = tag_dict(request.get("Tags"))
    _check(ctx, request)
    job = TRANSFORM.create(
        ctx,
        request,
        tags,
        DataProcessing={**_NEUTRAL, **request.get("DataProcessing", {})},
        TransformInput={"CompressionType": "None", "SplitType": "None", **request["TransformInput"]},
        TransformOutput={"AssembleWith": "None", **request["TransformOutput"]},
    )
    ctx.use(TransformQueue).submit(job.name)
    return {"TransformJobArn": job.arn}


def describe_transform_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The job with its status, times and failure reason."""
    return TRANSFORM.describe(TRANSFORM.find(ctx, request))


def list_transform_jobs(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the jobs by name, time or status, with every filter."""
    return TRANSFORM.page(ctx, request)


def stop_transform_job(ctx: Context, request: dict[str, Any]) -> None:
    """Ends the job; answers stored so far stay in S3."""
    TRANSFORM.stop(ctx, request, ctx.use(TransformQueue))


def start(ctx: Context) -> None:
    """Open the queue and take up what an earlier service left; a job taken up starts again."""
    TRANSFORM.open_queue(ctx, TransformQueue, ctx.config.max_transform_jobs, TransformRun)


def stop(ctx: Context) -> None:
    """End the model servers; their jobs go on with the next start."""
    ctx.use(TransformQueue).close()


def _check(ctx: Context, request: dict[str, Any]) -> None:
    if request.get("DataCaptureConfig"):
        raise unsupported("DataCaptureConfig", "data capture of transform jobs; endpoints have it")
    processing = request.get("DataProcessing") or {}
    for member, neutral in _NEUTRAL.items():
        if processing.get(member, neutral) != neutral:
            raise unsupported(f"DataProcessing.{member}", "filtering and joining of transform data")
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in SERVED_TYPES:
        raise unsupported("TransformInput.DataSource.S3DataSource.S3DataType", source["S3DataType"])
    split = request["TransformInput"].get("SplitType", "None")
    if split not in ("None", "Line"):
        raise unsupported("TransformInput.SplitType", f"{split}; use None or Line")
    if request["TransformResources"]["InstanceCount"] < 1:
        raise ValidationException("TransformResources.InstanceCount must be at least 1.")
    payload, parallel = request.get("MaxPayloadInMB", 6), request.get("MaxConcurrentTransforms", 1)
    if payload > _LARGEST_PAYLOAD_MB or payload * max(1, parallel) > _LARGEST_PAYLOAD_MB:
        raise ValidationException("MaxPayloadInMB times MaxConcurrentTransforms must not exceed 100 MB.")
    s3.check_uri(source["S3Uri"], "TransformInput.DataSource.S3DataSource.S3Uri")
    s3.check_uri(request["TransformOutput"]["S3OutputPath"], "TransformOutput.S3OutputPath")
    ctx.images.find(find_model(ctx, request["ModelName"]).internal["container"]["Image"])


OPERATIONS = operations(create_transform_job, describe_transform_job, list_transform_jobs, stop_transform_job)
