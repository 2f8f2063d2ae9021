"""What the model monitor's analyzer makes of records that are damaged, hostile or merely strange: a report."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sagemaker_local.monitoring.analyzer import IMAGE_FEATURES, features, records, statistics


def png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def grey() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def capture(answer: str = "[0.25, 0.75]", image: bytes | None = None) -> dict[str, Any]:
    data = base64.b64encode(grey() if image is None else image).decode()
    return {
        "endpointInput": {"data": data, "encoding": "BASE64"},
        "endpointOutput": {"data": answer, "encoding": "JSON"},
    }


@pytest.mark.parametrize("answer", ["[NaN, 0.5]", "[1e999]", f"[{'9' * 400}, 0.5]", "[0.5, Infinity]", "[]", "{}", "["])
def test_an_answer_that_is_no_probabilities_costs_only_what_it_says(answer):
    row = features(capture(answer))
    assert set(row) == {*IMAGE_FEATURES, "size"}
    described = statistics([row, features(capture())])["features"]
    confidence = next(one for one in described if one["name"] == "confidence")
    assert confidence["numerical_statistics"]["common"] == {"num_present": 1, "num_missing": 1}


@pytest.mark.parametrize(
    "image",
    [
        png(30_000, 30_000),
        png(4, 4, b"no deflated data"),
        grey()[:40],
        b"\x89PNG\r\n\x1a\n\0\0\0\1IHDR",
        b"II*\0\xff\xff\xff\x7f",
        b"",
    ],
    ids=["bomb", "damaged", "cut", "short head", "tiff", "empty"],
)
def test_an_image_that_cannot_be_read_costs_only_what_it_shows(image):
    assert features(capture(image=image)) == {"predicted_class": "1", "confidence": 0.75}


def test_what_breaks_a_line_of_text_breaks_no_record_and_a_foreign_byte_costs_its_line(tmp_path: Path):
    good = json.dumps({"captureData": {"endpointOutput": {"data": "a\u2028b\x85c"}}}, ensure_ascii=False).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join([good, b'{"captureData": "\xff"}', b"", good, b"[1]"]))
    assert [None if one is None else list(one) for one in records(tmp_path)] == [
        ["endpointOutput"],
        None,
        ["endpointOutput"],
        None,
    ]
