"""Tuning the image-classification algorithm: CreateHyperParameterTuningJob, made of a training job's request, and what
came of it.

Ranges: those that "Tune an Image Classification Model" in the SageMaker developer guide recommends for what it names
as of the greatest impact, and for the weight decay, the one of them that the local algorithm uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scones.aws.naming import content_hash, sagemaker_name
from scones.training.data import TrainingResult
from scones.training.job import failure_text, is_final_failure, training_result

OBJECTIVE = {"Type": "Maximize", "MetricName": "validation:accuracy"}
# Each further job at once knows less of what the others found, and needs a machine more of the account's quota.
MOST_PARALLEL = 2
_NAME_MAX = 32
_BATCHES = (8, 512)
_NOT_OF_A_DEFINITION = ("TrainingJobName", "HyperParameters", "Tags", "ExperimentConfig")


def parameter_ranges(training_images: int) -> dict[str, list[dict[str, Any]]]:
    """Return what is tuned and between which values; a mini-batch cannot be larger than the dataset."""
    smallest, largest = (str(min(size, training_images)) for size in _BATCHES)
    return {
        "ContinuousParameterRanges": [
            {"Name": "learning_rate", "MinValue": "0.000001", "MaxValue": "0.5", "ScalingType": "Logarithmic"},
            {"Name": "weight_decay", "MinValue": "0.000001", "MaxValue": "0.999", "ScalingType": "Logarithmic"},
        ],
        "IntegerParameterRanges": [
            {"Name": "mini_batch_size", "MinValue": smallest, "MaxValue": largest, "ScalingType": "Logarithmic"}
        ],
        "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam", "rmsprop", "nag"]}],
    }


def tuning_mark(mark: str, jobs: int, training_images: int) -> str:
    """Return the fingerprint of tuning the work that ``mark`` is the fingerprint of."""
    return content_hash({"training": mark, "jobs": jobs, "ranges": parameter_ranges(training_images)}, length=16)


def tuning_job_name(run_key: str, mark: str, attempt: int) -> str:
    """Return the name of a run's ``attempt``-th tuning job of the same work: the same at every try of the task."""
    return sagemaker_name("scones-tune", content_hash([run_key, mark]), str(attempt), limit=_NAME_MAX)


def build_tuning_request(training: Mapping[str, Any], jobs: int, name: str, training_images: int) -> dict[str, Any]:
    """Return the CreateHyperParameterTuningJob request that varies a CreateTrainingJob request."""
    ranges = parameter_ranges(training_images)
    tuned = {one["Name"] for kind in ranges.values() for one in kind}
    definition = {member: value for member, value in training.items() if member not in _NOT_OF_A_DEFINITION}
    fixed = {key: value for key, value in training["HyperParameters"].items() if key not in tuned}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": OBJECTIVE,
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": jobs,
                "MaxParallelTrainingJobs": min(jobs, MOST_PARALLEL),
            },
            "ParameterRanges": ranges,
            "TrainingJobEarlyStoppingType": "Auto",
        },
        "TrainingJobDefinition": {**definition, "StaticHyperParameters": fixed},
        "Tags": training["Tags"],
    }


def rounds(jobs: int) -> int:
    """Return how many times a tuning job waits for training jobs, at most, one after another."""
    return -(-jobs // MOST_PARALLEL)


def best(jobs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the described training job with the best objective among those that ran to their end; the first of
    equals."""

    def objective(job: Mapping[str, Any]) -> float | None:
        metrics = {one["MetricName"]: float(one["Value"]) for one in job.get("FinalMetricDataList", [])}
        return metrics.get(OBJECTIVE["MetricName"]) if job["TrainingJobStatus"] == "Completed" else None

    scored = [(value, job) for job in jobs if (value := objective(job)) is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def tuning_result(
    name: str, winner: Mapping[str, Any], jobs: Iterable[Mapping[str, Any]], fingerprint: str
) -> TrainingResult:
    """Return the best training job as later tasks need it; the seconds are those of all, for all are paid for."""
    result = training_result(winner, fingerprint=fingerprint, reused=False)
    billed = [(job.get("TrainingTimeInSeconds", 0), job.get("BillableTimeInSeconds", 0)) for job in jobs]
    return {
        **result,
        "training_seconds": sum(seconds for seconds, _ in billed),
        "billable_seconds": sum(seconds for _, seconds in billed),
        "tuning_job": name,
        "tuned_jobs": len(billed),
    }


def tuning_failure(tuning: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Return why a tuning job found no model, in readable sentences, and whether it would end so again."""
    name, status = tuning["HyperParameterTuningJobName"], tuning["HyperParameterTuningJobStatus"]
    if status in ("Stopping", "Stopped"):
        return f"Tuning job {name} was stopped before it ended", True
    failed = [job for job in jobs if job["TrainingJobStatus"] == "Failed"]
    reason = tuning.get("FailureReason") or f"none of its {len(jobs)} training jobs ended with a validation accuracy"
    first = f" {failure_text(failed[0])}" if failed else ""
    return f"Tuning job {name} found no model: {reason.rstrip('.')}.{first}", all(map(is_final_failure, failed))
