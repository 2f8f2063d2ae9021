"""`classify_image`: the request it makes, what it makes of the answer, and which errors are worth another try."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from lambdas import common
from lambdas.classify_image import core, handler
from tests.support.template import RESOURCES

EXAMPLE = json.loads((Path(handler.__file__).parent / "event.json").read_text())
JPEG = b"\xff\xd8\xff\xe0rest"


class FakeRuntime:
    """An endpoint that gives one answer, or raises."""

    def __init__(self, answer: bytes = b"[0.98, 0.02]", fail: Exception | None = None) -> None:
        self.answer, self.fail = answer, fail
        self.requests: list[dict[str, Any]] = []

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        if self.fail:
            raise self.fail
        return {"Body": io.BytesIO(self.answer), "InvokedProductionVariant": "AllTraffic"}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    monkeypatch.setattr(handler, "runtime_client", lambda: fake)
    monkeypatch.setenv("ENDPOINT_NAME", "scones-courier")
    return fake


def refusal(code: str, status: int, message: str = "", model_status: int | None = None) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    if model_status is not None:
        response["OriginalStatusCode"] = model_status
    return ClientError(response, "InvokeEndpoint")


def test_the_example_event_gives_the_documented_answer(runtime: FakeRuntime) -> None:
    assert handler.handler(EXAMPLE, None) == {
        "statusCode": 200,
        "body": {
            "s3_bucket": "scones-photographs",
            "s3_key": "test/bicycle_s_000513.png",
            "inferences": [0.98, 0.02],
            "invoked_production_variant": "AllTraffic",
            "threshold": 0.93,
            "threshold_version": 1,
            "inference_id": "7d0c1f9e",
        },
    }
    assert runtime.requests == [
        {
            "EndpointName": "scones-courier",
            "ContentType": "image/png",
            "Accept": "application/json",
            "Body": base64.b64decode(EXAMPLE["image_data"]),
            "InferenceId": "7d0c1f9e",
            "CustomAttributes": "test/bicycle_s_000513.png",
        }
    ]


def test_a_jpeg_goes_as_one(runtime: FakeRuntime) -> None:
    handler.handler(EXAMPLE | {"image_data": base64.b64encode(JPEG).decode()}, None)
    assert runtime.requests[0]["ContentType"] == "image/jpeg"


@pytest.mark.parametrize("key", ["a b+c.png", "å/日本.png", "x" * 1024, "%41.png"])
def test_custom_attributes_are_ascii_and_lead_back_to_the_key(key: str) -> None:
    attributes = core.invocation({"s3_key": key}, JPEG, "e")["CustomAttributes"]
    assert attributes.isascii()
    assert len(attributes) <= 1024
    assert unquote(attributes) == key


def test_a_key_too_long_for_custom_attributes_is_left_out() -> None:
    assert "CustomAttributes" not in core.invocation({"s3_key": "日" * 200}, JPEG, "e")


@pytest.mark.parametrize("text", [None, "", 5, "not base64!", "a", "é" * 4])
def test_image_data_that_is_no_base64_is_refused(runtime: FakeRuntime, text: Any) -> None:
    with pytest.raises(core.MissingImageDataError):
        handler.handler(EXAMPLE | {"image_data": text}, None)
    assert not runtime.requests


def test_data_that_is_no_image_is_refused(runtime: FakeRuntime) -> None:
    with pytest.raises(common.NotAnImageError):
        handler.handler(EXAMPLE | {"image_data": base64.b64encode(b"GIF89a").decode()}, None)


@dataclass
class FakeS3:
    """S3 with one object at one ETag."""

    content: bytes = JPEG
    etag: str = '"e1"'
    asked: list[dict[str, Any]] = field(default_factory=list)

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        if request["IfMatch"] != self.etag:
            response: Any = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
            raise ClientError(response, "GetObject")
        return {"Body": io.BytesIO(self.content), "ContentLength": len(self.content), "ETag": self.etag}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3()
    monkeypatch.setattr(handler, "s3_client", lambda: fake)
    return fake


REFERENCE = {"image_data": "", "image_etag": '"e1"', "s3_bucket": "photographs", "s3_key": "large.jpg"}


def test_an_image_by_reference_is_read_as_it_was_serialized(runtime: FakeRuntime, s3: FakeS3) -> None:
    assert handler.handler(REFERENCE | {"threshold": 0.9}, None)["body"] == {
        "s3_bucket": "photographs",
        "s3_key": "large.jpg",
        "inferences": [0.98, 0.02],
        "invoked_production_variant": "AllTraffic",
        "threshold": 0.9,
    }
    assert s3.asked == [{"Bucket": "photographs", "Key": "large.jpg", "IfMatch": '"e1"'}]
    assert (runtime.requests[0]["Body"], runtime.requests[0]["ContentType"]) == (JPEG, "image/jpeg")


def test_an_image_overwritten_since_is_not_taken_for_it(runtime: FakeRuntime, s3: FakeS3) -> None:
    s3.etag = '"e2"'
    with pytest.raises(common.ImageChangedError, match="start the execution again"):
        handler.handler(REFERENCE, None)
    assert not runtime.requests


def test_an_image_in_the_event_is_not_read_again(runtime: FakeRuntime, s3: FakeS3) -> None:
    handler.handler(EXAMPLE | {"image_etag": '"e1"'}, None)
    assert not s3.asked


@pytest.mark.parametrize("etag", [None, "", 5, ["e"]])
def test_a_reference_that_is_none_is_missing_image_data(runtime: FakeRuntime, etag: Any) -> None:
    with pytest.raises(core.MissingImageDataError, match="image_etag"):
        handler.handler(REFERENCE | {"image_etag": etag}, None)


@pytest.mark.parametrize("value", ["", "x" * 65, "é", "a\nb", 7, ["a"]])
def test_an_inference_id_sagemaker_would_refuse_is_refused(runtime: FakeRuntime, value: Any) -> None:
    with pytest.raises(core.InvalidInferenceIdError):
        handler.handler(EXAMPLE | {"inference_id": value}, None)


def test_without_an_endpoint_name_it_says_so(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDPOINT_NAME")
    with pytest.raises(core.EndpointNotConfiguredError, match="ENDPOINT_NAME"):
        handler.handler(EXAMPLE, None)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (refusal("ModelNotReadyException", 429), core.EndpointNotReadyError),
        (refusal("ThrottlingException", 429), core.EndpointThrottledError),
        (refusal("ThrottlingException", 400), core.EndpointThrottledError),
        (refusal("InternalFailure", 500), core.EndpointUnavailableError),
        (refusal("ServiceUnavailable", 503), core.EndpointUnavailableError),
        (refusal("InternalDependencyException", 530), core.EndpointUnavailableError),
        (refusal("ModelError", 424, model_status=500), core.ModelUnavailableError),
        (refusal("ModelError", 424, model_status=429), core.ModelUnavailableError),
        (refusal("ModelError", 424, model_status=0), core.ModelUnavailableError),
        (refusal("ModelError", 424), core.ModelUnavailableError),
        (refusal("ModelError", 424, model_status=400), core.ModelRefusedImageError),
        (refusal("ModelError", 424, model_status=415), core.ModelRefusedImageError),
        (refusal("ValidationError", 400, "Endpoint e of account a not found."), core.EndpointNotFoundError),
        (refusal("ValidationError", 400, "body too large"), core.ModelRefusedImageError),
        (refusal("AccessDeniedException", 403), core.EndpointAccessDeniedError),
        (EndpointConnectionError(endpoint_url="http://e"), core.EndpointUnavailableError),
        (ReadTimeoutError(endpoint_url="http://e"), core.EndpointUnavailableError),
        (ConnectTimeoutError(endpoint_url="http://e"), core.EndpointUnavailableError),
        (ConnectionResetError("gone"), core.EndpointUnavailableError),
        (NoCredentialsError(), NoCredentialsError),
    ],
)
def test_each_failure_of_the_endpoint_has_its_name(
    runtime: FakeRuntime, failure: Exception, error: type[Exception]
) -> None:
    runtime.fail = failure
    with pytest.raises(error) as caught:
        handler.handler(EXAMPLE, None)
    assert type(caught.value) is error


NO_LISTS = [b"", b"no json", b"{}", b"[]", b"null", b'"0.9"', b"[" * 100_000, b'{"prediction": ' * 100_000, b"[\xff]"]
NO_NUMBERS = [b'["0.9", "0.1"]', b"[true, false]", b"[NaN, 0.1]", b"[1e999]", b"[-Infinity]", b'["\\ud800"]']


@pytest.mark.parametrize("answer", [*NO_LISTS, *NO_NUMBERS, b"[1%s, 0]" % (b"0" * 400)])
def test_an_answer_that_is_no_list_of_numbers_is_malformed(runtime: FakeRuntime, answer: bytes) -> None:
    runtime.answer = answer
    with pytest.raises(common.MalformedInferencesError):
        handler.handler(EXAMPLE, None)


def test_an_answer_in_the_form_of_batch_transform_is_read_as_well() -> None:
    assert core.inferences(b'{"prediction": [0.25, 0.75]}') == [0.25, 0.75]


@pytest.mark.parametrize("hostile", [None, 7, [], "", "{", {"body": "no json"}, {"body": [1]}])
def test_what_is_no_object_is_a_malformed_event(runtime: FakeRuntime, hostile: Any) -> None:
    with pytest.raises(common.MalformedEventError):
        handler.handler(hostile, None)


def test_an_event_whose_body_is_json_text_is_read_as_well(runtime: FakeRuntime) -> None:
    answer = handler.handler({"statusCode": 200, "body": json.dumps(EXAMPLE)}, None)
    assert answer["body"]["inferences"] == [0.98, 0.02]


def test_two_tries_at_the_endpoint_fit_into_the_functions_time() -> None:
    timeout = RESOURCES["ClassifyFunction"]["Properties"]["Timeout"]
    config = handler._CONFIG
    assert config.retries["total_max_attempts"] * (config.read_timeout + config.connect_timeout) < timeout
