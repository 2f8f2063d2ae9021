"""The list of an endpoint's reports, ``reports/<endpoint>/index.json``, newest first. Pure.

An entry that can't be understood costs itself, never the list: the pages and the next report live on what is left.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from scones.monitoring.capture import FIRST_YEAR, LAST_YEAR
from scones.monitoring.capture_files import Watermark

#: Reports kept in index.json; the objects of older ones stay until cleaned up.
KEPT_IN_INDEX = 500

Status = Literal["ok", "attention", "alarm", "no_traffic", "capture_broken"]
Time = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Mark = Literal["alarm_sent_at", "retraining_requested_at"]


def check_times(*times: datetime | None) -> None:
    """Refuse times that can't be calculated with or shown: ValueError."""
    if not all(time is None or (time.tzinfo and FIRST_YEAR <= time.year <= LAST_YEAR) for time in times):
        raise ValueError("a time has no zone or lies outside the years of captures")


class DagRun(msgspec.Struct, frozen=True):
    """The run that wrote a report."""

    dag_id: str = ""
    run_id: str = ""


class Window(msgspec.Struct, frozen=True):
    """What a report covers: ``[since, until)``."""

    since: Time
    until: Time

    def as_text(self) -> dict[str, str]:
        """JSON-able form."""
        return {"since": self.since.isoformat(), "until": self.until.isoformat()}


class Place(msgspec.Struct, frozen=True):
    """How far an endpoint's reports have read: captures, ground truth, and the end of the last report."""

    captures: Watermark = Watermark()
    ground_truth: Watermark = Watermark()
    until: Time | None = None

    def __post_init__(self) -> None:
        """Refuse times that can't be calculated with."""
        check_times(self.captures.arrived, self.ground_truth.arrived, self.until)


START = Place()


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The few numbers of a report that the list of reports and the trends show.

    Attributes:
        rejection_rate, mean_confidence: shares in [0, 1]; None without answers.
        latency_p95_ms: milliseconds; None without a metric.
        violations: their number.
        means: means of some statistics of the images.
        place_before: where the report began to read, for the same report tried again.
        alarm_sent_at, retraining_requested_at: when the report had these consequences.
    """

    report_id: str
    created_at: Time
    window: Window
    run: DagRun
    status: Status
    headline: str
    captured_records: Count
    rejection_rate: float | None
    mean_confidence: float | None
    latency_p95_ms: float | None
    violations: Count
    model_version: int | None = None
    training_job_name: str | None = None
    means: dict[str, float | None] = {}
    place_before: Place = START
    alarm_sent_at: Time | None = None
    retraining_requested_at: Time | None = None

    def __post_init__(self) -> None:
        """Refuse what parses but can't be shown or calculated with."""
        numbers = (self.rejection_rate, self.mean_confidence, self.latency_p95_ms, *self.means.values())
        if not all(math.isfinite(number or 0) for number in numbers):
            raise ValueError("a number of the entry is not finite")
        check_times(self.created_at, self.window.since, self.window.until)


def parse_index(content: bytes | None) -> list[IndexEntry]:
    """Read index.json; None and what isn't an index hold no entries."""
    found = []
    for one in _raw(content):
        try:
            found.append(msgspec.convert(one, IndexEntry))
        except (msgspec.ValidationError, ValueError, OverflowError):
            continue
    return found


def add_entry(content: bytes | None, endpoint_name: str, entry: IndexEntry) -> bytes:
    """Return index.json with the entry in the place of the same report's, marks kept, or else before all others."""
    reports = _raw(content)
    for index, one in enumerate(reports):
        if one.get("report_id") == entry.report_id:
            marks = {name: one[name] for name in ("alarm_sent_at", "retraining_requested_at") if one.get(name)}
            reports[index] = msgspec.to_builtins(entry) | marks
            break
    else:
        reports.insert(0, msgspec.to_builtins(entry))
    return _written(endpoint_name, reports[:KEPT_IN_INDEX])


def mark_entry(content: bytes | None, endpoint_name: str, report_id: str, mark: Mark, at: datetime) -> bytes:
    """Return index.json with a consequence of a report noted."""
    changed = [one | {mark: at.isoformat()} if one.get("report_id") == report_id else one for one in _raw(content)]
    return _written(endpoint_name, changed)


def parse_place(content: bytes | None, entries: list[IndexEntry]) -> Place:
    """Read watermark.json. Where it can't be understood, the last report is read again rather than all."""
    if content is None:
        return START
    try:
        document = msgspec.json.decode(content)
        # Until 2026-11 each DAG had a place of its own; the hourly one was the furthest.
        place = msgspec.convert(document.get("monitor_endpoint", document), Place)
        if place.until is not None:
            return place
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, AttributeError, ValueError, OverflowError):
        pass
    return entries[0].place_before if entries else START


def later_place(content: bytes | None, reached: Place) -> bytes | None:
    """Return watermark.json with ``reached``; None when it says more: an old run tried again takes nothing back."""
    known = parse_place(content, []).until
    return None if known and reached.until and known > reached.until else msgspec.json.encode(reached)


class _Index(msgspec.Struct):
    reports: list[msgspec.Raw]


def _raw(content: bytes | None) -> list[dict[str, Any]]:
    try:
        reports = msgspec.json.decode(content or b"", type=_Index).reports
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    found = []
    for one in reports:
        try:
            found.append(msgspec.json.decode(one, type=dict[str, Any]))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found


def _written(endpoint_name: str, reports: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"endpoint_name": endpoint_name, "reports": reports})
