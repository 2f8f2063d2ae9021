"""Manifests and label files as people and spreadsheets write them: read right, or refused with what to do."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scones.batch.inputs import (
    BatchInputError,
    csv_line,
    escaped,
    object_key,
    open_text,
    parse_label,
    parse_manifest,
    text_lines,
    unescaped,
)
from scones.batch.items import Item
from scones.batch.labels import merge_accepted, read_accepted, read_labelled, read_rejected

CLASSES = ("bicycle", "motorcycle")
WANTED = [Item("a.png", 1), Item("b.png")]


def items_of(content: bytes, name: str = "m.csv") -> list[Item]:
    lines = text_lines(open_text(io.BytesIO(content), name), name)
    return [entry.item for entry in parse_manifest(lines, name, "bucket", CLASSES)]


@pytest.mark.parametrize(
    "text",
    [
        "key,label\na.png,motorcycle\nb.png,\n",
        "key, label\na.png, motorcycle\nb.png,\n",
        " Key ;Label;\r\na.png;1;\r\nb.png;;\r\n",
        "sep=;\r\nkey;label\r\na.png;1,0\r\nb.png;\r\n".replace("1,0", "1.0"),
        "key\tlabel\na.png\t1.\nb.png\t\n",
        'label,key\n1.0,"a.png"\n,b.png\n\n',
        '{"key": "a.png", "label": 1.0}\n\n"b.png"\n',
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_is_read_however_a_spreadsheet_saved_it(text: str, encoding: str, packed: bool) -> None:
    content = text.encode(encoding)
    assert items_of(gzip.compress(content) if packed else content) == WANTED


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("key\nFahrräder.png\n".encode("cp1252"), ["m.csv", "near line", "CSV UTF-8", "iconv"]),
        (gzip.compress(b"key\na.png\n" * 99, mtime=0)[:-20], ["m.csv", "gzip"]),
        (b"\x1f\x8bno gzip at all", ["m.csv", "gzip"]),
        (b"image;label\na.png;1\n", ["m.csv", "one column named key", "image;label"]),
        (b"key,key\na.png,b.png\n", ["one column named key"]),
        (b"key,label\na.png,1.5\n", ["m.csv line 2", "'1.5'", "bicycle, motorcycle"]),
        (b"key,label\na.png,2\n", ["line 2", "label 2"]),
        (b"key,label\na,b.png,1\n", ["line 2 has 3 cells for 2 columns", "quote"]),
        (b"", ["one column named key"]),
        (b"key\n" + b"k" * 1_000_001, ["line 2 has over 1,000,000 characters"]),
        (b"key\ns3://elsewhere/a.png\n", ["line 2 is in bucket 'elsewhere'"]),
        (b"key\nhttps://host/a.png\n", ["line 2 is a web address"]),
        (b'{"key": ' + b"[" * 5000, ["line 1 is not JSON"]),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_line_and_advice(content: bytes, words: list[str]) -> None:
    with pytest.raises(BatchInputError) as refused:
        items_of(content)
    assert all(word in str(refused.value) for word in words), str(refused.value)


@pytest.mark.parametrize("key", [" k/lead.png", "k/trail .png ", "/lead/a.png", "a%20b.png", "a+b.png", "k//a.png"])
def test_keys_are_taken_as_they_are(key: str) -> None:
    assert object_key(key, "bucket", "it") == key
    for uri in (f"s3://bucket/{key}", f"arn:aws:s3:::bucket/{key}"):
        assert object_key(uri, "bucket", "it") == key
    assert items_of(csv_line(["key"]).encode() + csv_line([key]).encode()) == [Item(key)]


@pytest.mark.parametrize(
    ("value", "index"), [("bicycle", 0), (" motorcycle ", 1), (1, 1), (1.0, 1), ("1.0", 1), ("+1", 1), ("", None)]
)
def test_labels_as_they_are_written(value: Any, index: int | None) -> None:
    assert parse_label(value, "it", CLASSES) == index


@pytest.mark.parametrize("value", ["2", -1, "1.5", True, "nan", "1e0", "9" * 400, [1], "Bicycle"])
def test_labels_that_are_none(value: Any) -> None:
    with pytest.raises(BatchInputError, match="label"):
        parse_label(value, "it", CLASSES)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
DANGEROUS = st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", "'", "'=", "''", "'''=", '"', ";", ","])
CELLS = st.builds("".join, st.tuples(st.just("") | DANGEROUS, TEXT | DANGEROUS))


@given(CELLS)
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell: str) -> None:
    written = escaped(cell)
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unescaped(written) == cell


@given(st.dictionaries(CELLS, st.sampled_from(CLASSES), max_size=5))
def test_accepted_labels_come_back_whatever_their_keys_hold(labels: dict[str, str]) -> None:
    content = merge_accepted(merge_accepted(None, labels), {})
    assert read_accepted(content) == labels
    # And any other reader of CSV sees as many lines as there are labels.
    assert len(list(csv.reader(io.StringIO(content.decode(), newline="")))) == len(labels) + 1


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_manifest_or_a_named_refusal(content: bytes) -> None:
    for name in ("m.csv", "m.jsonl"):
        try:
            items_of(content, name)
        except BatchInputError as refused:
            message = str(refused)
        else:
            continue
        assert name in message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
FIELDS = st.sampled_from(["key", "label", "etag", "last_modified"])


@given(st.dictionaries(FIELDS, JSON_VALUES) | JSON_VALUES)
def test_any_json_is_an_item_or_a_named_refusal(value: Any) -> None:
    content = json.dumps(value).encode()
    with suppress(BatchInputError):
        assert all(item.key for item in items_of(content, "m.jsonl"))


@given(st.binary(max_size=300))
def test_any_bytes_are_labels_or_a_named_refusal(content: bytes) -> None:
    with suppress(BatchInputError):
        assert all(read_labelled(content, "labels.csv"))
    assert isinstance(list(read_rejected(content, "rejected.csv")), list)


def test_the_labels_of_a_filled_in_queue() -> None:
    text = 'key;label;guess\r\n"a\rb.png";1.0;x\r\nb.png;;\r\nb.png; bicycle ;\r\n'
    for content in (text.encode("utf-8-sig"), text.encode("utf-16")):
        assert read_labelled(content) == {"a\rb.png": "1.0", "b.png": "bicycle"}
    with pytest.raises(BatchInputError, match=r"line 3: 'a' is labelled 'motorcycle', and 'bicycle' in a line before"):
        read_labelled(b"key,label\na,bicycle\na,motorcycle\n")
    with pytest.raises(BatchInputError, match="line 2 has a label and no key"):
        read_labelled(b"key,label\n,bicycle\n")


def test_a_damaged_line_costs_itself_and_what_follows_it() -> None:
    content = b"key,guess,confidence\na.png,bicycle,0.5\nb.png,x,nan\nc,d,e,f,g\nlast.png,x,0.1\n"
    assert [(r.key, r.guess, r.confidence) for r in read_rejected(content, "rejected.csv")] == [
        ("a.png", "bicycle", 0.5),
        ("b.png", "x", None),
    ]


def test_a_long_manifest_is_read_as_it_arrives() -> None:
    """Neither the text nor its packed form is taken whole."""
    taken = 0

    class Slow(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            nonlocal taken
            taken += len(buffer)
            line = b"key\n" + b"a.png\n" * len(buffer)
            buffer[:] = line[: len(buffer)] if taken == len(buffer) else (b"a.png\n" * len(buffer))[: len(buffer)]
            return len(buffer)

    lines: Iterator[str] = text_lines(open_text(Slow(), "m.csv"), "m.csv")  # type: ignore[arg-type]
    found = parse_manifest(lines, "m.csv", "bucket")
    assert next(found).item.key == "a.png"
    assert taken <= 1 << 18
