"""How far a batch is while it runs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from scones.aws import layout
from scones.aws.store import DamagedDocumentError
from scones.batch.items import BatchFacts, Ending, Execution, Item, Row, Threshold, result_row
from scones.batch.map_items import record_key
from scones.batch.plan import Plan
from scones.batch.progress import ChunkProgress, live, read_live
from scones.monitoring.index import DagRun
from scones.training.served import ServedModel
from scones.ui import pages
from scones.ui.store import PageStore
from tests.support.fake_aws import FakeS3

NOW = datetime(2026, 11, 20, 12, 0, 50, tzinfo=UTC)
PLAN = Plan(
    batch_id="b",
    created_at="2026-11-20T12:00:00+00:00",
    source="keys",
    fan_out="executions",
    state_machine_arn="arn",
    images=100,
    chunks=1,
    chunk_size=100,
    counts={},
    warnings=[],
    threshold=Threshold(0.7),
    model=ServedModel("courier", classes=("bicycle", "motorcycle"), image_shape=(3, 32, 32), quality={"log_loss": 0.5}),
    params={"keys": ["a.png"]},
)


def row(key: str, status: str = "SUCCEEDED", error: str | None = None) -> Row:
    execution = Execution("arn", status, output='{"inferences": [0.9, 0.1]}', error=error)
    return result_row(Ending(Item(key), 1, execution), BatchFacts("b", ServedModel("courier")))


def test_counts_rate_and_expected_end() -> None:
    chunks = [
        ChunkProgress.of([row(f"{n}.png") for n in range(15)]),
        ChunkProgress.of([row(f"f{n}.png", "FAILED", "NotAnImageError") for n in range(10)]),
    ]
    found = live(PLAN, chunks, 0, NOW)
    assert (found.done, found.outcomes) == (25, {"classified": 15, "failed": 10})
    assert (found.images_per_second, found.expected_end) == (0.5, "2026-11-20T12:03:20+00:00")
    assert found.failures == [[f"f{n}.png", "NotAnImageError"] for n in range(5, 10)]


def test_nothing_is_expected_of_what_has_not_begun() -> None:
    found = live(PLAN, [], 0, NOW)
    assert (found.done, found.images_per_second, found.expected_end) == (0, None, None)


def test_the_records_of_a_distributed_map_are_counted() -> None:
    s3 = FakeS3()
    s3.objects[layout.plan("b")] = json.dumps(asdict(replace(PLAN, fan_out="distributed_map"))).encode()
    for n in range(7):
        s3.objects[f"{layout.map_items('b')}{n}.json"] = b"{}"
    found = read_live(PageStore("b", client=s3), "b")
    assert found is not None
    assert (found.done, found.outcomes) == (7, {})
    assert read_live(PageStore("b", client=s3), "another") is None


def test_a_plan_is_read_as_it_was_written() -> None:
    bucket = PageStore("b", client=FakeS3())
    PLAN.save(bucket)
    assert Plan.load(bucket, "b") == PLAN


@pytest.mark.parametrize("damaged", [b"no json", b"{}", json.dumps(asdict(PLAN) | {"images": "many"}).encode()])
def test_a_damaged_plan_costs_the_progress_and_not_the_page(damaged: bytes) -> None:
    s3, run = FakeS3(), DagRun("batch_inference", "manual__1")
    batch_id = pages.batch_id_for(run.dag_id, run.run_id)
    s3.objects[layout.plan(batch_id)] = damaged
    assert "images are done" not in pages.run_documents(PageStore("b", client=s3), "/scones", run, 0)
    with pytest.raises(DamagedDocumentError):
        Plan.load(PageStore("b", client=s3), batch_id)


def test_the_record_of_an_odd_key_has_a_place() -> None:
    assert record_key("b", "inbox/\ud800.png") != record_key("b", "inbox/?.png")


@pytest.mark.parametrize("damaged", [b"no json", b"[]", b'{"colour": 1}'])
def test_the_page_of_a_run_shows_it_and_a_damaged_note_costs_its_own_chunk(
    monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    s3, run = FakeS3(), DagRun("batch_inference", "manual__1")
    batch_id = pages.batch_id_for(run.dag_id, run.run_id)
    hostile = row("<script>alert(1)</script>.png", "FAILED", "<b>E</b>")
    noted: dict[str, Any] = ChunkProgress.of([row("a.png"), hostile]).as_dict()
    s3.objects[layout.plan(batch_id)] = json.dumps(asdict(PLAN)).encode()
    s3.objects[layout.progress(batch_id, 0)] = json.dumps(noted).encode()
    s3.objects[layout.progress(batch_id, 1)] = damaged
    page = pages.run_documents(PageStore("b", client=s3), "/scones", run, 0)
    assert "2 of 100 images are done" in page
    assert "&lt;b&gt;E&lt;/b&gt;" in page
    assert "<script>" not in page
    assert '<meta http-equiv="refresh" content="10">' in page
