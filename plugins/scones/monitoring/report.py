"""Wait for the captures, and write the monitoring report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scones.aws.naming import content_hash
from scones.defaults import AWS_CONN_ID
from scones.monitoring.sources import Documents, Place, capture_files, quality_of, read_settings

if TYPE_CHECKING:
    from scones.aws.store import ObjectStore
    from scones.monitoring.aws import MonitoringAws
    from scones.monitoring.capture_files import CaptureFile
    from scones.monitoring.capture_summary import CaptureSummary, ReadSettings

log = logging.getLogger(__name__)

#: Reports kept in index.json; the objects of older ones stay until cleaned up.
KEPT_IN_INDEX = 500

Clock = Callable[[], datetime]


def now_utc() -> datetime:
    """The clock of every task; tests give their own."""
    return datetime.now(UTC)


def report_folder(endpoint_name: str) -> str:
    """Key prefix of an endpoint's reports, without a slash at the end."""
    return f"reports/{endpoint_name}"


def report_id_of(endpoint_name: str, dag_id: str, run_id: str) -> str:
    """A DAG run has one report per endpoint, however often its task is tried."""
    return "report-" + content_hash([endpoint_name, dag_id, run_id])


def write_report(
    resources: Mapping[str, str],
    endpoint_name: str,
    run_id: str,
    *,
    dag_id: str = "monitor_endpoint",
    since: str | None = None,
    until: str | None = None,
    aws: MonitoringAws | None = None,
    aws_conn_id: str = AWS_CONN_ID,
    clock: Clock = now_utc,
) -> dict[str, Any]:
    """Report on what an endpoint captured and write it to ``reports/<endpoint>/<report_id>/``.

    Without ``since`` the report covers what arrived after the last report of the same DAG: each DAG keeps its own
    place (``watermark.json``), so that one's report takes nothing from another's. With ``since`` it covers the
    records whose inference time lies in ``[since, until)`` and moves no place. Tried again for the same run, it
    covers the same records and what came since, and overwrites the same objects.

    :param resources: outputs of the stack; ``BucketName`` is used.
    :param endpoint_name: the endpoint.
    :param run_id: id of the DAG run, with ``dag_id`` the identity of the report.
    :param since, until: ISO 8601 times; naive ones are UTC.
    :param aws: clients; None connects through ``aws_conn_id``.
    :return: ``report_id, endpoint_name, html_uri, json_uri, captured_records, violations, status, headline,
        rejection_rate, needs_retraining``.
    :raises scones.monitoring.aws.EndpointMissingError: there is no such endpoint.
    :raises ValueError: ``since`` or ``until`` is no time, or they are the wrong way round.
    """
    from scones.monitoring.aws import MonitoringAws, describe_endpoint, lineage_of, traffic_of, write_objects
    from scones.monitoring.build import ReportInputs, build_report, index_entry
    from scones.monitoring.checks import needs_retraining
    from scones.monitoring.page import render_page

    aws = aws or MonitoringAws.connect(resources["BucketName"], aws_conn_id)
    now = clock()
    first, last = _times(since, until, now)
    store, folder = aws.store, report_folder(endpoint_name)
    report_id = report_id_of(endpoint_name, dag_id, run_id)
    endpoint = describe_endpoint(aws.sagemaker, endpoint_name)
    lineage = lineage_of(aws.sagemaker, endpoint)
    documents = Documents.read(store, lineage)
    index = store.read_json(f"{folder}/index.json") or {}
    place = Place.find(store, folder, dag_id, report_id, index)

    files = capture_files(store, endpoint, endpoint_name, place, first, last)
    settings = read_settings(documents, first, last if until else None)
    summary = _read(store, files, settings)
    began = first or place.since or datetime.fromisoformat(endpoint["created_at"])
    if first is None and summary.minutes:
        # A first report may find captures older than the endpoint, of one with the same name.
        began = min(began, datetime.fromtimestamp(min(summary.minutes) * 60, UTC))
    previous = _previous(store, folder, index, report_id)
    quality, ground_truth = quality_of(store, endpoint, endpoint_name, documents, place)
    report = build_report(
        summary,
        ReportInputs(
            report_id=report_id,
            endpoint=endpoint,
            classes=documents.classes,
            threshold=documents.threshold,
            since=began,
            until=last,
            created_at=now,
            baseline=documents.baseline,
            constraints=documents.constraints,
            evaluation=documents.evaluation,
            traffic=traffic_of(aws.cloudwatch, endpoint, began, last),
            quality=quality,
            lineage=lineage | {"dataset_version": documents.dataset_version},
            previous=previous,
            run={"dag_id": dag_id, "run_id": run_id},
        ),
    )
    page = render_page(report, summary.least_confident, summary.most_unlike)
    violations = {"violations": report["violations"]}
    write_objects(
        store,
        f"{folder}/{report_id}",
        [
            ("report.html", page.encode(), "text/html; charset=utf-8"),
            ("statistics.json", json.dumps(report["statistics"]).encode(), "application/json"),
            ("constraint_violations.json", json.dumps(violations, indent=2).encode(), "application/json"),
            ("report.json", json.dumps(report).encode(), "application/json"),
        ],
    )
    # The index makes the report visible and the watermark ends it: a crash before either repeats the whole report.
    entry = index_entry(report) | {"place_before": place.as_dict()}
    _add_to_index(store, folder, endpoint_name, entry)
    if first is None:
        place.advance(store, folder, dag_id, files, last, ground_truth)
    base = f"s3://{store.bucket}/{folder}/{report_id}"
    log.info("%s %s", report["headline"], f"{base}/report.html")
    return {
        "report_id": report_id,
        "endpoint_name": endpoint_name,
        "html_uri": f"{base}/report.html",
        "json_uri": f"{base}/report.json",
        "captured_records": report["captured_records"],
        "violations": len(report["violations"]),
        "status": report["status"],
        "headline": report["headline"],
        "rejection_rate": report["rejection_rate"],
        "needs_retraining": needs_retraining(report["violations"]),
    }


def _times(since: str | None, until: str | None, now: datetime) -> tuple[datetime | None, datetime]:
    found: list[datetime | None] = []
    for name, value in (("since", since), ("until", until)):
        if not value:
            found.append(None)
            continue
        try:
            time_given = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}, not an ISO 8601 time such as 2026-01-31T08:00:00Z") from error
        found.append(time_given if time_given.tzinfo else time_given.replace(tzinfo=UTC))
    first, last = found[0], found[1] or now
    if found[1] is not None and first is None:
        raise ValueError("until is given without since: give both, or neither to report on what is new")
    if first is not None and first >= last:
        raise ValueError(f"since ({first.isoformat()}) is not before until ({last.isoformat()})")
    return first, last


def _read(store: ObjectStore, files: list[CaptureFile], settings: ReadSettings) -> CaptureSummary:
    from scones.monitoring.capture_reader import read_capture
    from scones.monitoring.capture_store import fetcher

    log.info("Reading %d capture files, %.1f MB", len(files), sum(file.size for file in files) / 1e6)
    summary = read_capture(files, fetcher(store), settings)
    log.info("Read %d records; %d malformed lines", summary.records, summary.malformed)
    return summary


def _previous(store: ObjectStore, folder: str, index: Mapping[str, Any], report_id: str) -> dict[str, Any] | None:
    """The latest other report that had records; one without says nothing to compare with."""
    for entry in index.get("reports", []):
        if entry["report_id"] != report_id and entry["captured_records"]:
            return store.read_json(f"{folder}/{entry['report_id']}/report.json")
    return None


def _add_to_index(store: ObjectStore, folder: str, endpoint_name: str, entry: dict[str, Any]) -> None:
    from scones.monitoring.aws import update_json

    def change(document: dict[str, Any]) -> dict[str, Any]:
        before = document.get("reports", [])
        same: dict[str, Any] = next((old for old in before if old["report_id"] == entry["report_id"]), {})
        kept = {key: same[key] for key in ("alarm_sent_at", "retraining_requested_at") if key in same}
        others = [old for old in before if old["report_id"] != entry["report_id"]]
        reports = sorted([*others, entry | kept], key=lambda one: one["created_at"], reverse=True)
        return {"endpoint_name": endpoint_name, "reports": reports[:KEPT_IN_INDEX]}

    update_json(store, f"{folder}/index.json", change)


def wait_for_capture(
    resources: Mapping[str, str],
    endpoint_name: str,
    expected: int | None = None,
    *,
    dag_id: str = "monitor_endpoint",
    timeout_s: float = 120,
    poll_s: float = 2,
    aws: MonitoringAws | None = None,
    aws_conn_id: str = AWS_CONN_ID,
    clock: Clock = now_utc,
) -> dict[str, Any]:
    """Wait until the unread captures hold as many records as were invoked.

    Captures are delivered some time after the answer: a second on one machine, minutes on AWS.

    :param expected: records to wait for; None asks CloudWatch how many invocations there were since the last report
        of this DAG, times the sampling percentage.
    :param timeout_s: after this many seconds the report is written with what there is, and tells of the gap.
    :return: ``{"expected", "captured", "complete", "waited_s"}``.
    :raises scones.monitoring.aws.EndpointMissingError: there is no such endpoint.
    """
    from scones.monitoring.aws import MonitoringAws, describe_endpoint, traffic_of
    from scones.monitoring.build import invocations_before
    from scones.monitoring.capture_store import fetcher

    aws = aws or MonitoringAws.connect(resources["BucketName"], aws_conn_id)
    endpoint = describe_endpoint(aws.sagemaker, endpoint_name)
    place = Place.find(aws.store, report_folder(endpoint_name), dag_id, "", {})
    began = time.monotonic()
    wanted = expected
    if wanted is None:
        now = clock()
        since = place.since or datetime.fromisoformat(endpoint["created_at"])
        invocations = invocations_before(traffic_of(aws.cloudwatch, endpoint, since, now).invocations, now)
        wanted = int((invocations or 0) * (endpoint["sampling_percentage"] or 100) / 100)
    fetch = fetcher(aws.store)
    lines: dict[str, int] = {}
    while True:
        for file in capture_files(aws.store, endpoint, endpoint_name, place, None, clock()):
            if file.key not in lines:
                lines[file.key] = sum(chunk.count(b"\n") for chunk in fetch(file))
        captured = sum(lines.values())
        waited = time.monotonic() - began
        if captured >= wanted or waited >= timeout_s:
            break
        time.sleep(min(poll_s, max(0.0, timeout_s - waited)))
    complete = captured >= wanted
    if not complete:
        log.warning(
            "After %.0f s there are %d of %d records; the report will tell of the gap", waited, captured, wanted
        )
    return {"expected": wanted, "captured": captured, "complete": complete, "waited_s": round(waited, 1)}
