"""One prediction: found by its key, its inference id or its execution, and followed to what answered it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scones.aws import layout
from scones.monitoring.index import DagRun, IndexEntry, Window
from scones.ui.pages import Endpoint
from scones.ui.predictions import SHOWN_ROWS, batch_page, captured, find, prediction_page
from scones.ui.store import PageStore
from tests.contract import monitoring_world as world
from tests.support.batch_world import png
from tests.support.fake_aws import FakeS3

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\u00e9.png"


def row(key: str, number: int, **changes: Any) -> str:
    values = {
        "batch_id": "batch-1",
        "key": key,
        "outcome": "rejected",
        "inference_id": f"id-{number}",
        "execution_arn": f"arn:execution/{number}",
        "predicted_class": "bicycle",
        "confidence": 0.6,
        "threshold": 0.9,
        "endpoint_name": "courier",
        "endpoint_config": "config-1",
        "model_name": "model-1",
        "model_package": "arn:package/1",
        "probabilities": [0.6, 0.4],
        "started_at": "2026-03-01T12:00:00+00:00",
    }
    return json.dumps(values | changes) + "\n"


@pytest.fixture
def bucket() -> PageStore:
    store = PageStore("b", client=FakeS3())
    store.write_json(layout.summary("batch-1"), {"model": {"package_arn": "arn:package/1", "training_job": "job-1"}})
    lines = (
        row(HOSTILE, 1)
        + "no line\n"
        + row("b.png", 2, confidence="much")
        + row("b.png", 3, model_package="arn:package/2")
    )
    store.write(layout.part("batch-1", 0), lines.encode(), "")
    store.write(HOSTILE, png(), "image/png")
    return store


def metadata(arn: str) -> dict[str, str]:
    return {"arn:package/2": {"training_job": "job-2"}}.get(arn, {})


def page_of(bucket: PageStore, wanted: str, batch_id: str = "", endpoints: Any = ()) -> str:
    found = find(bucket, wanted, batch_id, endpoints, metadata, NOW)
    return prediction_page(bucket, "/scones", wanted, found)


@pytest.mark.parametrize("wanted", [HOSTILE, "id-1", "arn:execution/1"])
@pytest.mark.parametrize("batch_id", ["batch-1", ""])
def test_a_prediction_leads_to_all_it_hangs_on(bucket: PageStore, wanted: str, batch_id: str) -> None:
    page = page_of(bucket, wanted, batch_id)
    for path in (
        "resources/executions/arn:execution/1",
        "resources/endpoints/courier",
        "resources/endpoint-configs/config-1",
        "resources/models/model-1",
        "resources/model-packages/arn:package/1",
        "batches/batch-1",
        "predictions?batch=batch-1",
        "lineage/job-1",
    ):
        assert f'href="/scones/{path}"' in page, path
    assert "data:image/png;base64," in page
    assert "<script" not in page


def test_where_the_endpoint_changed_under_the_batch_the_row_knows_its_own_model(bucket: PageStore) -> None:
    # The row before, of the same key, is damaged.
    assert 'href="/scones/lineage/job-2"' in page_of(bucket, "b.png")


@pytest.mark.parametrize("wanted", ["id-9", "batch-1", "0.6", "\x00", '"', "id-1,"])
def test_what_is_not_there_is_not_found(bucket: PageStore, wanted: str) -> None:
    assert "No such prediction" in page_of(bucket, wanted)


def test_a_damaged_summary_costs_the_training_job_only(bucket: PageStore) -> None:
    for damaged in (b"[", b"[]", b'{"model": 5}'):
        bucket.write(layout.summary("batch-1"), damaged, "")
        assert "Nobody knows which training job" in page_of(bucket, "id-1")


def test_a_batch_shows_its_predictions_some_at_a_time(bucket: PageStore) -> None:
    lines = "".join(row(f"{number}.png", number) for number in range(SHOWN_ROWS + 5))
    bucket.write(layout.part("batch-1", 0), lines.encode(), "")
    first, second = batch_page(bucket, "/scones", "batch-1", 0), batch_page(bucket, "/scones", "batch-1", SHOWN_ROWS)
    assert (first.count("find=id-"), second.count("find=id-")) == (SHOWN_ROWS, 5)
    assert ('rel="next"' in first, 'rel="prev"' in first) == (True, False)
    assert ('rel="next"' in second, 'rel="prev"' in second) == (False, True)
    assert "This batch has no results" in batch_page(bucket, "/scones", "nobody", 0)


def capture(bucket: PageStore, at: datetime, inference_id: str) -> str:
    line = json.loads(world.capture_line(png(), [0.3, 0.7], at, source="photos/a%20b.png"))
    line["eventMetadata"]["inferenceId"] = inference_id
    key = f"{layout.capture('courier', 'AllTraffic')}{at:%Y/%m/%d/%H}/{inference_id}.jsonl"
    bucket.write(key, json.dumps(line).encode() + b"\nbroken\n", "")
    return key


def test_what_no_batch_sent_is_found_among_the_captures_and_the_report_tells_its_model(bucket: PageStore) -> None:
    at = NOW - timedelta(hours=2)
    key = capture(bucket, at, "from-an-app")
    page = page_of(bucket, "from-an-app")
    assert f"s3://b/{key}" in page
    assert "photos/a b.png" in page
    assert "none covers it yet" in page
    entry = IndexEntry(
        report_id="report-1", created_at=NOW, window=Window(at, NOW), run=DagRun(), status="ok", headline="",
        captured_records=1, rejection_rate=None, mean_confidence=None, latency_p95_ms=None, violations=0,
        training_job_name="job-1",
    )  # fmt: skip
    page = page_of(bucket, "from-an-app", endpoints=[Endpoint("courier", [entry])])
    assert 'href="/scones/reports/courier/report-1"' in page
    assert 'href="/scones/lineage/job-1"' in page


def test_the_search_among_captures_ends(bucket: PageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    capture(bucket, NOW - timedelta(days=2), "long-ago")
    assert list(captured(bucket, "long-ago", NOW)) == []
    capture(bucket, NOW, "now")
    assert len(list(captured(bucket, "now", NOW))) == 1
    monkeypatch.setattr("scones.ui.predictions.CAPTURE_BYTES", 10)
    assert list(captured(bucket, "now", NOW)) == []
