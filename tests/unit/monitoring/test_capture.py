from __future__ import annotations

import base64
import io
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scones.images.statistics import NoveltyScale, baseline_statistics
from scones.monitoring import capture_reader
from scones.monitoring.capture import (
    MAX_LINE_BYTES,
    MalformedCaptureError,
    parse_csv_probabilities,
    parse_json_probabilities,
    parse_line,
    quote,
)
from scones.monitoring.capture_files import (
    CaptureFile,
    Watermark,
    endpoint_prefix,
    hour_prefixes,
    key_time,
    split_blocks,
)
from scones.monitoring.capture_reader import CaptureReadError, read_capture
from scones.monitoring.capture_summary import CaptureSummary, ReadSettings, summarise
from tests.support.picture_files import drawn, encoded, turned_file

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def encode(image: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


def pictures(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def record(image: bytes = b"", answer: Any = (0.9, 0.1), at: datetime = AT, **metadata: Any) -> dict[str, Any]:
    return {
        "captureData": {
            "endpointInput": {
                "observedContentType": "image/png",
                "mode": "INPUT",
                "data": base64.b64encode(image).decode(),
                "encoding": "BASE64",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": json.dumps(list(answer)),
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": "e", "inferenceTime": at.isoformat(), **metadata},
        "eventVersion": "0",
    }


def lines(*records: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in records)


# ---- lines


def test_every_field_of_a_line_is_read() -> None:
    one = parse_line(json.dumps(record(b"abc", inferenceId="i-1", customAttributes=["photos%2Fa.png"])).encode())
    assert one.input_bytes() == b"abc"
    assert one.probabilities() == [0.9, 0.1]
    assert (one.inference_id, one.custom_attributes, one.event_id) == ("i-1", "photos%2Fa.png", "e")
    assert one.inference_time == AT.timestamp()
    assert one.input_content_type == "image/png"


@pytest.mark.parametrize(
    ("encoding", "content_type", "data"),
    [
        ("JSON", "application/json", "[0.25, 0.75]"),
        ("CSV", "text/csv", "0.25,0.75"),
        ("BASE64", "application/json; charset=utf-8", base64.b64encode(b"[0.25, 0.75]").decode()),
        ("BASE64", "text/csv", base64.b64encode(b"0.25,0.75\n").decode()),
        ("BASE64", None, base64.b64encode(b"0.25, 0.75").decode()),
        ("JSON", "application/jsonlines", '{"prediction": [0.25, 0.75]}'),
        ("JSON", "application/json", "[[0.25, 0.75]]"),
    ],
)
def test_every_encoding_of_an_answer_is_read(encoding: str, content_type: str | None, data: str) -> None:
    one = record()
    one["captureData"]["endpointOutput"] = {"data": data, "encoding": encoding, "observedContentType": content_type}
    assert parse_line(json.dumps(one).encode()).probabilities() == [0.25, 0.75]


@pytest.mark.parametrize(
    "answer",
    [
        f"[1{'0' * 400},0]",
        "[1e400,0]",
        "[" * 5000,
        "[]",
        "[1]",
        "[0.5, 2]",
        "[0.5, NaN]",
        "[true, false]",
        '"x"',
        "{}",
        "null",
        "[",
    ],
)
def test_an_answer_without_probabilities_is_refused(answer: str) -> None:
    with pytest.raises(MalformedCaptureError):
        parse_json_probabilities(answer.encode())


@pytest.mark.parametrize("answer", [b"", b"a,b", b"0.5", b"0.5,inf", b"\xff,1"])
def test_a_csv_without_probabilities_is_refused(answer: bytes) -> None:
    with pytest.raises(MalformedCaptureError):
        parse_csv_probabilities(answer)


def test_only_one_captured_side_is_still_a_record() -> None:
    one = record(b"x")
    del one["captureData"]["endpointOutput"]
    parsed = parse_line(json.dumps(one).encode())
    with pytest.raises(MalformedCaptureError, match="was not captured"):
        parsed.probabilities()


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.pop("captureData"),
        lambda one: one.pop("eventMetadata"),
        lambda one: one["eventMetadata"].update(inferenceTime="yesterday"),
        lambda one: one["eventMetadata"].update(inferenceTime="0001-01-01T00:00:00Z"),
        lambda one: one["eventMetadata"].update(inferenceTime="9999-12-31T23:59:59-23:00"),
        lambda one: one["eventMetadata"].update(inferenceTime="1969-12-31T00:00:00Z"),
        lambda one: one["eventMetadata"].pop("inferenceTime"),
        lambda one: one["captureData"]["endpointInput"].update(data=5),
    ],
)
def test_a_line_of_another_form_is_malformed(change: Any) -> None:
    one = record()
    change(one)
    with pytest.raises(MalformedCaptureError):
        parse_line(json.dumps(one).encode())


def test_unknown_encoding_and_broken_base64_are_named() -> None:
    for update, words in (({"encoding": "ROT13"}, "ROT13"), ({"data": "a"}, "not base64")):
        one = record()
        one["captureData"]["endpointInput"].update(update)
        with pytest.raises(MalformedCaptureError, match=words):
            parse_line(json.dumps(one).encode()).input_bytes()


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_record_or_malformed_and_never_anything_else(line: bytes) -> None:
    message = ""
    try:
        parse_line(line).probabilities()
    except MalformedCaptureError as error:
        message = str(error)
    assert message.isprintable()


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_json, st.sampled_from(["captureData", "eventMetadata", "endpointInput", "endpointOutput", "data", "encoding"]))
@settings(max_examples=300, deadline=None)
def test_any_value_in_any_place_is_counted_and_never_fatal(value: Any, name: str) -> None:
    one = record(b"x")
    for holder in (one, one["captureData"], one["captureData"]["endpointOutput"]):
        if name in holder:
            holder[name] = value
            break
    summary = summarise([("key", 1, lines(one, record(b"y")))], ReadSettings())
    assert summary.records + summary.malformed == 2
    assert summary.records >= 1


def test_quoted_lines_are_short_and_printable() -> None:
    assert quote(b"a\x00\x1b[31m\xff" + b"z" * 500).startswith("a\\x00\\x1b[31m\\xff")
    assert len(quote(b"z" * 500)) < 200


# ---- blocks


@given(
    st.lists(st.binary(max_size=40).map(lambda part: part.replace(b"\n", b"")), max_size=30),
    st.integers(1, 50),
    st.integers(1, 64),
)
@settings(max_examples=200, deadline=None)
def test_blocks_hold_every_line_once_with_its_number(parts: list[bytes], chunk: int, block: int) -> None:
    content = b"\n".join(parts)
    chunks = [content[start : start + chunk] for start in range(0, len(content), chunk)]
    found: list[tuple[int, bytes]] = []
    for first, data in split_blocks(chunks, block):
        found += [(first + index, line) for index, line in enumerate(data.split(b"\n")) if line]
    assert found == [(index, line) for index, line in enumerate(content.split(b"\n"), 1) if line]


def test_an_endless_line_is_cut_and_the_next_one_read() -> None:
    endless = (b"x" * (1 << 20) for _ in range((MAX_LINE_BYTES >> 20) + 5))
    blocks = list(split_blocks([*endless, b"tail\n", b"next\n"]))
    assert sum(len(data) for _, data in blocks) < 10_000
    assert [line for _, data in blocks for line in data.split(b"\n")][-2] == b"next"


# ---- keys and the watermark


def test_keys_and_prefixes() -> None:
    key = "a/b/capture/courier/AllTraffic/2026/03/01/12/30-05-123-0a1b.jsonl"
    assert key_time(key) == datetime(2026, 3, 1, 12, 30, 5, 123000, tzinfo=UTC)
    assert key_time("capture/courier/AllTraffic/2026/13/01/12/30-05-123-0a1b.jsonl") is None
    assert key_time("capture/courier/readme.txt") is None
    assert endpoint_prefix("s3://b//capture//x/", "courier") == ("b", "capture/x/courier/")
    assert endpoint_prefix("s3://b", "courier") == ("b", "courier/")
    with pytest.raises(ValueError, match="not an S3 URI"):
        endpoint_prefix("capture", "courier")
    assert hour_prefixes(AT, AT + timedelta(hours=1)) == ["2026/03/01/12/", "2026/03/01/13/"]
    assert hour_prefixes(AT, AT + timedelta(days=30)) is None


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 5)), max_size=40))
@settings(max_examples=150, deadline=None)
def test_each_file_is_read_once_whatever_the_order_of_arrival(arrivals: list[tuple[int, int]]) -> None:
    """Files arrive at whole seconds; after some of them a report reads. LastModified never goes back."""
    mark, listed, read, second = Watermark(), [], [], 0
    for number, (wait, report) in enumerate(arrivals):
        second += wait
        listed.append(CaptureFile(f"{(number * 7919) % 101:03d}-{number}", 1, AT + timedelta(seconds=second)))
        if report < 2:
            chosen = msgspec.json.decode(msgspec.json.encode(mark), type=Watermark).select(listed)
            read += chosen
            mark = mark.advance(chosen)
    read += mark.select(listed)
    assert sorted(file.key for file in read) == sorted(file.key for file in listed)


# ---- summaries and the reader


def files_of(contents: dict[str, bytes]) -> tuple[list[CaptureFile], Any]:
    listed = [CaptureFile(key, len(content), AT) for key, content in contents.items()]
    return listed, lambda file: [contents[file.key][start : start + 1000] for start in range(0, file.size, 1000)]


def test_every_record_of_every_line_of_every_file_is_read() -> None:
    images = pictures(30)
    contents = {
        f"f{number}": lines(
            *(record(encode(images[index]), [0.8, 0.2]) for index in range(number * 10, number * 10 + 10))
        )
        for number in range(3)
    }
    contents["f1"] = contents["f1"].rstrip(b"\n") + b"\n\n"
    summary = read_capture(*files_of(contents), ReadSettings(classes=("a", "b"), threshold=0.85))
    assert (summary.records, summary.rejected, summary.malformed, summary.undecodable) == (30, 30, 0, 0)
    assert summary.predicted_counts == {0: 30}
    assert summary.sizes == {"32x32": 30}
    assert len(summary.files) == 3
    assert summary.column("red").tolist() == pytest.approx(images[..., 0].mean(axis=(1, 2)).tolist(), abs=0.01)


def test_bad_lines_are_counted_and_quoted_with_file_and_line() -> None:
    content = lines(record(encode(pictures(1)[0])), b"{broken", record(b"no image"), record(b"", ["x"]), b"null")
    summary = read_capture(*files_of({"some/key": content}), ReadSettings())
    assert (summary.records, summary.malformed) == (3, 2)
    assert summary.malformed_examples[0].startswith("some/key, line 2: ")
    assert "{broken" in summary.malformed_examples[0]
    assert (summary.undecodable, summary.unusable_outputs) == (2, 1)


def test_the_zero_time_is_malformed_and_quoted_and_the_rest_is_read() -> None:
    content = lines(record(b"x", at=datetime(1, 1, 1, tzinfo=UTC)), record(b"y"))
    summary = summarise([("key", 1, content)], ReadSettings())
    assert (summary.records, summary.malformed) == (1, 1)
    assert "0001-01-01" in summary.malformed_examples[0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_stored_turned_is_seen_upright(orientation: int) -> None:
    image = turned_file(drawn(), orientation)
    summary = summarise([("k", 1, lines(record(image)))], ReadSettings())
    assert summary.column("red").tolist() == pytest.approx([drawn()[..., 0].mean()], abs=0.01)
    assert summary.sizes == {"32x32": 1}


def test_sixteen_bits_of_grey_are_as_bright_as_eight() -> None:
    grey = np.asarray(Image.fromarray(drawn()).convert("L"))
    files = [encoded(Image.fromarray(grey)), encoded(Image.fromarray(grey.astype(np.uint16) * 257))]
    summary = summarise([("k", 1, lines(*map(record, files)))], ReadSettings())
    eight, sixteen = summary.column("brightness")
    assert sixteen == pytest.approx(eight)


def test_an_answer_for_other_classes_is_not_usable() -> None:
    summary = summarise([("k", 1, lines(record(b"", [0.2, 0.3, 0.5])))], ReadSettings(classes=("a", "b")))
    assert summary.unusable_outputs == 1
    assert "3 probabilities, but there are 2 classes" in summary.output_examples[0]


def test_window_leaves_other_records_out() -> None:
    content = lines(*(record(b"", at=AT + timedelta(seconds=second)) for second in range(10)))
    chosen = ReadSettings(since=AT.timestamp() + 2, until=AT.timestamp() + 5)
    summary = summarise([("k", 1, content)], chosen)
    assert summary.records == 3


def test_least_confident_and_most_unlike_images_are_kept_once_each() -> None:
    images = np.clip(np.random.default_rng(0).normal(130, 20, (40, 32, 32, 3)), 0, 255).astype(np.uint8)
    scale = NoveltyScale.of(baseline_statistics(images, [0] * 40, ["a", "b"]))
    black = encode(np.zeros((32, 32, 3), np.uint8))
    rows = [record(encode(image), [0.6 + 0.01 * n, 0.4 - 0.01 * n], eventId=f"e{n}") for n, image in enumerate(images)]
    rows += [record(black, [0.99, 0.01], eventId=f"b{n}", customAttributes="dark%20one.png") for n in range(5)]
    summary = summarise([("k", 1, lines(*rows))], ReadSettings(scale=scale, shown=3))
    assert [example.event_id for example in summary.least_confident] == ["e0", "e1", "e2"]
    assert summary.most_unlike[0].source == "dark one.png"
    assert sum(example.image == black for example in summary.most_unlike) == 1


def test_child_processes_read_the_same_as_this_process() -> None:
    images = pictures(60)
    contents = {
        f"f{number}": lines(*(record(encode(image), [0.7, 0.3], eventId=str(i)) for i, image in enumerate(images)))
        for number in range(4)
    }
    alone = read_capture(*files_of(contents), ReadSettings(), workers=0)
    together = read_capture(*files_of(contents), ReadSettings(), workers=2)
    assert alone.records == together.records == 240
    assert np.array_equal(alone.column("sharpness"), together.column("sharpness"))
    assert alone.least_confident == together.least_confident


def test_a_child_that_dies_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    original = capture_reader._send

    def killing(pipe: Any, value: Any) -> None:
        for child in _children:
            os.kill(child, signal.SIGKILL)
        original(pipe, value)

    _children: list[int] = []
    enter = capture_reader._Parsers.__enter__

    def remember(self: Any) -> Any:
        entered = enter(self)
        _children.extend(child.pid for child in entered._children)
        return entered

    monkeypatch.setattr(capture_reader._Parsers, "__enter__", remember)
    monkeypatch.setattr(capture_reader, "_send", killing)
    with pytest.raises(CaptureReadError, match="exit code"):
        read_capture(*files_of({"f": lines(record(b""))}), ReadSettings(), workers=1)


def test_an_error_of_the_store_reaches_the_caller() -> None:
    def fetch(_: CaptureFile) -> Any:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        read_capture([CaptureFile("k", 5, AT)], fetch, ReadSettings())


def added(minutes: int, each: int) -> CaptureSummary:
    """What so many minutes hold, added block by block."""
    total = CaptureSummary()
    for number in range(minutes):
        block = lines(*(record(b"", at=AT + timedelta(minutes=number)) for _ in range(each)))
        total.add(summarise([("k", 1, block)], ReadSettings(images=False)), shown=3)
    return total


def test_many_records_become_a_sample_and_counts_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scones.monitoring.capture_summary.MAX_ROWS", 50)
    total = added(minutes=6, each=40)
    assert total.records == 240
    assert sum(total.minutes.values()) == 240
    assert 50 <= total.column("time").size <= 100
    assert np.unique(total.column("time")).size > 3


def test_the_sample_leans_to_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it was thinned out: an hour at the end counts as much as one at the beginning."""
    monkeypatch.setattr("scones.monitoring.capture_summary.MAX_ROWS", 400)
    total = added(minutes=30, each=100)
    assert 400 <= total.column("time").size <= 800
    minutes = (total.column("time") - AT.timestamp()) / 60
    # Six standard errors of the mean of as many draws from 0 to 29.
    assert abs(minutes.mean() - 14.5) < 6 * 8.66 / np.sqrt(minutes.size)


def test_captures_made_by_aws(shared_data: Path) -> None:
    contents = {str(path): path.read_bytes() for path in sorted((shared_data / "captured").rglob("*.jsonl"))}
    summary = read_capture(*files_of(contents), ReadSettings(classes=("bicycle", "motorcycle")))
    assert (summary.records, len(summary.files), summary.rejected) == (22, 12, 7)
    assert (summary.malformed, summary.undecodable, summary.unusable_outputs) == (0, 0, 0)
    assert all(key_time("x/" + key) is not None for key in contents)
