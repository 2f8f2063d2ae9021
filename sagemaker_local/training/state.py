"""A training job's row: its states, and the transitions between them as SageMaker reports them."""

from __future__ import annotations

import math
from typing import Any

from sagemaker_local.store import Resource


def enter(job: Resource, secondary: str, message: str, now: float) -> None:
    """Move a job to a secondary status, closing the transition before it. Entering the same status again is no move."""
    transitions: list[dict[str, Any]] = job.body["SecondaryStatusTransitions"]
    if transitions and transitions[-1]["Status"] == secondary:
        transitions[-1]["StatusMessage"] = message
        return
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
    job.body["SecondaryStatus"] = secondary


def finish(job: Resource, status: str, secondary: str, message: str, now: float) -> None:
    """Move a job to its final state: times, billable seconds, and the last transition, which is already over."""
    enter(job, secondary, message, now)
    job.body["SecondaryStatusTransitions"][-1]["EndTime"] = now
    job.status = job.body["TrainingJobStatus"] = status
    started = job.body.get("TrainingStartTime")
    if started is not None:
        seconds = max(1, math.ceil(now - started))
        job.body["TrainingEndTime"] = now
        job.body["TrainingTimeInSeconds"] = job.body["BillableTimeInSeconds"] = seconds
    if status == "Failed":
        job.body["FailureReason"] = message[:1024]
