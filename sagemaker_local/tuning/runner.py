"""One tuning job: start training jobs as limits and results allow, until there is nothing left to start.

All that counts is in the store: the tuning job's row, and its training jobs with the values they were given. A service
that was killed goes on from there.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceError
from sagemaker_local.job_kind import ACTIVE
from sagemaker_local.jobs import Control
from sagemaker_local.store import Resource
from sagemaker_local.training import operations as training
from sagemaker_local.tuning.ranges import parse_ranges
from sagemaker_local.tuning.state import TUNING, best_of, children, objective, trial_of, value_of
from sagemaker_local.tuning.trial import should_stop

POLL = 0.5
OBJECTIVE = "_tuning_objective_metric"  # the hyperparameter that tells a container what is tuned
_COPIED = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)
_OF_A_MACHINE = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")


def definition_of(tuning: dict[str, Any]) -> dict[str, Any]:
    """The training job definition of a tuning job's request or row, with what SageMaker adds to it.

    The objective is told to the containers. Of several machines the first is taken, as AllocationStrategy Prioritized
    has it; the SDK 2.x gives its one machine so, and looks for it in ResourceConfig.
    """
    definition = dict(tuning["TrainingJobDefinition"])
    metric = tuning["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    definition["StaticHyperParameters"] = {**definition.get("StaticHyperParameters", {}), OBJECTIVE: metric}
    if machines := definition.get("HyperParameterTuningResourceConfig"):
        first = (machines.get("InstanceConfigs") or [machines])[0]
        definition["ResourceConfig"] = {member: first[member] for member in _OF_A_MACHINE if member in first}
    return definition


def training_request(tuning: dict[str, Any], name: str, values: dict[str, str]) -> dict[str, Any]:
    """The CreateTrainingJob request of one training job of a tuning job's request or row."""
    definition = definition_of(tuning)
    request = {
        **{member: definition[member] for member in _COPIED if member in definition},
        "TrainingJobName": name,
        "AlgorithmSpecification": definition["AlgorithmSpecification"],
        "HyperParameters": {**definition["StaticHyperParameters"], **values},
    }
    if checkpoints := definition.get("CheckpointConfig"):  # of each job its own, else one would go on from another's
        request["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{name}"}
    return request


class TuningRun:
    """Runs one tuning job. `run` returns when it is final."""

    def __init__(self, ctx: Context, name: str, control: Control) -> None:
        self._ctx = ctx
        self._name = name
        self._control = control
        self._tuning = self._read()
        self._config = self._tuning.body["HyperParameterTuningJobConfig"]
        self._ranges = parse_ranges(self._config["ParameterRanges"])
        seed = self._config.get("RandomSeed")
        self._seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) if seed is None else int(seed)

    def run(self) -> None:
        """Start, watch and stop training jobs until all have ended.

        Raises:
            jobs.Abandoned: the service goes down.
        """
        while True:
            self._tuning, jobs = self._read(), children(self._ctx, self._tuning)
            active = [job for job in jobs if job.status in ACTIVE]
            ending = self._is_over(jobs)
            if ending:
                self._stop(active)
            elif self._config.get("TrainingJobEarlyStoppingType") == "Auto":
                self._stop_the_worse(jobs, active)
            if not active and (ending or len(jobs) >= self._most()):
                break
            if not ending and len(active) < self._parallel() and len(jobs) < self._most():
                if not self._launch(jobs):
                    return
                continue
            self._control.check_abandoned()
            if self._control.cancelled.is_set():  # told to stop: `pause` would not wait any more
                time.sleep(POLL)
            else:
                self._control.pause(POLL)
        self._finish(jobs)

    def _read(self) -> Resource:
        return TUNING.find(self._ctx, {"HyperParameterTuningJobName": self._name})

    def _most(self) -> int:
        return int(self._config["ResourceLimits"]["MaxNumberOfTrainingJobs"])

    def _parallel(self) -> int:
        return int(self._config["ResourceLimits"]["MaxParallelTrainingJobs"])

    def _is_over(self, jobs: list[Resource]) -> bool:
        """Whether nothing more is to be started, and what runs is to be stopped."""
        longest = self._config["ResourceLimits"].get("MaxRuntimeInSeconds")
        if self._tuning.status == "Stopping" or (longest and self._ctx.now() - self._tuning.created > longest):
            return True
        criteria = self._config.get("TuningJobCompletionCriteria") or {}
        best = best_of(self._tuning, jobs)
        target, patience = criteria.get("TargetObjectiveMetricValue"), criteria.get("BestObjectiveNotImproving") or {}
        if best is None:
            return False
        value = value_of(self._tuning, best)
        if target is not None and value is not None:
            reached = value >= target if objective(self._tuning)["Type"] == "Maximize" else value <= target
            if reached:
                return True
        limit = patience.get("MaxNumberOfTrainingJobsNotImproving")
        ended = [job for job in jobs if job.status not in ACTIVE]
        return limit is not None and len(ended) - 1 - ended.index(best) >= limit

    def _launch(self, jobs: list[Resource]) -> bool:
        """Start the next training job; False when it was refused, which ends the tuning job."""
        # numpy, which nothing else of the service needs, would be a fifth of its start.
        from sagemaker_local.tuning.search import next_values

        trials = [trial_of(self._tuning, job) for job in jobs]
        values = next_values(self._config["Strategy"], self._ranges, trials, self._seed)
        name = f"{self._name}-{len(jobs) + 1:03d}-{uuid.uuid4().hex[:8]}"
        request = training_request(self._tuning.body, name, values)
        try:
            training.submit(
                self._ctx, request, self._ctx.store.tags(self._tuning.arn), tuning=self._tuning, tuned=values
            )
        except ServiceError as error:
            TUNING.finish(self._ctx, self._name, "Failed", f"ClientError: {error.message}")
            return False
        return True

    def _stop(self, active: list[Resource]) -> None:
        for job in active:
            if job.status == "InProgress":
                training.stop_training_job(self._ctx, {"TrainingJobName": job.name})

    def _stop_the_worse(self, jobs: list[Resource], active: list[Resource]) -> None:
        for job in active:
            others = [trial_of(self._tuning, other) for other in jobs if other is not job]
            trial = trial_of(self._tuning, job)
            if trial.curve and should_stop(trial, others):
                self._stop([job])

    def _finish(self, jobs: list[Resource]) -> None:
        status, reason = "Completed", ""
        if self._tuning.status == "Stopping":
            status = "Stopped"
        elif jobs and all(job.status == "Failed" for job in jobs):
            status = "Failed"
            reason = "All training jobs failed. Please take a look at the training jobs failures to get more details."
        TUNING.finish(self._ctx, self._name, status, reason)
