"""Create, Describe, List, Stop, DeleteHyperParameterTuningJob, and ListTrainingJobsForHyperParameterTuningJob."""

from __future__ import annotations

from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ServiceError, ValidationException, unsupported
from sagemaker_local.job_kind import ACTIVE
from sagemaker_local.jobs import JobQueue
from sagemaker_local.listing import list_resources, page_of
from sagemaker_local.tags import tag_dict
from sagemaker_local.training.checks import check_request
from sagemaker_local.tuning import state
from sagemaker_local.tuning.ranges import grid, parse_ranges
from sagemaker_local.tuning.runner import TuningRun, definition_of, training_request
from sagemaker_local.tuning.state import TUNING

_AT_ONCE = 10  # tuning jobs; their training jobs wait for one another in their own queue
_REFUSED = {
    "TrainingJobDefinitions": "several training job definitions; give TrainingJobDefinition",
    "WarmStartConfig": "warm start; give the ranges that the earlier job narrowed down",
    "Autotune": "Autotune; give ParameterRanges",
}


class TuningQueue(JobQueue):
    """The queue of tuning jobs."""


def create_hyper_parameter_tuning_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Training jobs with Random, Grid or Bayesian values, by a metric; early stopping, completion criteria."""
    tags = tag_dict(request.get("Tags"))
    config = _checked(ctx, request)
    job = TUNING.create(
        ctx, request, tags, HyperParameterTuningJobConfig=config, TrainingJobDefinition=definition_of(request)
    )
    ctx.use(TuningQueue).submit(job.name)
    return {"HyperParameterTuningJobArn": job.arn}


def describe_hyper_parameter_tuning_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The job with its counters, and the best training job with its values and metric."""
    return state.description(ctx, TUNING.find(ctx, request))


def list_hyper_parameter_tuning_jobs(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the tuning jobs by name, time or status."""
    found, token = list_resources(
        ctx,
        TUNING.kind,
        request,
        lambda row: state.description(ctx, row),
        default_sort="Name",
        default_order=TUNING.order,
    )
    return {"HyperParameterTuningJobSummaries": found, "NextToken": token}


def list_training_jobs_for_hyper_parameter_tuning_job(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through a tuning job's training jobs by name, time, status or objective."""
    tuning = TUNING.find(ctx, request)
    wanted, sort_by = request.get("StatusEquals"), request.get("SortBy", "Name")
    rows = [row for row in state.children(ctx, tuning) if wanted in (None, row.status)]
    if sort_by == "FinalObjectiveMetricValue":
        rows = [row for row in rows if state.value_of(tuning, row) is not None]
    keys: dict[str, Any] = {
        "Name": lambda row: row.name,
        "CreationTime": lambda row: row.created,
        "Status": lambda row: row.status,
        "FinalObjectiveMetricValue": lambda row: state.value_of(tuning, row),
    }
    rows.sort(key=keys[sort_by], reverse=request.get("SortOrder") == "Descending")
    page, token = page_of(rows, request.get("NextToken"), request.get("MaxResults", 10))
    return {"TrainingJobSummaries": [state.summary(tuning, row) for row in page], "NextToken": token}


def stop_hyper_parameter_tuning_job(ctx: Context, request: dict[str, Any]) -> None:
    """Starts no more training jobs and stops those that run."""
    TUNING.stop(ctx, request, ctx.use(TuningQueue))


def delete_hyper_parameter_tuning_job(ctx: Context, request: dict[str, Any]) -> None:
    """Removes a tuning job that has ended; its training jobs stay."""
    tuning = TUNING.find(ctx, request)
    if tuning.status in ACTIVE:
        raise TUNING.refused(tuning)
    ctx.store.delete(TUNING.kind, tuning.name)


def start(ctx: Context) -> None:
    """Open the queue and take up what an earlier service left."""
    TUNING.open_queue(ctx, TuningQueue, _AT_ONCE, TuningRun)


def stop(ctx: Context) -> None:
    """Let go of the tuning jobs; they go on with the next start."""
    ctx.use(TuningQueue).close()


def _checked(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The request's configuration with what it leaves open filled in.

    Raises:
        ValidationException: AWS refuses such a request, or this service cannot honour it.
    """
    for member, why in _REFUSED.items():
        if request.get(member):
            raise unsupported(member, why)
    config = dict(request["HyperParameterTuningJobConfig"])
    if config["Strategy"] == "Hyperband":
        raise unsupported("Strategy", "Hyperband; use Bayesian with TrainingJobEarlyStoppingType=Auto")
    for holder, member in ((request, "TrainingJobDefinition"), (config, "HyperParameterTuningJobObjective")):
        if member not in holder:
            raise ValidationException(f"{member} is required.")
    if config.get("ParameterRanges", {}).get("AutoParameters"):
        raise unsupported("ParameterRanges.AutoParameters", "ranges chosen by SageMaker; give them")
    if (config.get("TuningJobCompletionCriteria") or {}).get("ConvergenceDetected"):
        raise unsupported("ConvergenceDetected", "detecting convergence; use BestObjectiveNotImproving")
    try:
        ranges = parse_ranges(config.get("ParameterRanges", {}))
        combinations = len(grid(ranges)) if config["Strategy"] == "Grid" else None
    except ValueError as error:
        raise ValidationException(f"HyperParameterTuningJobConfig.ParameterRanges: {error}.") from error
    config["ResourceLimits"] = limits = dict(config["ResourceLimits"])
    if combinations is not None and limits.setdefault("MaxNumberOfTrainingJobs", combinations) != combinations:
        raise ValidationException(f"MaxNumberOfTrainingJobs of this grid must be {combinations}, or not given.")
    if "MaxNumberOfTrainingJobs" not in limits:
        raise ValidationException("ResourceLimits.MaxNumberOfTrainingJobs is required.")
    _check_definition(ctx, request)
    return config


def _check_definition(ctx: Context, request: dict[str, Any]) -> None:
    """The first training job would have to be taken, and its image would have to report the objective."""
    definition = request["TrainingJobDefinition"]
    for member in ("TuningObjective", "HyperParameterRanges"):
        if member in definition:
            raise unsupported(f"TrainingJobDefinition.{member}", "use the tuning job's own")
    if ("ResourceConfig" in definition) == ("HyperParameterTuningResourceConfig" in definition):
        raise ValidationException(
            "Exactly one of ResourceConfig and HyperParameterTuningResourceConfig must be in TrainingJobDefinition."
        )
    try:
        check_request(ctx, training_request(request, f"{request['HyperParameterTuningJobName']}-001", {}))
    except ServiceError as error:
        error.message = f"TrainingJobDefinition: {error.message}"
        raise
    image = ctx.images.find(definition["AlgorithmSpecification"]["TrainingImage"])
    given = definition["AlgorithmSpecification"].get("MetricDefinitions") or image.metric_definitions
    names = [one["Name"] for one in given]
    wanted = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    if wanted not in names:
        raise ValidationException(f"The objective metric {wanted} is not among the metrics of the image: {names}.")


OPERATIONS = operations(
    create_hyper_parameter_tuning_job,
    describe_hyper_parameter_tuning_job,
    list_hyper_parameter_tuning_jobs,
    list_training_jobs_for_hyper_parameter_tuning_job,
    stop_hyper_parameter_tuning_job,
    delete_hyper_parameter_tuning_job,
)
