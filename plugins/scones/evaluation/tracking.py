"""A training job as a run of MLflow, over MLflow's REST API (2.0): https://mlflow.org/docs/latest/api_reference/rest-api.html

MLflow's own client would bring some fifty packages into Airflow's environment for the few calls below. A job is one run
of MLflow, however often it is sent: the run is found by its tag, parameters are the same each time, a metric that is
sent again with its time and step is not stored twice, and tags take the last word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scones.evaluation.data import Decision, Evaluation
from scones.training.costs import job_cost
from scones.training.curve import training_curve
from scones.training.data import StagedDataset, TrainingResult
from scones.training.model_package import APPROVED_BY

API = "api/2.0/mlflow"
JOB_TAG = "scones.training_job"
# MLflow's limits of one log-batch and of a value.
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 500, 100
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000
_TEST_FIGURES = ("test_accuracy", "log_loss", "expected_calibration_error", "auc", "recommended_threshold")

#: Sends a request (method, path, body) and returns the answer's status and document.
Call = Callable[[str, str, Mapping[str, Any]], tuple[int, Mapping[str, Any]]]


class MlflowError(RuntimeError):
    """MLflow refused a request.

    Attributes:
        code: its error code, e.g. "RESOURCE_DOES_NOT_EXIST".
    """

    def __init__(self, path: str, status: int, answer: Mapping[str, Any]) -> None:
        self.code = str(answer.get("error_code", ""))
        super().__init__(f"MLflow answered {path} with {status} {self.code}: {str(answer.get('message', ''))[:300]!r}")


@dataclass(frozen=True)
class Facts:
    """What is known of a training job when it is sent.

    Attributes:
        job: DescribeTrainingJob's answer; its times are the run's.
        log: lines of the job's log, which holds the accuracy by epoch.
        package: DescribeModelPackage's answer; {} when the model was not registered.
        links: where people find more: {"Lineage": address, ...}.
    """

    training: TrainingResult
    dataset: StagedDataset
    job: Mapping[str, Any]
    evaluation: Evaluation | None = None
    decision: Decision | None = None
    log: Sequence[str] = ()
    package: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The job's name."""
        return self.training["job_name"]

    @property
    def times(self) -> tuple[int, int]:
        """When the job began and ended, in milliseconds since the epoch."""
        began = self.job["TrainingStartTime"]
        return _milliseconds(began), _milliseconds(self.job.get("TrainingEndTime", began))

    @property
    def params(self) -> dict[str, str]:
        """What decided the model."""
        chosen = {"dataset_version": self.dataset["dataset_version"], "classes": ",".join(self.dataset["classes"])}
        machines = {"instance_type": self.training["instance_type"], "training_image": self.training["image"]}
        found = {**self.training["hyperparameters"], **chosen, **machines}
        return {name: str(value)[:_LONGEST_PARAM] for name, value in found.items()}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The accuracy by epoch, the figures on the test images, time and cost; only finite numbers."""
        curve = {f"{name}/accuracy": points for name, points in training_curve(self.log).items() if points}
        training = self.training
        figures: dict[str, Any] = {name.replace(":", "/"): value for name, value in training["metrics"].items()} | {
            "training_seconds": training["training_seconds"],
            "billable_seconds": training["billable_seconds"],
        }
        figures["cost_usd"] = job_cost(training["instance_type"], training["billable_seconds"])
        if self.evaluation:
            measured: Mapping[str, Any] = self.evaluation
            figures |= {f"test/{name.removeprefix('test_')}": measured.get(name) for name in _TEST_FIGURES}
            figures |= {f"test/recall {name}": value for name, value in self.evaluation["recall"].items()}
            champion = self.evaluation["champion"] or {}
            figures |= {"test/champion accuracy": champion.get("accuracy")}
        steps = [(name, value, step) for name, points in curve.items() for step, value in points]
        steps += [(name, value, 0) for name, value in figures.items() if name not in curve]
        return [
            {"key": name, "value": float(value), "timestamp": self.times[1], "step": step}
            for name, value, step in steps
            if isinstance(value, int | float) and math.isfinite(value)
        ]

    @property
    def tags(self) -> dict[str, str]:
        """Where it comes from, what was decided on it, and who did."""
        noted = self.package.get("CustomerMetadataProperties") or {}
        found = {
            JOB_TAG: self.name,
            "scones.dataset_manifest": self.dataset["manifest_uri"],
            "scones.model_artifacts": self.training["model_artifacts"],
            "scones.model_package": self.package.get("ModelPackageArn"),
            "scones.model_version": self.package.get("ModelPackageVersion"),
            "scones.approval": self.package.get("ModelApprovalStatus"),
            "scones.approved_by": noted.get(APPROVED_BY),
            "mlflow.source.git.commit": noted.get("git_revision"),
            "mlflow.source.type": "JOB",
            "mlflow.source.name": "train_and_deploy",
            "mlflow.note.content": "\n".join(f"- [{name}]({url})" for name, url in self.links.items()),
        }
        if self.decision:
            found["scones.verdict"] = "passed" if self.decision["passed"] else "refused"
            found["scones.verdict_reasons"] = self.decision["summary"]
        return {name: str(value)[:_LONGEST_TAG] for name, value in found.items() if value}


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def record(call: Call, experiment: str, facts: Facts) -> str:
    """Send a training job to MLflow; return the address of its run, below the server's.

    Raises:
        MlflowError: MLflow refused.
    """

    def ask(method: str, path: str, **body: Any) -> Mapping[str, Any]:
        status, answer = call(method, f"{API}/{path}", body)
        if status >= 300:
            raise MlflowError(path, status, answer)
        return answer

    experiment_id = _experiment(ask, experiment)
    began, ended = facts.times
    tags = _pairs(facts.tags)
    # The job's name holds letters, digits and dashes only.
    same = f"tags.`{JOB_TAG}` = '{facts.name}'"
    found = ask("POST", "runs/search", experiment_ids=[experiment_id], filter=same, max_results=1).get("runs")
    if found:
        run_id = found[0]["info"]["run_id"]
    else:
        made = ask(
            "POST", "runs/create", experiment_id=experiment_id, run_name=facts.name, start_time=began, tags=tags[:1]
        )
        run_id = made["run"]["info"]["run_id"]
    params, metrics = _pairs(facts.params), facts.metrics
    for first in range(0, len(params), _PARAMS_AT_ONCE):
        ask("POST", "runs/log-batch", run_id=run_id, params=params[first : first + _PARAMS_AT_ONCE])
    for first in range(0, len(metrics), _METRICS_AT_ONCE):
        ask("POST", "runs/log-batch", run_id=run_id, metrics=metrics[first : first + _METRICS_AT_ONCE])
    ask("POST", "runs/log-batch", run_id=run_id, tags=tags)
    ask("POST", "runs/update", run_id=run_id, status="FINISHED", end_time=ended)
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def _experiment(ask: Callable[..., Mapping[str, Any]], name: str) -> str:
    """The id of an experiment, made if there is none."""
    try:
        return str(ask("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"])
    except MlflowError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return str(ask("POST", "experiments/create", name=name)["experiment_id"])


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items()]
