"""`serialize_image`: what it takes, what it refuses, and by which name."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lambdas import common
from lambdas.serialize_image import core, handler

FOLDER = Path(handler.__file__).parent


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, kind)
    return buffer.getvalue()


class FakeS3:
    """S3 with some objects; `fail` is raised by the next calls."""

    def __init__(self, objects: dict[str, bytes], fail: Exception | None = None) -> None:
        self.objects, self.fail, self.read = objects, fail, 0

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if self.fail:
            raise self.fail
        if Key not in self.objects:
            raise refusal("NoSuchKey", 404)
        content = self.objects[Key]
        outer = self

        class Stream(io.BytesIO):
            def read(self, amount: int | None = -1) -> bytes:
                got = super().read(amount)
                outer.read += len(got)
                return got

        return {"Body": Stream(content), "ContentLength": len(content), "ETag": '"etag-1"'}


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3({"test/bicycle_s_000513.png": picture()})
    monkeypatch.setattr(handler, "s3_client", lambda: fake)
    return fake


def event(**changes: Any) -> dict[str, Any]:
    return {"image_data": "", "s3_bucket": "bucket", "s3_key": "test/bicycle_s_000513.png"} | changes


def test_the_example_event_gives_the_documented_answer(s3: FakeS3) -> None:
    answer = handler.handler(json.loads((FOLDER / "event.json").read_text()), None)
    assert answer["statusCode"] == 200
    body = answer["body"]
    assert base64.b64decode(body.pop("image_data")) == picture()
    assert body == {
        "s3_bucket": "scones-photographs",
        "s3_key": "test/bicycle_s_000513.png",
        "inferences": [],
        "threshold": 0.93,
        "threshold_version": 1,
        "inference_id": "7d0c1f9e",
    }
    json.dumps(answer)


def test_optional_fields_that_are_absent_or_null_stay_absent(s3: FakeS3) -> None:
    assert set(handler.handler(event(threshold=None), None)["body"]) == {
        "image_data",
        "s3_bucket",
        "s3_key",
        "inferences",
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: {"body": e},
        lambda e: {"statusCode": 200, "body": json.dumps(e)},
        lambda e: {"Payload": {"statusCode": 200, "body": json.dumps(e)}},
        json.dumps,
    ],
)
def test_an_event_in_a_body_is_read_as_well(s3: FakeS3, wrap: Any) -> None:
    assert handler.handler(wrap(event()), None)["body"]["s3_key"] == "test/bicycle_s_000513.png"


@pytest.mark.parametrize("hostile", [None, 7, [], "", "{", "[]", {"body": "no json"}, {"body": [1]}, {"Payload": 3}])
def test_what_is_no_object_is_a_malformed_event(s3: FakeS3, hostile: Any) -> None:
    with pytest.raises(common.MalformedEventError):
        handler.handler(hostile, None)


@pytest.mark.parametrize("field", ["s3_bucket", "s3_key"])
@pytest.mark.parametrize("value", [None, "", 5, [], {}, True])
def test_a_missing_or_unusable_location_names_the_field(s3: FakeS3, field: str, value: Any) -> None:
    with pytest.raises(common.MissingKeyError, match=field):
        handler.handler(event(**{field: value}), None)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (refusal("NoSuchKey", 404), common.ImageNotFoundError),
        (refusal("NoSuchBucket", 404), common.ImageNotFoundError),
        (refusal("AccessDenied", 403), common.ImageAccessDeniedError),
        (refusal("InvalidObjectState", 403), common.ImageArchivedError),
        (refusal("PreconditionFailed", 412), common.ImageChangedError),
        (refusal("SlowDown", 503), common.StorageUnavailableError),
        (refusal("InternalError", 500), common.StorageUnavailableError),
        (refusal("RequestTimeout", 400), common.StorageUnavailableError),
        (refusal("InvalidBucketName", 400), ClientError),
        (EndpointConnectionError(endpoint_url="http://s3"), common.StorageUnavailableError),
        (ConnectionResetError("gone"), common.StorageUnavailableError),
        (ReadTimeoutError(endpoint_url="http://s3"), common.StorageUnavailableError),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), common.StorageUnavailableError),
        (NoCredentialsError(), NoCredentialsError),
        (ParamValidationError(report="Key"), ParamValidationError),
    ],
)
def test_each_failure_of_s3_has_its_name(s3: FakeS3, failure: Exception, error: type[Exception]) -> None:
    s3.fail = failure
    with pytest.raises(error) as caught:
        handler.handler(event(), None)
    assert type(caught.value) is error


@pytest.mark.parametrize("bucket", ["s3://B", "s3://b/k", "arn:aws:s3:::photographs", "a/b", "ab", "b b", "ü" * 9])
def test_what_is_no_bare_name_of_a_bucket_is_refused_before_s3_is_asked(s3: FakeS3, bucket: str) -> None:
    s3.fail = AssertionError("S3 was asked")
    with pytest.raises(common.InvalidLocationError, match="bare name"):
        handler.handler(event(s3_bucket=bucket), None)


@pytest.mark.parametrize("key", ["x" * 1025, "é" * 513, "lone \ud800.png"])
def test_a_key_s3_cannot_have_is_refused_before_s3_is_asked(s3: FakeS3, key: str) -> None:
    s3.fail = AssertionError("S3 was asked")
    with pytest.raises(common.InvalidLocationError, match="1024 bytes of UTF-8"):
        handler.handler(event(s3_key=key), None)


def test_an_archived_object_says_what_to_do(s3: FakeS3) -> None:
    s3.fail = refusal("InvalidObjectState", 403)
    with pytest.raises(common.ImageArchivedError, match="restore it, or copy it"):
        handler.handler(event(), None)


@pytest.mark.parametrize("size", [core.MAX_INLINE_BYTES + 1, common.MAX_IMAGE_BYTES])
def test_an_image_too_large_for_a_state_goes_by_reference(s3: FakeS3, size: int) -> None:
    s3.objects["big.png"] = picture().ljust(size, b"\0")
    assert handler.handler(event(s3_key="big.png", threshold=0.9), None)["body"] == {
        "image_data": "",
        "image_etag": '"etag-1"',
        "s3_bucket": "bucket",
        "s3_key": "big.png",
        "inferences": [],
        "threshold": 0.9,
    }


def test_the_largest_image_that_goes_inline_carries_no_reference(s3: FakeS3) -> None:
    s3.objects["big.png"] = picture().ljust(core.MAX_INLINE_BYTES, b"\0")
    body = handler.handler(event(s3_key="big.png"), None)["body"]
    assert base64.b64decode(body["image_data"]) == s3.objects["big.png"]
    assert "image_etag" not in body


def test_an_image_larger_than_the_endpoint_takes_is_refused_unread_and_says_what_to_do(s3: FakeS3) -> None:
    s3.objects["huge.png"] = picture().ljust(common.MAX_IMAGE_BYTES + 1, b"\0")
    with pytest.raises(common.ImageTooLargeError, match=r"6,291,457 bytes; .* 6,291,456\. Store a smaller"):
        handler.handler(event(s3_key="huge.png"), None)
    assert s3.read == 0


def test_the_largest_inline_image_fits_into_a_state() -> None:
    data = {"s3_bucket": "b" * 63, "s3_key": "k" * 1024}
    answer = core.serialized(data, b"\xff" * core.MAX_INLINE_BYTES, "etag")
    assert len(json.dumps(answer).encode()) < (256 - 8) * 1024


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '"\\ud800"'])
def test_an_event_of_hostile_text_is_malformed(s3: FakeS3, text: str) -> None:
    with pytest.raises(common.MalformedEventError):
        handler.handler({"body": text}, None)


@pytest.mark.parametrize(
    "content",
    [picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [picture("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    + [picture("PNG", size=(1, 1)), picture("JPEG", size=(300, 200))],
)
def test_png_and_jpeg_of_every_kind_pass(content: bytes) -> None:
    core.check_image(content, "k")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_cut_off_anywhere_is_none(kind: str) -> None:
    whole = picture(kind)
    for length in range(len(whole) - 2):
        with pytest.raises(common.NotAnImageError):
            core.check_image(whole[:length], "k")


def test_a_png_with_a_flipped_bit_is_none() -> None:
    whole = bytearray(picture())
    for at in range(8, len(whole) - 12):
        broken = bytearray(whole)
        broken[at] ^= 1
        with pytest.raises(common.NotAnImageError):
            core.check_image(bytes(broken), "k")


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", picture("GIF", "P"), picture("BMP"), b"<html>", b"\x89PNG\r\n\x1a\n"]
)
def test_anything_else_is_none(content: bytes) -> None:
    with pytest.raises(common.NotAnImageError, match="'k'"):
        core.check_image(content, "k")


@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_no_bytes_make_it_fail_in_another_way(content: bytes, start: bytes) -> None:
    with contextlib.suppress(common.NotAnImageError):
        core.check_image(start + content, "k")
