"""One prediction and all it hangs on: its image, its execution, and what the model that answered was made of.

A prediction is found by the key of its image, its inference id or its execution: in the results of a batch, or among
what the endpoint captured lately, which also knows of requests that no batch sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote, urlencode

import msgspec

from scones.monitoring.capture import CaptureRecord, MalformedCaptureError, parse_line
from scones.monitoring.capture_files import hour_prefixes
from scones.report.formatting import DASH, number, when
from scones.ui.pages import Endpoint, render
from scones.ui.store import PageStore
from scones.ui.trainings import BATCHES_SEARCHED, Link

SHOWN_ROWS = 100
CAPTURE_HOURS, CAPTURE_BYTES = 24, 64 * 1024 * 1024
_PICTURE_PIXELS = 256
_NOTHING: Mapping[str, Any] = {
    "wanted": "",
    "found": None,
    "picture": None,
    "batch_id": "",
    "rows": [],
    "previous": "",
    "next": "",
}

#: What is noted on a model package, by its ARN: "training_job", "dataset_version", ...
Metadata = Callable[[str], Mapping[str, str]]


class Row(msgspec.Struct, frozen=True):
    """What the page needs of a row of results (`scones.batch.items.Row`)."""

    batch_id: str
    key: str
    outcome: str
    inference_id: str = ""
    execution_arn: str = ""
    label_class: str | None = None
    predicted_class: str | None = None
    confidence: float | None = None
    threshold: float | None = None
    error: str | None = None
    production_variant: str | None = None
    endpoint_name: str = ""
    endpoint_config: str | None = None
    model_name: str | None = None
    model_package: str | None = None
    started_at: str | None = None


@dataclass(frozen=True)
class Prediction:
    """A prediction, as a batch noted it or as the endpoint captured it.

    Attributes:
        facts: what was asked and answered.
        answered_by: the endpoint and its model.
        job: the training job behind it; "" when nobody knows.
    """

    key: str
    facts: Sequence[Link] = ()
    answered_by: Sequence[Link] = field(default_factory=list)
    job: str = ""


def resource_path(kind: str, name: str) -> str:
    """Where a resource's page is, below the pages."""
    return f"resources/{kind}/{quote(name, safe=':/')}"


def path_of(batch_id: str, wanted: str = "", offset: int = 0) -> str:
    """Where the page of a prediction is, or without ``wanted`` that of all of a batch."""
    found = {"batch": batch_id, "find": wanted, "offset": str(offset) if offset else ""}
    return f"predictions?{urlencode({name: value for name, value in found.items() if value})}"


def rows_of(store: PageStore, batch_id: str, wanted: str = "") -> Iterator[Row]:
    """Yield the rows of a batch, or those of one key, inference id or execution. A damaged line costs itself."""
    # As it stands in a line, quotes included: most lines need not be parsed.
    needle = json.dumps(wanted).encode() if wanted else b""
    for line in store.result_lines(batch_id):
        if needle not in line:
            continue
        try:
            row = msgspec.json.decode(line, type=Row)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if not wanted or wanted in (row.inference_id, row.key, row.execution_arn):
            yield row


def find(
    store: PageStore, wanted: str, batch_id: str, endpoints: Sequence[Endpoint], metadata: Metadata, now: datetime
) -> Prediction | None:
    """Find a prediction in a batch, or in the newest ones, or among what was captured in the last hours.

    Args:
        endpoints: with their reports, which know the model that answered what they cover.
    """
    for one in [batch_id] if batch_id else store.newest_batches(BATCHES_SEARCHED):
        row = next(rows_of(store, one, wanted), None)
        if row is not None:
            return _of_row(store, row, metadata)
    for endpoint, uri, record in () if batch_id else captured(store, wanted, now):
        return _of_record(endpoint, uri, record, endpoints)
    return None


def _of_row(store: PageStore, row: Row, metadata: Metadata) -> Prediction:
    planned = store.model_of(row.batch_id)
    # The endpoint may have changed under the batch: then this row's own model package tells.
    same = planned.get("package_arn") == row.model_package
    job = planned.get("training_job") if same else metadata(row.model_package or "").get("training_job")
    answer = f"{row.predicted_class} {number(row.confidence)}" if row.predicted_class else DASH
    facts = [
        Link("Outcome", row.outcome.replace("_", " ") + (f": {row.error}" if row.error else "")),
        Link("Answer", answer),
        Link("Threshold", number(row.threshold)),
        *([Link("Label", row.label_class)] if row.label_class else []),
        Link("Batch", row.batch_id, path_of(row.batch_id)),
        Link("Report of the batch", row.batch_id, f"batches/{quote(row.batch_id, safe='')}"),
        Link("Execution", row.execution_arn or DASH, _path("executions", row.execution_arn)),
        Link("Inference id", row.inference_id or DASH),
        Link("Began", _time(row.started_at)),
    ]
    answered_by = [
        Link("Endpoint", row.endpoint_name or DASH, _path("endpoints", row.endpoint_name)),
        Link("Endpoint config", row.endpoint_config or DASH, _path("endpoint-configs", row.endpoint_config)),
        Link("Production variant", row.production_variant or DASH),
        Link("Model", row.model_name or DASH, _path("models", row.model_name)),
        Link("Model package", row.model_package or DASH, _path("model-packages", row.model_package)),
    ]
    return Prediction(row.key, facts, answered_by, job if isinstance(job, str) else "")


def _path(kind: str, name: str | None) -> str:
    return resource_path(kind, name) if name else ""


def _time(text: str | None) -> str:
    try:
        return when(text)
    except (ValueError, OverflowError):
        return DASH


def captured(store: PageStore, wanted: str, now: datetime) -> Iterator[tuple[str, str, CaptureRecord]]:
    """Yield (endpoint, address of the file, record) of the captures of an inference id, newest hours first.

    Looks into the last `CAPTURE_HOURS` hours, and into `CAPTURE_BYTES` of them at most.
    """
    needle, left = json.dumps(wanted).encode(), CAPTURE_BYTES
    hours = (hour_prefixes(now - timedelta(hours=CAPTURE_HOURS), now) or [])[::-1]
    for endpoint, item in store.captured_files(hours):
        left -= item["Size"]
        if left < 0:
            return
        for line in store.lines(item["Key"]) or ():
            try:
                record = parse_line(line) if needle in line else None
            except MalformedCaptureError:
                continue
            if record is not None and record.inference_id == wanted:
                yield endpoint, store.uri(item["Key"]), record


def _of_record(endpoint: str, uri: str, record: CaptureRecord, endpoints: Sequence[Endpoint]) -> Prediction:
    at = datetime.fromtimestamp(record.inference_time, UTC)
    try:
        answer = ", ".join(number(one) for one in record.probabilities())
    except MalformedCaptureError as error:
        answer = str(error)
    covering = (
        entry
        for one in endpoints
        if one.name == endpoint
        for entry in one.reports
        if entry.window.since <= at < entry.window.until
    )
    report = next(covering, None)
    facts = [
        Link("Answer", answer),
        Link("Answered", when(at)),
        Link("Inference id", record.inference_id or DASH),
        Link("Captured in", uri),
        Link("Report", when(report.created_at), f"reports/{endpoint}/{report.report_id}")
        if report
        else Link("Report", "none covers it yet: it will tell which model answered"),
    ]
    answered_by = [Link("Endpoint", endpoint, resource_path("endpoints", endpoint))]
    job = (report.training_job_name or "") if report else ""
    return Prediction(unquote(record.custom_attributes), facts, answered_by, job)


def prediction_page(store: PageStore, base: str, wanted: str, found: Prediction | None) -> str:
    """The page of a prediction, or of a search that found none."""
    image = store.thumbnail(found.key, _PICTURE_PIXELS) if found and found.key else None
    return render("prediction.html.j2", base, **{**_NOTHING, "wanted": wanted, "found": found, "picture": image})


def batch_page(store: PageStore, base: str, batch_id: str, offset: int) -> str:
    """All predictions of a batch, some at a time, each leading to its own page."""
    rows = list(islice(rows_of(store, batch_id), offset, offset + SHOWN_ROWS + 1))
    shown = {
        "batch_id": batch_id,
        "rows": [(row, path_of(batch_id, row.inference_id or row.key)) for row in rows[:SHOWN_ROWS]],
        "previous": path_of(batch_id, offset=max(0, offset - SHOWN_ROWS)) if offset else "",
        "next": path_of(batch_id, offset=offset + SHOWN_ROWS) if len(rows) > SHOWN_ROWS else "",
    }
    return render("prediction.html.j2", base, **{**_NOTHING, **shown})
