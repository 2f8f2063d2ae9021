"""The tasks of `monitor_endpoint` as Airflow sees them: they read params and context, and call the functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import task

from scones.defaults import DRIFT_ASSET
from scones.jobs.links import report_task

JsonDict = dict[str, Any]


@task(multiple_outputs=False, task_id="resolve_resources", execution_timeout=timedelta(minutes=5))
def resolve_resources(params: Any = None) -> dict[str, str]:
    """Read the stack's outputs; the param endpoint_name replaces its endpoint. Skip while there is no endpoint."""
    from airflow.sdk.exceptions import AirflowSkipException

    from scones.aws.resources import stack_outputs
    from scones.aws.sagemaker import SageMakerResourcesHook

    resources = stack_outputs()
    resources["EndpointName"] = params["endpoint_name"] or resources["EndpointName"]
    if SageMakerResourcesHook().endpoint(resources["EndpointName"]) is None:
        raise AirflowSkipException(f"There is no endpoint {resources['EndpointName']!r} yet: run train_and_deploy")
    return resources


@task(multiple_outputs=False, task_id="await_capture", execution_timeout=timedelta(minutes=30))
def await_capture(resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Wait until what was invoked has been captured, or the timeout is over."""
    from scones.monitoring.report import wait_for_capture

    return wait_for_capture(resources, resources["EndpointName"], timeout_s=params["capture_timeout_s"])


@report_task(task_id="write_report")
def write_report(resources: Mapping[str, str], params: Any = None, run_id: Any = None) -> JsonDict:
    """Write the report over what arrived since the last one, or over the window of the params."""
    from scones.monitoring.report import write_report as write

    return write(resources, resources["EndpointName"], run_id, since=params["since"], until=params["until"])


@task(task_id="publish_metrics", execution_timeout=timedelta(minutes=5))
def publish_metrics(resources: Mapping[str, str], written: JsonDict) -> int:
    """Publish the report's numbers to CloudWatch."""
    from scones.monitoring.actions import publish_metrics as publish

    return publish(resources, written)


@task(multiple_outputs=False, task_id="send_alarm", execution_timeout=timedelta(minutes=5))
def send_alarm(resources: Mapping[str, str], written: JsonDict) -> JsonDict:
    """Tell the alert topic of violations, once per report."""
    from airflow.configuration import conf

    from scones.monitoring.actions import send_alarm as send

    base = conf.get("api", "base_url", fallback="").rstrip("/")
    url = f"{base}/scones/reports/{written['endpoint_name']}/{written['report_id']}" if base else ""
    return send(resources, written, report_url=url)


@task(multiple_outputs=False, task_id="report_drift", outlets=[DRIFT_ASSET], execution_timeout=timedelta(minutes=5))
def report_drift(
    resources: Mapping[str, str], written: JsonDict, params: Any = None, outlet_events: Any = None
) -> JsonDict:
    """Emit the drift asset, which starts train_and_deploy; skipped when nothing asks for retraining."""
    from airflow.sdk.exceptions import AirflowSkipException

    from scones.monitoring.actions import request_retraining

    asked = request_retraining(resources, written, cooldown_hours=params["retrain_cooldown_hours"])
    if asked is None:
        raise AirflowSkipException("Nothing asks for retraining, or it was asked for already: see the log above")
    outlet_events[DRIFT_ASSET].extra.update(asked)
    return asked
