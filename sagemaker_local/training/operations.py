"""CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, StopTrainingJob, DeleteTrainingJob."""

from __future__ import annotations

import shutil
from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context, Handler
from sagemaker_local.errors import ResourceInUse, ValidationException
from sagemaker_local.jobs import Control, JobQueue
from sagemaker_local.listing import list_resources
from sagemaker_local.store import AlreadyExists, Resource
from sagemaker_local.tags import tag_dict
from sagemaker_local.training import state
from sagemaker_local.training.checks import DEFAULT_MAX_RUNTIME, check_request
from sagemaker_local.training.runner import TrainingRun

_ECHOED = (
    "HyperParameters",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "CheckpointConfig",
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "TensorBoardOutputConfig",
    "ExperimentConfig",
    "ProfilerConfig",
    "ProfilerRuleConfigurations",
    "Environment",
    "RetryStrategy",
    "RemoteDebugConfig",
    "InfraCheckConfig",
)


class TrainingQueue(JobQueue):
    """The queue of training jobs."""


def create_training_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Runs the image's `train` as a process under the container contract; S3Prefix and ManifestFile channels."""
    name = request["TrainingJobName"]
    arn = ctx.arn("training-job", name.lower())
    existing = ctx.store.get(state.KIND, name)
    if existing is not None:
        raise _name_taken(existing)
    tags = tag_dict(request.get("Tags"))
    check_request(ctx, request)
    body = _initial_body(ctx, request)
    try:
        with ctx.store.transaction():
            job = ctx.store.create(state.KIND, name, arn, body, status="InProgress")
            ctx.store.set_tags(arn, tags)
    except AlreadyExists as error:
        raise _name_taken(error.existing) from error
    state.announce(ctx, job)
    queue = ctx.use(TrainingQueue)
    if not queue.submit(name):
        ctx.store.update(state.KIND, name, lambda job: _wait_for_capacity(ctx, job))
    return {"TrainingJobArn": arn}


def describe_training_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The job with its status, transitions, times, billable seconds and final metrics."""
    return description(_find(ctx, request["TrainingJobName"]))


def description(job: Resource) -> dict[str, Any]:
    """The members that Describe answers."""
    return {
        **job.body,
        "TrainingJobArn": job.arn,
        "CreationTime": job.created,
        "LastModifiedTime": job.modified,
    }


def list_training_jobs(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the jobs by name, time or status, with every filter but the warm pool's and the training plan's."""
    for member in ("WarmPoolStatusEquals", "TrainingPlanArnEquals"):
        if member in request:
            return {"TrainingJobSummaries": []}  # there are no warm pools or training plans here, so none match
    jobs, token = list_resources(ctx, state.KIND, request, _summary)
    return {"TrainingJobSummaries": jobs, "NextToken": token}


def stop_training_job(ctx: Context, request: dict[str, Any]) -> None:
    """SIGTERM, 120 s of grace, SIGKILL; what the container left in its model directory is uploaded."""

    def stopping(job: Resource) -> None:
        if job.status == "Stopping":
            return
        if job.status != "InProgress":
            raise ValidationException(f"The request was rejected because the training job is in status {job.status}.")
        job.status = job.body["TrainingJobStatus"] = "Stopping"
        state.enter(job, "Stopping", "Stopping the training job", ctx.now())

    name = _find(ctx, request["TrainingJobName"]).name
    job = ctx.store.update(state.KIND, name, stopping)
    if job is not None:
        state.announce(ctx, job)
    ctx.use(TrainingQueue).stop(name)


def delete_training_job(ctx: Context, request: dict[str, Any]) -> None:
    """Removes a job that has ended; its artefacts in S3 stay."""
    job = _find(ctx, request["TrainingJobName"])
    if job.status not in state.FINAL:
        raise ValidationException(f"The request was rejected because the training job is in status {job.status}.")
    ctx.store.delete(state.KIND, job.name)
    shutil.rmtree(ctx.config.data_dir / "training" / job.name, ignore_errors=True)


def start(ctx: Context) -> None:
    """Open the queue and take up the jobs that an earlier service left, in their order."""

    def run(name: str, control: Control) -> None:
        TrainingRun(ctx, name, control).run()

    def fail(name: str, reason: str) -> None:
        job = ctx.store.update(state.KIND, name, lambda job: state.finish(job, "Failed", "Failed", reason, ctx.now()))
        if job is not None:
            state.announce(ctx, job)

    queue = TrainingQueue("training", ctx.config.max_training_jobs, run, fail)
    ctx.provide(queue)
    for job in ctx.store.with_status(state.KIND, *state.ACTIVE):
        queue.submit(job.name)


def stop(ctx: Context) -> None:
    """End the containers; their jobs go on with the next start."""
    ctx.use(TrainingQueue).close()


def _initial_body(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    name = request["TrainingJobName"]
    output = request["OutputDataConfig"]
    artefact = "model/" if output.get("CompressionType") == "NONE" else "model.tar.gz"
    algorithm = dict(request["AlgorithmSpecification"])
    image = ctx.images.find(algorithm["TrainingImage"])
    if image.metric_definitions and not algorithm.get("MetricDefinitions"):
        algorithm["MetricDefinitions"] = list(image.metric_definitions)
    return {
        "TrainingJobName": name,
        "ModelArtifacts": {"S3ModelArtifacts": s3.join_uri(output["S3OutputPath"], name, "output", artefact)},
        "TrainingJobStatus": "InProgress",
        "AlgorithmSpecification": {"EnableSageMakerMetricsTimeSeries": False, **algorithm},
        "StoppingCondition": {"MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME, **request.get("StoppingCondition", {})},
        "EnableNetworkIsolation": request.get("EnableNetworkIsolation", False),
        "EnableInterContainerTrafficEncryption": request.get("EnableInterContainerTrafficEncryption", False),
        "EnableManagedSpotTraining": request.get("EnableManagedSpotTraining", False),
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": ctx.now(), "StatusMessage": "Preparing the instances for training"}
        ],
        **{member: request[member] for member in _ECHOED if member in request},
    }


def _wait_for_capacity(ctx: Context, job: Resource) -> None:
    # Between submitting and this write the job may have started after all.
    if job.body["SecondaryStatus"] == "Starting":
        message = f"Training job waiting for capacity: {ctx.config.max_training_jobs} jobs are running"
        state.enter(job, "Pending", message, ctx.now())


def _find(ctx: Context, name: str) -> Resource:
    job = ctx.store.get(state.KIND, name)
    if job is None:
        raise ValidationException("Requested resource not found.")
    return job


def _name_taken(job: Resource) -> ResourceInUse:
    return ResourceInUse(
        "Training job names must be unique within an AWS account and region, and a training job with this name "
        f"already exists ({job.arn})"
    )


def _summary(job: Resource) -> dict[str, Any]:
    return {
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "CreationTime": job.created,
        "TrainingEndTime": job.body.get("TrainingEndTime"),
        "LastModifiedTime": job.modified,
        "TrainingJobStatus": job.status,
        "SecondaryStatus": job.body["SecondaryStatus"],
    }


OPERATIONS: dict[str, Handler] = {
    "CreateTrainingJob": create_training_job,
    "DescribeTrainingJob": describe_training_job,
    "ListTrainingJobs": list_training_jobs,
    "StopTrainingJob": stop_training_job,
    "DeleteTrainingJob": delete_training_job,
}
