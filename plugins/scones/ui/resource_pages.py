"""A page for each job, endpoint and execution, where there is no AWS console to show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scones.defaults import AWS_CONN_ID
from scones.training.curve import curve_chart, training_curve

LOG_LINES = 300


@dataclass(frozen=True)
class Page:
    """How one kind of resource is described, and where its log is."""

    title: str
    service: str
    operation: str
    argument: str
    status: str
    log_group: str = ""
    # What a reader looks for first: a label, and the beginnings of the members that hold it.
    facts: tuple[tuple[str, str], ...] = ()


PAGES = {
    "training-jobs": Page(
        "Training job",
        "sagemaker",
        "describe_training_job",
        "TrainingJobName",
        "TrainingJobStatus",
        "/aws/sagemaker/TrainingJobs",
        (
            ("Metrics", "FinalMetricDataList"),
            ("Began", "TrainingStartTime"),
            ("Ended", "TrainingEndTime"),
            ("Billable seconds", "BillableTimeInSeconds"),
            ("Instance", "ResourceConfig.InstanceType"),
            ("Hyperparameters", "HyperParameters"),
            ("Model", "ModelArtifacts"),
        ),
    ),
    "transform-jobs": Page(
        "Transform job",
        "sagemaker",
        "describe_transform_job",
        "TransformJobName",
        "TransformJobStatus",
        "/aws/sagemaker/TransformJobs",
        (
            ("Model", "ModelName"),
            ("Began", "TransformStartTime"),
            ("Ended", "TransformEndTime"),
            ("Input", "TransformInput.DataSource.S3DataSource.S3Uri"),
            ("Output", "TransformOutput.S3OutputPath"),
            ("Instance", "TransformResources.InstanceType"),
        ),
    ),
    "endpoints": Page(
        "Endpoint",
        "sagemaker",
        "describe_endpoint",
        "EndpointName",
        "EndpointStatus",
        "/aws/sagemaker/Endpoints/{name}",
        (
            ("Config", "EndpointConfigName"),
            ("Instances", "ProductionVariants[0].CurrentInstanceCount"),
            ("Captured", "DataCaptureConfig"),
            ("Last change", "LastModifiedTime"),
            ("Being deployed", "PendingDeploymentSummary.EndpointConfigName"),
        ),
    ),
    "executions": Page(
        "Execution",
        "stepfunctions",
        "describe_execution",
        "executionArn",
        "status",
        facts=(
            ("Began", "startDate"),
            ("Ended", "stopDate"),
            ("Error", "error"),
            ("Input", "input"),
            ("Output", "output"),
        ),
    ),
}


_TONES = {
    **dict.fromkeys(("Completed", "InService", "SUCCEEDED"), "ok"),
    **dict.fromkeys(("Failed", "UpdateRollbackFailed", "FAILED", "TIMED_OUT", "ABORTED"), "violation"),
    **dict.fromkeys(("InProgress", "Stopping", "Creating", "Updating", "RUNNING"), "attention"),
}
_SERVICES = {"sagemaker": "SageMaker", "stepfunctions": "Step Functions"}


# A page that has nothing to show but its headline.
_BLANK: dict[str, Any] = {
    **dict.fromkeys(("name", "status", "reason", "service", "chart"), ""),
    **dict.fromkeys(("facts", "rows", "log"), ()),
    "tone": "unknown",
}


class NoSuchResourceError(LookupError):
    """There is no resource of that kind and name."""


def client(service: str) -> Any:
    """Return a client of the Airflow connection."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    return AwsBaseHook(aws_conn_id=AWS_CONN_ID, client_type=service).conn


def describe(kind: str, name: str, clients: Any = client) -> dict[str, Any]:
    """Return what a page shows.

    Shape: ``{"title", "name", "status", "tone", "reason", "service", "facts": [(label, [value])], "rows": [(member,
    value)], "log": [line], "chart"}``.

    Raises:
        NoSuchResourceError: the kind or the name is unknown.
    """
    from botocore.exceptions import ClientError

    page = PAGES.get(kind)
    if page is None:
        raise NoSuchResourceError(f"There are no pages for {kind!r}.")
    try:
        found = getattr(clients(page.service), page.operation)(**{page.argument: name})
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ValidationException", "ExecutionDoesNotExist", "InvalidArn"):
            raise NoSuchResourceError(f"There is no {page.title.lower()} {name!r}.") from error
        raise
    found.pop("ResponseMetadata", None)
    status = found.get(page.status, "")
    log = _log(page, name, clients) if page.log_group else []
    return {
        "title": page.title,
        "name": name,
        "status": status,
        "tone": _TONES.get(status, "unknown"),
        "reason": found.get("FailureReason") or found.get("cause") or "",
        "service": _SERVICES[page.service],
        "facts": _facts(page, found),
        "rows": list(flatten(found)),
        "log": log,
        "chart": curve_chart(training_curve(log)) if kind == "training-jobs" else "",
    }


def _facts(page: Page, found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    metrics = [f"{metric['MetricName']} {metric['Value']:.4f}" for metric in found.get("FinalMetricDataList", [])]
    facts = []
    for label, member in page.facts:
        if member == "FinalMetricDataList":
            values = metrics
        else:
            inside = [
                row for row in flatten(found) if row[0] == member or row[0].startswith((f"{member}.", f"{member}["))
            ]
            # The member's own name says nothing that the label does not; what is inside it needs its name.
            values = [value if path == member else f"{path.rpartition('.')[2]} {value}" for path, value in inside]
        if values:
            facts.append((label, values))
    return facts


def flatten(value: Any, path: str = "") -> Any:
    """Yield (dotted member, text) for every leaf of a described resource."""
    if isinstance(value, Mapping):
        for key in value:
            yield from flatten(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}[{index}]")
    else:
        yield path, f"{value:%Y-%m-%d %H:%M:%S %Z}".rstrip() if isinstance(value, datetime) else str(value)


def _log(page: Page, name: str, clients: Any) -> list[str]:
    from botocore.exceptions import ClientError

    logs = clients("logs")
    group = page.log_group.format(name=name)
    prefix = {} if "{name}" in page.log_group else {"logStreamNamePrefix": f"{name}/"}
    lines: list[str] = []
    try:
        for stream in logs.describe_log_streams(logGroupName=group, **prefix)["logStreams"]:
            answer = logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=False, limit=LOG_LINES
            )
            lines += [event["message"].rstrip() for event in answer["events"]]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
    return lines[-LOG_LINES:]


def render(values: Mapping[str, Any], base: str) -> str:
    """Return the page of what `describe` returned; ``base`` is where the monitor's pages are mounted."""
    from scones.report.formatting import environment
    from scones.ui.pages import TEMPLATES

    return environment(TEMPLATES).get_template("resource.html.j2").render(base=base, page="", **{**_BLANK, **values})


def build_application(parent: Any = None) -> Any:
    """Build the web application. Reading needs leave to read runs of `train_and_deploy`."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import HTMLResponse

    from scones.ui.application import PAGE_POLICY

    app = FastAPI(title="Scones resources", docs_url=None, redoc_url=None, openapi_url=None)
    if parent is not None:
        app.state = parent.state

    def page(request: Request, kind: str, name: str) -> HTMLResponse:
        status = 200
        try:
            values = describe(kind, name)
        except NoSuchResourceError as error:
            status, values = 404, {"title": str(error)}
        mounted = str(request.scope.get("root_path", "")).rstrip("/")
        base = mounted.rpartition("/")[0] + "/scones"
        headers = {
            "Content-Security-Policy": PAGE_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        }
        return HTMLResponse(render(values, base), status_code=status, headers=headers)

    # The annotations above are strings to FastAPI, which looks them up in this module.
    page.__annotations__ = {"request": Request, "kind": str, "name": str}
    allowed = Depends(requires_access_dag("GET", DagAccessEntity.RUN, "train_and_deploy"))
    app.add_api_route("/{kind}/{name:path}", page, methods=["GET"], response_class=HTMLResponse, dependencies=[allowed])
    return app
