"""CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, StopTrainingJob, DeleteTrainingJob."""

from __future__ import annotations

import shutil
from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ResourceInUse
from sagemaker_local.job_kind import ACTIVE
from sagemaker_local.jobs import JobQueue
from sagemaker_local.store import Resource
from sagemaker_local.tags import tag_dict
from sagemaker_local.training import state
from sagemaker_local.training.checks import DEFAULT_MAX_RUNTIME, check_request
from sagemaker_local.training.runner import TRAINING, TrainingRun


class TrainingQueue(JobQueue):
    """The queue of training jobs."""


def create_training_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Runs the image's `train` as a process under the container contract; S3Prefix and ManifestFile channels."""
    tags = tag_dict(request.get("Tags"))
    name = request["TrainingJobName"]
    if existing := ctx.store.get(TRAINING.kind, name):  # before all else: the provider's operator depends on it
        raise ResourceInUse(TRAINING.taken.format(arn=existing.arn))
    check_request(ctx, request)
    return {"TrainingJobArn": submit(ctx, request, tags).arn}


def submit(
    ctx: Context,
    request: dict[str, Any],
    tags: dict[str, str],
    tuning: Resource | None = None,
    tuned: dict[str, str] | None = None,
) -> Resource:
    """Insert and queue a job from a checked request; one of a tuning job has that as its parent, and `tuned` values."""
    body = _initial_body(ctx, request)
    if tuning is None:
        job = TRAINING.create(ctx, request, tags, **body)
    else:
        body["TuningJobArn"] = tuning.arn
        job = TRAINING.create(ctx, request, tags, parent=tuning.name, internal={"tuned": tuned}, **body)
    if not ctx.use(TrainingQueue).submit(job.name):
        ctx.store.update(TRAINING.kind, job.name, lambda job: _wait_for_capacity(ctx, job))
    return job


def describe_training_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The job with its status, transitions, times, billable seconds and final metrics."""
    return TRAINING.describe(TRAINING.find(ctx, request))


def list_training_jobs(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the jobs by name, time or status, with every filter but the warm pool's and the training plan's."""
    for member in ("WarmPoolStatusEquals", "TrainingPlanArnEquals"):
        if member in request:
            return {"TrainingJobSummaries": []}  # there are no warm pools or training plans here, so none match
    # As AWS documents it: MaxResults jobs of any status are taken, then filtered.
    status = request.get("StatusEquals")
    answer = TRAINING.page(ctx, {key: value for key, value in request.items() if key != "StatusEquals"})
    found = [job for job in answer["TrainingJobSummaries"] if status in (None, job["TrainingJobStatus"])]
    return {**answer, "TrainingJobSummaries": found}


def stop_training_job(ctx: Context, request: dict[str, Any]) -> None:
    """SIGTERM, 120 s of grace, SIGKILL; what the container left in its model directory is uploaded."""

    def note(job: Resource) -> None:
        state.enter(job, "Stopping", "Stopping the training job", ctx.now())

    TRAINING.stop(ctx, request, ctx.use(TrainingQueue), note)


def delete_training_job(ctx: Context, request: dict[str, Any]) -> None:
    """Removes a job that has ended; its artifacts in S3 stay."""
    job = TRAINING.find(ctx, request)
    if job.status in ACTIVE:
        raise TRAINING.refused(job)
    ctx.store.delete(TRAINING.kind, job.name)
    shutil.rmtree(ctx.config.data_dir / "training" / job.name, ignore_errors=True)


def start(ctx: Context) -> None:
    """Open the queue and take up the jobs that an earlier service left, in their order."""

    def fail(name: str, reason: str) -> None:
        TRAINING.change(ctx, name, lambda job: state.finish(job, "Failed", "Failed", reason, ctx.now()))

    TRAINING.open_queue(ctx, TrainingQueue, ctx.config.max_training_jobs, TrainingRun, fail)


def stop(ctx: Context) -> None:
    """End the containers; their jobs go on with the next start."""
    ctx.use(TrainingQueue).close()


def _initial_body(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    output = request["OutputDataConfig"]
    target = s3.join_uri(output["S3OutputPath"], request["TrainingJobName"], "output")
    artifact = "model/" if output.get("CompressionType") == "NONE" else "model.tar.gz"
    algorithm = dict(request["AlgorithmSpecification"])
    image = ctx.images.find(algorithm["TrainingImage"])
    if image.metric_definitions and not algorithm.get("MetricDefinitions"):
        algorithm["MetricDefinitions"] = list(image.metric_definitions)
    return {
        "ModelArtifacts": {"S3ModelArtifacts": s3.join_uri(target, artifact)},
        "AlgorithmSpecification": {"EnableSageMakerMetricsTimeSeries": False, **algorithm},
        "OutputDataConfig": {"KmsKeyId": "", **output},  # `attach` of the SDK 2.x reads the key, be there one or not
        "StoppingCondition": {"MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME, **request.get("StoppingCondition", {})},
        "EnableNetworkIsolation": request.get("EnableNetworkIsolation", False),
        "EnableInterContainerTrafficEncryption": request.get("EnableInterContainerTrafficEncryption", False),
        "EnableManagedSpotTraining": request.get("EnableManagedSpotTraining", False),
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": ctx.now(), "StatusMessage": "Preparing the instances for training"}
        ],
    }


def _wait_for_capacity(ctx: Context, job: Resource) -> None:
    # Between submitting and this write the job may have started after all.
    if job.body["SecondaryStatus"] == "Starting":
        message = f"Training job waiting for capacity: {ctx.config.max_training_jobs} jobs are running"
        state.enter(job, "Pending", message, ctx.now())


OPERATIONS = operations(
    create_training_job, describe_training_job, list_training_jobs, stop_training_job, delete_training_job
)
