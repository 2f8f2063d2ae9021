"""What follows from a written report: metrics, an alarm, a request to retrain. Each does no harm when repeated."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scones.defaults import AWS_CONN_ID
from scones.monitoring.report import Clock, now_utc, report_folder

if TYPE_CHECKING:
    from scones.aws.store import ObjectStore
    from scones.monitoring.aws import MonitoringAws

log = logging.getLogger(__name__)


def publish_metrics(
    resources: Mapping[str, str],
    written: Mapping[str, Any],
    *,
    aws: MonitoringAws | None = None,
    aws_conn_id: str = AWS_CONN_ID,
) -> int:
    """Publish the numbers of a written report to CloudWatch. Return how many."""
    from scones.monitoring.aws import MonitoringAws, put_report_metrics

    aws = aws or MonitoringAws.connect(resources["BucketName"], aws_conn_id)
    return put_report_metrics(aws.cloudwatch, _report(aws.store, written))


def send_alarm(
    resources: Mapping[str, str],
    written: Mapping[str, Any],
    *,
    report_url: str = "",
    aws: MonitoringAws | None = None,
    aws_conn_id: str = AWS_CONN_ID,
    clock: Clock = now_utc,
) -> dict[str, Any]:
    """Tell the alert topic of a report's violations, once per report.

    :param written: what :func:`write_report` returned.
    :param report_url: where people can open the report; the S3 address when empty.
    :return: ``{"sent": bool, "subject", "message_id"}``.
    """
    from scones.monitoring.alarm import alarm_message
    from scones.monitoring.aws import MonitoringAws

    aws = aws or MonitoringAws.connect(resources["BucketName"], aws_conn_id)
    report = _report(aws.store, written)
    subject, message = alarm_message(report, report_url or written["html_uri"])
    entry = _index_entry(aws.store, written)
    if not report["violations"] or entry.get("alarm_sent_at"):
        return {"sent": False, "subject": subject, "message_id": None}
    answer = aws.sns.publish(TopicArn=resources["AlertTopicArn"], Subject=subject, Message=message)
    _mark(aws.store, written, "alarm_sent_at", clock())
    return {"sent": True, "subject": subject, "message_id": answer["MessageId"]}


def request_retraining(
    resources: Mapping[str, str],
    written: Mapping[str, Any],
    *,
    cooldown_hours: float = 24,
    aws: MonitoringAws | None = None,
    aws_conn_id: str = AWS_CONN_ID,
    clock: Clock = now_utc,
) -> dict[str, Any] | None:
    """Decide whether a report's violations ask for retraining.

    The same model is not asked to be retrained again within ``cooldown_hours``: drifted traffic drifts every hour,
    and one retraining answers it.

    :return: what the drift asset's event carries: ``{"report_id", "endpoint_name", "features", "reason"}``;
        None when nothing is asked for.
    """
    from scones.monitoring.aws import MonitoringAws
    from scones.monitoring.drift import RETRAINING_CHECKS

    if not written["needs_retraining"]:
        log.info("No violation asks for retraining")
        return None
    aws = aws or MonitoringAws.connect(resources["BucketName"], aws_conn_id)
    report = _report(aws.store, written)
    now = clock()
    index = aws.store.read_json(f"{report_folder(written['endpoint_name'])}/index.json") or {}
    for entry in index.get("reports", []):
        asked = entry.get("retraining_requested_at")
        if not asked or entry["report_id"] == written["report_id"]:
            continue
        same_model = entry["training_job_name"] == report["lineage"].get("training_job_name")
        if same_model and now - datetime.fromisoformat(asked) < timedelta(hours=cooldown_hours):
            log.info("Retraining of the live model was asked for at %s by report %s", asked, entry["report_id"])
            return None
    _mark(aws.store, written, "retraining_requested_at", now)
    asking = [entry for entry in report["violations"] if entry["constraint_check_type"] in RETRAINING_CHECKS]
    return {
        "report_id": written["report_id"],
        "endpoint_name": written["endpoint_name"],
        "features": [entry["feature_name"] for entry in asking],
        "reason": "; ".join(entry["description"] for entry in asking)[:1000],
    }


def _report(store: ObjectStore, written: Mapping[str, Any]) -> dict[str, Any]:
    key = f"{report_folder(written['endpoint_name'])}/{written['report_id']}/report.json"
    report = store.read_json(key)
    if report is None:
        raise FileNotFoundError(f"s3://{store.bucket}/{key} is gone; clear the task write_report to write it again")
    return report


def _index_entry(store: ObjectStore, written: Mapping[str, Any]) -> dict[str, Any]:
    index = store.read_json(f"{report_folder(written['endpoint_name'])}/index.json") or {}
    return next((one for one in index.get("reports", []) if one["report_id"] == written["report_id"]), {})


def _mark(store: ObjectStore, written: Mapping[str, Any], name: str, at: datetime) -> None:
    from scones.monitoring.aws import update_json

    def change(document: dict[str, Any]) -> dict[str, Any]:
        reports = [
            one | {name: at.isoformat()} if one["report_id"] == written["report_id"] else one
            for one in document.get("reports", [])
        ]
        return {**document, "reports": reports}

    update_json(store, f"{report_folder(written['endpoint_name'])}/index.json", change)
