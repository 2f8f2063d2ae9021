"""CreateProcessingJob, DescribeProcessingJob, ListProcessingJobs, StopProcessingJob."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ValidationException, unsupported
from sagemaker_local.jobs import JobQueue
from sagemaker_local.mlroot import MlRoot
from sagemaker_local.processing.runner import DEFAULT_MAX_RUNTIME, PROCESSING, ProcessingRun
from sagemaker_local.tags import tag_dict


class ProcessingQueue(JobQueue):
    """The queue of processing jobs."""


def create_processing_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Runs the image's command (or ContainerEntrypoint) over inputs fetched from S3, and stores its outputs there."""
    tags = tag_dict(request.get("Tags"))
    _check(ctx, request)
    return {"ProcessingJobArn": submit(ctx, request, tags)}


def submit(ctx: Context, request: dict[str, Any], tags: dict[str, str], **members: Any) -> str:
    """Insert and queue a job from a checked request, and return its ARN. `members` are added to its description."""
    condition = request.get("StoppingCondition") or {"MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME}
    job = PROCESSING.create(ctx, request, tags, StoppingCondition=condition, **members)
    ctx.use(ProcessingQueue).submit(job.name)
    return job.arn


def describe_processing_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The job with its status, times, exit message and failure reason."""
    return PROCESSING.describe(PROCESSING.find(ctx, request))


def list_processing_jobs(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the jobs by name, time or status, with every filter."""
    return PROCESSING.page(ctx, request)


def stop_processing_job(ctx: Context, request: dict[str, Any]) -> None:
    """SIGTERM, 120 s of grace, SIGKILL; what Continuous outputs hold by then is in S3."""
    PROCESSING.stop(ctx, request, ctx.use(ProcessingQueue))


def start(ctx: Context) -> None:
    """Open the queue and take up what an earlier service left; a job taken up starts again."""
    PROCESSING.open_queue(ctx, ProcessingQueue, ctx.config.max_processing_jobs, ProcessingRun)


def stop(ctx: Context) -> None:
    """End the containers; their jobs go on with the next start."""
    ctx.use(ProcessingQueue).close()


def _check(ctx: Context, request: dict[str, Any]) -> None:
    ctx.images.find(request["AppSpecification"]["ImageUri"])
    cluster = request["ProcessingResources"]["ClusterConfig"]
    if cluster.get("InstancePreferences"):
        raise unsupported("ProcessingResources.ClusterConfig.InstancePreferences", "a choice of instance types")
    if cluster.get("InstanceCount") is None or cluster.get("InstanceType") is None:
        raise ValidationException("ProcessingResources.ClusterConfig needs InstanceCount and InstanceType.")
    if cluster["InstanceCount"] != 1:
        raise unsupported("ProcessingResources.ClusterConfig.InstanceCount", "more than one instance")
    anywhere = MlRoot(Path("/"))
    for item in request.get("ProcessingInputs", ()):
        _check_input(item, anywhere)
    for item in (request.get("ProcessingOutputConfig") or {}).get("Outputs", ()):
        _check_output(item, anywhere)


def _check_input(item: dict[str, Any], anywhere: MlRoot) -> None:
    name = item["InputName"]
    if "S3Input" not in item:
        raise unsupported(f"processing input {name}", "anything but S3Input")
    source = item["S3Input"]
    if source.get("S3InputMode", "File") != "File":
        raise unsupported(f"S3InputMode of processing input {name}", "Pipe; use File")
    if source.get("S3CompressionType", "None") != "None":
        raise unsupported(f"S3CompressionType of processing input {name}", "compressed inputs are for Pipe mode")
    s3.check_uri(source["S3Uri"], f"S3Uri of processing input {name}")
    _check_path(source, name, anywhere)


def _check_output(item: dict[str, Any], anywhere: MlRoot) -> None:
    name = item["OutputName"]
    if "S3Output" not in item:
        raise unsupported(f"processing output {name}", "anything but S3Output")
    s3.check_uri(item["S3Output"]["S3Uri"], f"S3Uri of processing output {name}")
    _check_path(item["S3Output"], name, anywhere)


def _check_path(place: dict[str, Any], name: str, anywhere: MlRoot) -> None:
    if "LocalPath" not in place:
        raise ValidationException(f"LocalPath of {name} is required: the container's path of its data.")
    anywhere.local(place["LocalPath"], f"LocalPath of {name}")


OPERATIONS = operations(create_processing_job, describe_processing_job, list_processing_jobs, stop_processing_job)
