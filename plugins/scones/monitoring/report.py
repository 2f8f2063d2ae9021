"""Write a monitoring report: read what is new, build it, and store it. Safe to try again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from scones.aws.naming import content_hash
from scones.monitoring.build import ReportInputs, build_report, index_entry
from scones.monitoring.capture import FIRST_YEAR, LAST_YEAR
from scones.monitoring.capture_reader import read_capture
from scones.monitoring.checks import needs_retraining
from scones.monitoring.index import DagRun, Place, Window
from scones.monitoring.page import render_page
from scones.monitoring.sources import CapturePlace, documents_of, judge, read_settings

if TYPE_CHECKING:
    from scones.monitoring.aws import MonitoringAws
    from scones.monitoring.capture_summary import CaptureSummary
    from scones.monitoring.document import Report, WrittenReport
    from scones.monitoring.store import MonitoringStore

log = logging.getLogger(__name__)


def now_utc() -> datetime:
    """The clock of every task; tests give their own."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class ReportOrder:
    """Which report is wanted.

    Without ``since`` it covers what arrived after the endpoint's last report: each record is in one report, whichever
    DAG writes it. With ``since`` it covers the records whose inference time lies in ``[since, until)``, and the next
    report begins where it would have begun. A DAG run has one report per endpoint, however often its task is tried.
    ``classes`` name those of a model whose lineage is not ours, in label order.
    """

    endpoint_name: str
    run: DagRun
    since: datetime | None = None
    until: datetime | None = None
    classes: tuple[str, ...] = ()

    @property
    def report_id(self) -> str:
        """The report's identifier."""
        return "report-" + content_hash([self.endpoint_name, self.run.dag_id, self.run.run_id])


def window_of(params: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Read the params ``since`` and ``until``: ISO 8601 times; naive ones are UTC.

    Raises:
        ValueError: one is no time, or they are the wrong way round.
    """
    since, until = (_time(name, params.get(name)) for name in ("since", "until"))
    if until is not None and since is None:
        raise ValueError("until is given without since: give both, or neither to report on what is new")
    if since is not None and since >= (until or now_utc()):
        raise ValueError(f"since ({since.isoformat()}) is not before until ({until.isoformat() if until else 'now'})")
    return since, until


def _time(name: str, value: Any) -> datetime | None:
    if not value:
        return None
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {value!r}, not an ISO 8601 time such as 2026-01-31T08:00:00Z") from error
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ValueError(f"{name} is {value!r}: captures are of {FIRST_YEAR} to {LAST_YEAR}")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def write_report(aws: MonitoringAws, order: ReportOrder, clock: Callable[[], datetime] = now_utc) -> WrittenReport:
    """Report on what an endpoint captured and write it to ``reports/<endpoint>/<report_id>/``.

    Tried again for the same run, it covers the same records and what came since, and overwrites the same objects.

    Raises:
        scones.monitoring.aws.EndpointMissingError: there is no such endpoint.
    """
    now, store, name = clock(), aws.store, order.endpoint_name
    endpoint = aws.endpoint(name)
    model = documents_of(store, aws.served(name, order.classes))
    entries = store.entries(name)
    place = store.place(name, entries, order.report_id)
    captures = CapturePlace.of(store, endpoint)
    window = Window(order.since or place.until or datetime.fromisoformat(endpoint["created_at"]), order.until or now)

    files = captures.between(window) if order.since else captures.new(place.captures, window.until)
    log.info("Reading %d capture files, %.1f MB", len(files), sum(file.size for file in files) / 1e6)
    summary = read_capture(files, captures.fetch, read_settings(model, order.since, order.until))
    log.info("Read %d records; %d malformed lines", summary.records, summary.malformed)
    if order.since is None and summary.minutes:
        # A first report may find captures older than the endpoint, of one with the same name.
        oldest = datetime.fromtimestamp(min(summary.minutes) * 60, UTC)
        window = Window(min(window.since, oldest), window.until)
    reported = 0 if order.since else captures.invocations_reported(place.captures, window, endpoint)
    judged = judge(captures, model, place.ground_truth)
    inputs = ReportInputs(
        report_id=order.report_id,
        run=order.run,
        endpoint=endpoint,
        window=window,
        created_at=now,
        model=model,
        traffic=replace(aws.traffic(endpoint, window), reported=reported),
        quality=judged.all,
        rejected_quality=judged.rejected,
        previous=next((one for one in entries if one.report_id != order.report_id and one.captured_records), None),
    )
    report = build_report(summary, inputs)
    written = _store(store, report, summary)
    # The index makes the report visible and the watermark ends it: a crash before either repeats the whole report.
    store.add_entry(name, index_entry(report, inputs, place))
    if order.since is None:
        store.advance(
            name, Place(place.captures.advance(files), place.ground_truth.advance(judged.files), window.until)
        )
    log.info("%s %s", report["headline"], written["html_uri"])
    return written


def _store(store: MonitoringStore, report: Report, summary: CaptureSummary) -> WrittenReport:
    write = partial(store.write_report, report)
    page = render_page(report, summary.least_confident, summary.most_unlike)
    html_uri = write("report.html", page, "text/html; charset=utf-8")
    write("statistics.json", json.dumps(report["statistics"]))
    write("constraint_violations.json", json.dumps({"violations": report["violations"]}, indent=2))
    return {
        "report_id": report["report_id"],
        "endpoint_name": report["endpoint_name"],
        "html_uri": html_uri,
        "json_uri": write("report.json", json.dumps(report)),
        "captured_records": report["captured_records"],
        "violations": len(report["violations"]),
        "status": report["status"],
        "headline": report["headline"],
        "rejection_rate": report["rejection_rate"],
        "needs_retraining": needs_retraining(report["violations"]),
    }
