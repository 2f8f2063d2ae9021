"""The tasks of `monitor_endpoint`, and the report right after a deployment.

DAG files import this: what is heavy is imported when a task runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAny, task
from airflow.sdk.exceptions import AirflowSkipException

from scones.jobs.links import page_url, report_task

if TYPE_CHECKING:
    from scones.monitoring.aws import MonitoringAws
    from scones.monitoring.document import WrittenReport
    from scones.monitoring.sources import CaptureWait

log = logging.getLogger(__name__)

_SHORT = timedelta(minutes=5)
DRIFT_ASSET = Asset(name="scones_drift", uri="x-scones://endpoint/drift", group="scones")
LABELS_ASSET = Asset(name="scones_labels", uri="x-scones://labels/new", group="scones")
ASKS_FOR_TRAINING = AssetAny(DRIFT_ASSET, LABELS_ASSET)


@task(multiple_outputs=False, task_id="resolve_resources", execution_timeout=_SHORT)
def resolve_resources(params: Any = None, dag: Any = None, dag_run: Any = None) -> dict[str, str]:
    """Read the stack's outputs; the param endpoint_name replaces its endpoint. Skip while there is no endpoint.

    Raises:
        UnknownParamError: the run's conf has a name that is no param.
        ValueError: the params since and until are no window.
    """
    from scones.aws.conf import check_conf
    from scones.aws.resources import stack_outputs
    from scones.monitoring.report import window_of

    check_conf(dag_run.conf, dag.params)
    window_of(params)
    resources = stack_outputs()
    resources["EndpointName"] = params["endpoint_name"] or resources["EndpointName"]
    if _connect(resources).sagemaker.endpoint(resources["EndpointName"]) is None:
        raise AirflowSkipException(f"There is no endpoint {resources['EndpointName']!r} yet: run train_and_deploy")
    return resources


@task(multiple_outputs=False, task_id="await_capture", execution_timeout=timedelta(minutes=30))
def await_capture(resources: Mapping[str, str], params: Any = None) -> CaptureWait:
    """Wait until what was invoked since the last report has been captured, or the timeout is over."""
    from scones.monitoring.index import Window
    from scones.monitoring.sources import CapturePlace, wait_for_records

    aws, name = _connect(resources), resources["EndpointName"]
    endpoint = aws.endpoint(name)
    place = aws.store.place(name, aws.store.entries(name))
    captures, now = CapturePlace.of(aws.store, endpoint), datetime.now(UTC)
    window = Window(place.until or datetime.fromisoformat(endpoint["created_at"]), now)
    reported = captures.invocations_reported(place.captures, window, endpoint)
    invocations = replace(aws.traffic(endpoint, window), reported=reported).invocations_before(now) or 0
    expected = int(invocations * endpoint["sampling_percentage"] / 100)
    return wait_for_records(captures, place.captures, expected, timeout_s=params["capture_timeout_s"])


@report_task(task_id="write_report")
def write_report(resources: Mapping[str, str], params: Any = None, run_id: Any = None) -> WrittenReport:
    """Write the report over what arrived since the last one, or over the window of the params."""
    from scones.monitoring.index import DagRun
    from scones.monitoring.report import ReportOrder, window_of
    from scones.monitoring.report import write_report as write

    run = DagRun("monitor_endpoint", run_id)
    order = ReportOrder(resources["EndpointName"], run, *window_of(params), classes=tuple(params["classes"] or ()))
    return write(_connect(resources), order)


@report_task(task_id="write_report")
def write_first_report(
    deployment: Mapping[str, Any], resources: Mapping[str, str], run_id: Any = None
) -> WrittenReport:
    """Write a report right after a deployment, and send its alarm: the records in it are in no later report."""
    from scones.monitoring.index import DagRun
    from scones.monitoring.report import ReportOrder
    from scones.monitoring.report import write_report as write

    order = ReportOrder(deployment["endpoint_name"], DagRun("train_and_deploy", run_id))
    written = write(_connect(resources), order)
    send_alarm.function(resources, written)
    return written


@task(task_id="publish_metrics", execution_timeout=_SHORT)
def publish_metrics(resources: Mapping[str, str], written: WrittenReport) -> int:
    """Publish the report's numbers to CloudWatch. Return how many."""
    aws = _connect(resources)
    return aws.put_metrics(aws.store.report(written))


@task(multiple_outputs=False, task_id="send_alarm", execution_timeout=_SHORT)
def send_alarm(resources: Mapping[str, str], written: WrittenReport) -> dict[str, Any]:
    """Tell the alert topic of violations, once per report."""
    from scones.aws.alerts import notify_others
    from scones.monitoring.alarm import alarm_message

    aws = _connect(resources)
    report = aws.store.report(written)
    page = page_url(f"reports/{written['endpoint_name']}/{written['report_id']}")
    subject, message = alarm_message(report, page if page.startswith("http") else written["html_uri"])
    entries = aws.store.entries(written["endpoint_name"])
    sent = any(one.alarm_sent_at for one in entries if one.report_id == written["report_id"])
    if sent or not report["violations"]:
        return {"sent": False, "subject": subject, "message_id": None}
    answer = aws.sns.publish(TopicArn=resources["AlertTopicArn"], Subject=subject, Message=message)
    notify_others("monitoring_alarm", subject, message)
    aws.store.mark_entry(written, "alarm_sent_at")
    return {"sent": True, "subject": subject, "message_id": answer["MessageId"]}


@task(multiple_outputs=False, task_id="report_drift", outlets=[DRIFT_ASSET], execution_timeout=_SHORT)
def report_drift(
    resources: Mapping[str, str], written: WrittenReport, params: Any = None, outlet_events: Any = None
) -> dict[str, Any]:
    """Emit the drift asset, which starts train_and_deploy; skipped when nothing asks for retraining.

    The same model is not asked to be retrained again within the cooldown: drifted traffic drifts every hour, and one
    retraining answers it.
    """
    from scones.monitoring.drift import RETRAINING_CHECKS

    if not written["needs_retraining"]:
        raise AirflowSkipException("No violation asks for retraining")
    aws = _connect(resources)
    report = aws.store.report(written)
    since = datetime.now(UTC) - timedelta(hours=params["retrain_cooldown_hours"])
    for entry in aws.store.entries(written["endpoint_name"]):
        asked = entry.retraining_requested_at
        same_model = entry.training_job_name == (report["lineage"]["training_job"] or None)
        if asked and asked > since and same_model and entry.report_id != written["report_id"]:
            raise AirflowSkipException(f"Report {entry.report_id} asked for retraining of the live model at {asked}")
    aws.store.mark_entry(written, "retraining_requested_at")
    asking = [entry for entry in report["violations"] if entry["constraint_check_type"] in RETRAINING_CHECKS]
    event = {
        "report_id": written["report_id"],
        "endpoint_name": written["endpoint_name"],
        "features": [entry["feature_name"] for entry in asking],
        "reason": "; ".join(entry["description"] for entry in asking)[:1000],
    }
    outlet_events[DRIFT_ASSET].extra.update(event)
    return event


@task(multiple_outputs=False, task_id="report_labels", outlets=[LABELS_ASSET], execution_timeout=_SHORT)
def report_labels(resources: Mapping[str, str], written: WrittenReport, outlet_events: Any = None) -> dict[str, Any]:
    """Emit the asset of the labels, which starts train_and_deploy; skipped unless enough of them are new.

    Labels that were asked for are not asked for again, whatever became of that training.
    """
    from scones.batch.labels import new_labels
    from scones.settings import Settings

    wanted = Settings.from_environ().labels_to_retrain
    if not wanted:
        raise AirflowSkipException("SCONES_LABELS_TO_RETRAIN is 0: labels start no training")
    aws = _connect(resources)
    accepted, taken = aws.store.labels()
    classes = aws.store.report(written)["classes"]
    new = new_labels(accepted, taken, classes)
    if accepted is None or new < wanted:
        raise AirflowSkipException(f"{new} new labels of {', '.join(classes)}; {wanted} ask for a training")
    aws.store.note_taken(accepted)
    event = {"new_labels": new, "reason": f"{new} labels that no training has taken; {wanted} are enough"}
    outlet_events[LABELS_ASSET].extra.update(event)
    return event


def _connect(resources: Mapping[str, str]) -> MonitoringAws:
    from scones.monitoring.aws import MonitoringAws

    return MonitoringAws.connect(resources["BucketName"])
