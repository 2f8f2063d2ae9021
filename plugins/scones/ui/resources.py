"""What the page of a job, an endpoint or an execution shows, where there is no AWS console to show it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from scones.aws.logs import TRAINING_LOGS
from scones.training.costs import HOURS_PER_MONTH, monthly_cost
from scones.training.curve import curve_chart, training_curve

LOG_LINES = 300


@dataclass(frozen=True)
class Page:
    """How one kind of resource is described, and where its log is.

    Attributes:
        facts: what a reader looks for first: a label, and the beginning of the members that hold it.
    """

    title: str
    service: str
    operation: str
    argument: str
    status: str
    facts: tuple[tuple[str, str], ...]
    log_group: str = ""


PAGES = {
    "training-jobs": Page(
        "Training job",
        "sagemaker",
        "describe_training_job",
        "TrainingJobName",
        "TrainingJobStatus",
        (
            ("Metrics", "FinalMetricDataList"),
            ("Began", "TrainingStartTime"),
            ("Ended", "TrainingEndTime"),
            ("Billable seconds", "BillableTimeInSeconds"),
            ("Instance", "ResourceConfig.InstanceType"),
            ("Hyperparameters", "HyperParameters"),
            ("Model", "ModelArtifacts"),
        ),
        TRAINING_LOGS,
    ),
    "tuning-jobs": Page(
        "Tuning job",
        "sagemaker",
        "describe_hyper_parameter_tuning_job",
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobStatus",
        (
            ("Best training job", "BestTrainingJob.TrainingJobName"),
            ("Its objective", "BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric"),
            ("Its values", "BestTrainingJob.TunedHyperParameters"),
            ("Training jobs", "TrainingJobStatusCounters"),
            ("Began", "CreationTime"),
            ("Ended", "HyperParameterTuningEndTime"),
            ("Limits", "HyperParameterTuningJobConfig.ResourceLimits"),
            ("Ranges", "HyperParameterTuningJobConfig.ParameterRanges"),
        ),
    ),
    "transform-jobs": Page(
        "Transform job",
        "sagemaker",
        "describe_transform_job",
        "TransformJobName",
        "TransformJobStatus",
        (
            ("Model", "ModelName"),
            ("Began", "TransformStartTime"),
            ("Ended", "TransformEndTime"),
            ("Input", "TransformInput.DataSource.S3DataSource.S3Uri"),
            ("Output", "TransformOutput.S3OutputPath"),
            ("Instance", "TransformResources.InstanceType"),
        ),
        "/aws/sagemaker/TransformJobs",
    ),
    "endpoints": Page(
        "Endpoint",
        "sagemaker",
        "describe_endpoint",
        "EndpointName",
        "EndpointStatus",
        (
            ("Config", "EndpointConfigName"),
            ("Instances", "ProductionVariants[0].CurrentInstanceCount"),
            ("Captured", "DataCaptureConfig"),
            ("Last change", "LastModifiedTime"),
            ("Being deployed", "PendingDeploymentSummary.EndpointConfigName"),
        ),
        "/aws/sagemaker/Endpoints/{name}",
    ),
    "endpoint-configs": Page(
        "Endpoint config",
        "sagemaker",
        "describe_endpoint_config",
        "EndpointConfigName",
        "",
        (
            ("Made", "CreationTime"),
            ("Model", "ProductionVariants[0].ModelName"),
            ("Instances", "ProductionVariants[0].InitialInstanceCount"),
            ("Instance", "ProductionVariants[0].InstanceType"),
        ),
    ),
    "models": Page(
        "Model",
        "sagemaker",
        "describe_model",
        "ModelName",
        "",
        (("Made", "CreationTime"), ("Container", "PrimaryContainer")),
    ),
    "model-packages": Page(
        "Model package",
        "sagemaker",
        "describe_model_package",
        "ModelPackageName",
        "ModelApprovalStatus",
        (
            ("Version", "ModelPackageVersion"),
            ("Made", "CreationTime"),
            ("Decision", "ApprovalDescription"),
            ("Noted", "CustomerMetadataProperties"),
        ),
    ),
    "executions": Page(
        "Execution",
        "stepfunctions",
        "describe_execution",
        "executionArn",
        "status",
        (("Began", "startDate"), ("Ended", "stopDate"), ("Error", "error"), ("Input", "input"), ("Output", "output")),
    ),
}
_TONES = {
    **dict.fromkeys(("Completed", "InService", "SUCCEEDED", "Approved"), "ok"),
    **dict.fromkeys(("Failed", "UpdateRollbackFailed", "FAILED", "TIMED_OUT", "ABORTED"), "violation"),
    **dict.fromkeys(("InProgress", "Stopping", "Creating", "Updating", "RUNNING"), "attention"),
}
_SERVICES = {"sagemaker": "SageMaker", "stepfunctions": "Step Functions"}


@dataclass(frozen=True)
class Described:
    """A resource as its service describes it, and the last lines of its log."""

    page: Page
    name: str
    members: Mapping[str, Any]
    log: Sequence[str]

    @property
    def status(self) -> str:
        """The service's own word."""
        return str(self.members.get(self.page.status, ""))

    @property
    def tone(self) -> str:
        """The colour of the status."""
        return _TONES.get(self.status, "unknown")

    @property
    def reason(self) -> str:
        """Why it failed; empty when it did not."""
        return str(self.members.get("FailureReason") or self.members.get("cause") or "")

    @property
    def service(self) -> str:
        """Who tells all this."""
        return _SERVICES[self.page.service]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Every member and its value."""
        return list(flatten(self.members))

    @property
    def chart(self) -> Markup:
        """How the accuracy grew; empty for what does not train."""
        return curve_chart(training_curve(self.log))

    @property
    def facts(self) -> list[tuple[str, list[str]]]:
        """What a reader looks for first: ``(label, values)``."""
        found = [(label, list(self._values(member))) for label, member in self.page.facts]
        return [fact for fact in found if fact[1]]

    def _values(self, member: str) -> Iterator[str]:
        if member == "FinalMetricDataList":
            for metric in self.members.get(member, []):
                yield f"{metric['MetricName']} {metric['Value']:.4f}"
            return
        for path, value in self.rows:
            # The member's own name says nothing that the label does not; what is inside it needs its name.
            if path == member:
                yield value
            elif path.startswith((f"{member}.", f"{member}[")):
                yield f"{path.rpartition('.')[2]} {value}"


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted member, text) for every leaf of a described resource."""
    if isinstance(value, Mapping):
        for key in value:
            yield from flatten(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}[{index}]")
    else:
        yield path, f"{value:%Y-%m-%d %H:%M:%S %Z}".rstrip() if isinstance(value, datetime) else str(value)


def endpoint_cost(endpoint: Mapping[str, Any], config: Mapping[str, Any], now: datetime, *, real: bool = True) -> str:
    """One sentence on what an endpoint costs by month and since it started; empty when there is no list price.

    Args:
        endpoint: what DescribeEndpoint answered; the instances it has now count.
        config: what DescribeEndpointConfig answered.
        real: whether it is AWS that runs it.
    """
    monthly = monthly_cost(endpoint, config)
    if monthly is None:
        return ""
    so_far = monthly * (now - endpoint["CreationTime"]).total_seconds() / 3600 / HOURS_PER_MONTH
    words = "costs" if real else "would cost on AWS"
    return (
        f"It {words} about {monthly:,.2f} USD a month as it is now, {so_far:,.2f} USD since it started "
        f"({endpoint['CreationTime']:%d %b %Y}), at list price."
    )
