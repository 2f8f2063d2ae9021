"""What a batch scores: folders, manifests, filters, samples and chunks."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scones.aws import layout
from scones.batch.aws import execution_arn
from scones.batch.inputs import BatchInputError, folder_prefix, parse_date, parse_manifest
from scones.batch.items import Entry, Item, Threshold, execution_name, inference_id, read_items, workflow_input
from scones.batch.names import batch_id_for, check_batch_id
from scones.batch.plan import chunk_size_for, cut, sample_lines, spool
from scones.batch.sources import Filters, find_source
from scones.batch.store import BatchStore, KeyLedger, mark_scored
from scones.training.served import ServedModel
from tests.support.fake_aws import FakeS3

CLASSES = ("bicycle", "motorcycle")


@pytest.mark.parametrize(
    ("given_prefix", "folder"),
    [("test", "test/"), ("/a/b/", "/a/b/"), ("s3://bucket/a", "a/"), (" a b ", " a b /"), ("a//", "a//")],
)
def test_a_prefix_ends_at_a_folder(given_prefix: str, folder: str) -> None:
    assert folder_prefix(given_prefix, "bucket") == folder


@pytest.mark.parametrize("prefix", ["/", "s3://bucket/", "s3://other/a"])
def test_a_prefix_that_is_refused(prefix: str) -> None:
    with pytest.raises(BatchInputError):
        folder_prefix(prefix, "bucket")


@given(st.text(min_size=1), st.integers(1, 99))
def test_execution_names_are_legal_for_any_key(key: str, attempt: int) -> None:
    name = execution_name("b" * 40, key, attempt)
    assert len(name) <= 80
    assert name.isascii()
    assert name.replace("-", "").isalnum()
    assert name == execution_name("b" * 40, key, attempt)
    assert len(inference_id("b", key)) == 32


@given(st.text(), st.text())
def test_batch_ids_are_legal_for_any_run(dag_id: str, run_id: str) -> None:
    assert check_batch_id(batch_id_for(dag_id, run_id)) == batch_id_for(dag_id, run_id)


def test_runs_have_batches_of_their_own() -> None:
    ids = {batch_id_for(dag, f"manual__2026-11-20T23:12:44.{n:06d}+00:00") for n in range(500) for dag in ("a", "b")}
    assert len(ids) == 1000
    assert batch_id_for("a", "manual__2026-11-20T23:12:44.1+00:00").startswith("manual-2026-11-20T23-12-44")


def test_execution_arn() -> None:
    assert execution_arn("arn:aws:states:r:ACCT:stateMachine:wf", "n") == "arn:aws:states:r:ACCT:execution:wf:n"
    with pytest.raises(ValueError, match="state machine"):
        execution_arn("arn:aws:lambda:r:ACCT:function:f", "n")


@given(st.text(min_size=1), st.none() | st.integers(0, 99), st.none() | st.text(min_size=1))
def test_items_survive_their_chunk_file(key: str, label: int | None, etag: str | None) -> None:
    line = Item(key, label, etag).to_json()
    assert len(line.splitlines()) == 1
    assert list(read_items([line])) == [Item(key, label, etag)]


def test_the_workflow_input_is_the_same_at_every_retry() -> None:
    item = Item("a b.png")
    texts = {workflow_input(item, batch_id="b", bucket="B", threshold=Threshold(0.9, 2)) for _ in range(3)}
    assert len(texts) == 1
    assert workflow_input(item, batch_id="b", bucket="B", threshold=Threshold(0.9)).count("thresh") == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "key,label,etag\na.png,motorcycle,e\nb.png,,\n"),
        ("m.csv", 'label,key,etag\n1,"a.png",e\n,b.png,\n'),
        ("m.jsonl", '{"key": "a.png", "label": 1, "etag": "e"}\n\n"b.png"\n'),
    ],
)  # fmt: skip
def test_manifests(name: str, text: str) -> None:
    found = [entry.item for entry in parse_manifest(iter(text.splitlines(keepends=True)), name, "bucket", CLASSES)]
    assert found == [Item("a.png", 1, "e"), Item("b.png")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "image,label\na.png,1\n", "needs one column named key"),
        ("m.csv", "key,label\na.png,car\n", "line 2: label 'car'"),
        ("m.csv", "key,label\na.png,2\n", "line 2: label 2"),
        ("m.csv", "key,label\n,1\n", "line 2 has no key"),
        ("m.jsonl", '{"key": "a.png"}\nnot json\n', "line 2 is not JSON"),
        ("m.jsonl", '["a.png"]\n', "line 1 has no key"),
        ("m.jsonl", '"' + "k" * 1025 + '"\n', "1024 bytes"),
        ("m.jsonl", '{"key": "a.png", "last_modified": "yesterday"}\n', "last_modified is 'yesterday'"),
    ],
)
def test_manifests_that_are_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(BatchInputError, match=words.replace("[", r"\[")):
        list(parse_manifest(iter(text.splitlines(keepends=True)), name, "bucket", CLASSES))


def test_dates() -> None:
    assert parse_date("", "d") is None
    assert parse_date("2026-11-20", "d") == datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(BatchInputError, match="modified_after"):
        parse_date("20.11.", "modified_after")


def spooled(entries: list[Entry], filters: Filters | None = None, skip: KeyLedger | None = None) -> Any:
    file = io.StringIO()
    counts, warnings = spool(entries, filters or Filters(), skip, file)
    assert warnings == []
    return counts, [item.key for item in read_items(file.getvalue().splitlines())]


def test_only_images_reach_the_classifier_and_each_once() -> None:
    keys = ["test/a.png", "test/b.JPG", "test.lst", "test/c.lst", "test/", "test/a.png", "test/d.jpeg"]
    counts, kept = spooled([Entry(Item(key)) for key in keys])
    assert kept == ["test/a.png", "test/b.JPG", "test/d.jpeg"]
    assert counts == {"listed": 7, "other_files": 3, "repeated": 1, "already_scored": 0, "items": 3}


def test_what_the_workflow_cannot_score_is_named_in_the_plan() -> None:
    listed = [Entry(Item(f"cold-{n}.png"), storage_class="GLACIER", size=5) for n in range(5)]
    listed += [Entry(Item("large.jpg"), size=7_000_000), Entry(Item("instant.png"), storage_class="GLACIER_IR")]
    listed += [Entry(Item("cold-list.txt"), storage_class="GLACIER")]
    file = io.StringIO()
    counts, warnings = spool(listed, Filters(), None, file)
    # Each still has its row of results: nothing is left out without a word.
    assert (counts["items"], counts["archived"], counts["too_large"]) == (7, 5, 1)
    archived, large = warnings
    assert archived.startswith("5 images lie in an archive")
    assert archived.endswith("cold-0.png, cold-1.png, cold-2.png, ...")
    assert "6 MiB" in large
    assert large.endswith("large.jpg")


def test_an_image_with_two_labels_is_refused() -> None:
    spooled([Entry(Item("a.png", 1)), Entry(Item("a.png", 1)), Entry(Item("a.png"))])
    for second in (0, 1):
        with pytest.raises(BatchInputError, match=r"'a.png' is there more than once, with different labels"):
            spooled([Entry(Item("a.png", None if second else 1)), Entry(Item("a.png", second))])


def test_dates_filter_what_was_listed() -> None:
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 3)]
    listed = [Entry(Item(f"{day.day}.png"), day) for day in days]
    assert spooled(listed, Filters((".png",), days[1], days[2]))[1] == ["2.png"]
    with pytest.raises(BatchInputError, match="last_modified"):
        spooled([Entry(Item("a.png"))], Filters((".png",), days[0]))


def test_scored_images_are_left_out_unless_overwritten() -> None:
    ledger = KeyLedger()
    mark_scored(ledger, "same.png", "1")
    mark_scored(ledger, "changed.png", "1")
    mark_scored(ledger, "unknown.png", None)
    items = [Item("same.png", etag="1"), Item("changed.png", etag="2"), Item("unknown.png", etag="9"), Item("new.png")]
    counts, kept = spooled([Entry(item) for item in [*items, Item("same.png.png")]], skip=ledger)
    assert kept == ["changed.png", "new.png", "same.png.png"]
    assert counts["already_scored"] == 2
    # A manifest has no etag: the image counts as scored whatever its version.
    assert spooled([Entry(Item("changed.png"))], skip=ledger)[1] == []


@given(st.integers(0, 200), st.integers(0, 250), st.integers())
def test_samples_are_exact_and_repeatable(total: int, size: int, seed: int) -> None:
    lines = [f"{n}\n" for n in range(total)]
    sample = list(sample_lines(lines, total, size, seed))
    assert len(sample) == (min(size, total) if size else total)
    assert sample == sorted(set(sample), key=int)
    assert sample == list(sample_lines(lines, total, size, seed))


def test_a_sample_is_fair() -> None:
    lines = [str(n) for n in range(20)]
    hits = [0] * 20
    for seed in range(2000):
        for line in sample_lines(lines, 20, 5, seed):
            hits[int(line)] += 1
    assert all(400 < hit < 600 for hit in hits)


@given(st.integers(0, 3_000_000), st.integers(1, 5000))
def test_never_more_than_1000_mapped_tasks(images: int, wanted: int) -> None:
    size = chunk_size_for(images, wanted)
    assert size >= wanted
    assert -(-images // size) <= 1000


def test_chunks_hold_every_line_once() -> None:
    assert [len(chunk) for chunk in cut((str(n) for n in range(10)), 4)] == [4, 4, 2]
    assert list(cut([], 4)) == []


def test_a_million_keys_do_not_fill_the_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    ledger = KeyLedger()
    for n in range(20_000):
        ledger.add(f"photos/{n}.png")
    before = tracemalloc.get_traced_memory()[0]
    for n in range(20_000, 60_000):
        ledger.add(f"photos/{n}.png")
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert ("photos/59999.png",) in ledger
    assert not ledger.add("photos/7.png")
    assert after - before < 100_000


@pytest.mark.parametrize(
    ("answered_by", "row", "label"),
    [
        (["bicycle", "class 0"], {"label": 0, "label_class": "bicycle"}, 1),
        (["bicycle", "class 0"], {"label": 1, "label_class": "class 0"}, 0),
        (["bicycle", "tank"], {"label": 1, "label_class": "tank"}, None),
        ([], {"label": 1, "label_class": "class 1"}, 1),
        ([], {"label": 0, "label_class": "class 0"}, 0),
    ],
    ids=["by name", "a name like a number's", "gone", "by number", "a number like a name"],
)
def test_an_earlier_batchs_labels_are_known_by_name_where_they_had_one(
    answered_by: list[str], row: dict[str, Any], label: int | None
) -> None:
    s3 = FakeS3()
    bucket = BatchStore("b", client=s3)
    bucket.write_plan("old", {"model": {"endpoint_name": "courier", "classes": answered_by}})
    s3.objects[layout.part("old", 0)] = json.dumps({"key": "a.png", "outcome": "failed", **row}).encode()
    params = {"prefix": "", "manifest": "", "keys": [], "rerun_failed_of": "old"}
    (entry,) = find_source(bucket, params, ServedModel("courier", classes=("class 0", "bicycle"))).entries
    assert (entry.item.key, entry.item.label) == ("a.png", label)
