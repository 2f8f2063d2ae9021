"""A tuning job's row and what its training jobs say of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceNotFound
from sagemaker_local.job_kind import ACTIVE, JobKind
from sagemaker_local.store import Resource
from sagemaker_local.training.runner import TRAINING
from sagemaker_local.tuning.trial import Trial

TUNING = JobKind(
    "HyperParameterTuning",
    missing="Amazon SageMaker can't find a tuning job with name {name}.",
    taken="Hyperparameter tuning job names must be unique within an AWS account and region, and one with this name "
    "already exists ({arn})",
    order="Ascending",
    resource="hyper-parameter-tuning-job",
    title="HyperParameter Tuning",
    not_found=ResourceNotFound,
)
_COUNTED = {"Completed": "Completed", "Failed": "NonRetryableError", "Stopped": "Stopped"}


def children(ctx: Context, tuning: Resource) -> list[Resource]:
    """The training jobs of a tuning job, in the order they were started."""
    return ctx.store.children(TRAINING.kind, tuning.name)


def objective(tuning: Resource) -> dict[str, str]:
    """Type (Maximize or Minimize) and MetricName."""
    found: dict[str, str] = tuning.body["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    return found


def value_of(tuning: Resource, child: Resource) -> float | None:
    """The objective's last value of a training job, or None."""
    name = objective(tuning)["MetricName"]
    found = [one["Value"] for one in child.body.get("FinalMetricDataList", ()) if one["MetricName"] == name]
    return float(found[-1]) if found else None


def trial_of(tuning: Resource, child: Resource) -> Trial:
    """A training job as the search sees it: more is better, only what ended by itself counts."""
    sign = 1.0 if objective(tuning)["Type"] == "Maximize" else -1.0
    value = value_of(tuning, child)
    curve = child.internal.get("curves", {}).get(objective(tuning)["MetricName"], ())
    return Trial(
        values=child.internal["tuned"],
        score=sign * value if value is not None and child.status in ("Completed", "Stopped") else None,
        curve=tuple(sign * point for point in curve),
        running=child.status in ACTIVE,
    )


def summary(tuning: Resource, child: Resource) -> dict[str, Any]:
    """A training job as the tuning job's operations describe it."""
    value = value_of(tuning, child)
    wanted = objective(tuning)
    described: dict[str, Any] = {
        **TRAINING.describe(child),
        "TuningJobName": tuning.name,
        "TunedHyperParameters": child.internal["tuned"],
        "ObjectiveStatus": "Pending" if child.status in ACTIVE else "Failed" if value is None else "Succeeded",
    }
    if value is not None:
        described["FinalHyperParameterTuningJobObjectiveMetric"] = {**wanted, "Value": value}
    return described


def description(ctx: Context, tuning: Resource) -> dict[str, Any]:
    """The members of a Describe answer."""
    jobs = children(ctx, tuning)
    statuses = Counter(_COUNTED.get(job.status, "InProgress") for job in jobs)
    outcomes = Counter(summary(tuning, job)["ObjectiveStatus"] for job in jobs)
    answer: dict[str, Any] = {
        **TUNING.describe(tuning),
        "Strategy": tuning.body["HyperParameterTuningJobConfig"]["Strategy"],
        "ResourceLimits": tuning.body["HyperParameterTuningJobConfig"]["ResourceLimits"],
        "TrainingJobStatusCounters": {
            word: statuses[word]
            for word in ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped")
        },
        "ObjectiveStatusCounters": {word: outcomes[word] for word in ("Succeeded", "Pending", "Failed")},
        "ConsumedResources": {"RuntimeInSeconds": sum(job.body.get("TrainingTimeInSeconds", 0) for job in jobs)},
    }
    best = best_of(tuning, jobs)
    if best is not None:
        answer["BestTrainingJob"] = summary(tuning, best)
    return answer


def best_of(tuning: Resource, jobs: list[Resource]) -> Resource | None:
    """The ended training job with the best objective; the first of equals."""
    scored = [(trial.score, job) for job in jobs if (trial := trial_of(tuning, job)).score is not None]
    return max(scored, key=lambda pair: pair[0] or 0.0)[1] if scored else None
