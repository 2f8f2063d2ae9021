"""`record_result`: every outcome of a Distributed Map's item becomes one complete record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from lambdas import common
from lambdas.filter_inferences.core import THRESHOLD_CONFIDENCE_NOT_MET
from lambdas.record_result import core, handler

EXAMPLE = json.loads((Path(handler.__file__).parent / "event.json").read_text())
FIELDS = {
    "s3_key",
    "outcome",
    "inferences",
    "confidence",
    "predicted_class_index",
    "threshold",
    "threshold_version",
    "error",
    "cause",
    "execution_arn",
    "invoked_production_variant",
}


class FakeS3:
    """S3 that keeps what is put, or fails."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.fail: Exception | None = None

    def put_object(self, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        assert ContentType == "application/json"
        if self.fail:
            raise self.fail
        self.objects[Bucket, Key] = Body


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3()
    monkeypatch.setattr(handler, "s3_client", lambda: fake)
    return fake


def item(**changes: Any) -> dict[str, Any]:
    base = {"s3_bucket": "b", "s3_key": "a b+ü.png", "batch_id": "x1", "threshold": 0.93, "threshold_version": 2}
    return {"execution_arn": "arn", "item": base | changes}


def test_the_example_event_writes_a_classified_record(s3: FakeS3) -> None:
    answer = handler.handler(EXAMPLE, None)
    assert answer == {"statusCode": 200, "body": {"outcome": "classified", "error": None, "cause": None}}
    digest = hashlib.sha256(b"test/bicycle_s_000513.png").hexdigest()
    ((place, content),) = s3.objects.items()
    assert place == ("scones-photographs", f"batches/2026-11-20/items/{digest}.json")
    assert json.loads(content) == {
        "s3_key": "test/bicycle_s_000513.png",
        "outcome": "classified",
        "inferences": [0.9655245423316956, 0.0344754576683044],
        "confidence": 0.9655245423316956,
        "predicted_class_index": 0,
        "threshold": 0.93,
        "threshold_version": 1,
        "error": None,
        "cause": None,
        "execution_arn": "an execution's ARN",
        "invoked_production_variant": "AllTraffic",
    }


def test_writing_the_same_outcome_again_changes_nothing(s3: FakeS3) -> None:
    handler.handler(EXAMPLE, None)
    before = dict(s3.objects)
    handler.handler(EXAMPLE, None)
    assert s3.objects == before


def test_a_rejection_keeps_its_probabilities() -> None:
    decided = {"s3_key": "a b+ü.png", "inferences": [0.4, 0.6], "threshold": 0.8, "threshold_version": 7}
    cause = json.dumps({"errorMessage": json.dumps(decided), "errorType": core.REJECTED})
    written = core.record(item(failure={"Error": core.REJECTED, "Cause": cause}, answer={"body": {"inferences": [9]}}))
    assert set(written) == FIELDS
    assert written["outcome"] == "rejected"
    assert (written["inferences"], written["confidence"], written["predicted_class_index"]) == ([0.4, 0.6], 0.6, 1)
    assert (written["threshold"], written["threshold_version"]) == (0.8, 7)
    assert (written["error"], written["cause"]) == (core.REJECTED, cause)


def test_the_rejections_name_is_the_filters() -> None:
    assert THRESHOLD_CONFIDENCE_NOT_MET.__name__ == core.REJECTED


@pytest.mark.parametrize(
    "cause", ["", "no json", "[]", '{"errorMessage": "no json"}', '{"errorMessage": "[1]"}', "3", "[" * 100_000]
)
def test_a_rejection_with_an_unreadable_cause_is_still_one(cause: str) -> None:
    written = core.record(item(failure={"Error": core.REJECTED, "Cause": cause}))
    assert (written["outcome"], written["inferences"], written["cause"]) == ("rejected", None, cause)


def test_a_failure_keeps_error_and_cause_and_fails_the_item(s3: FakeS3) -> None:
    failure = {"Error": "NotAnImageError", "Cause": "{}"}
    answer = handler.handler(item(failure=failure, answer={"body": {"image_data": "x", "inferences": []}}), None)
    assert answer["body"] == {"outcome": "failed", "error": "NotAnImageError", "cause": "{}"}
    written = json.loads(next(iter(s3.objects.values())))
    assert set(written) == FIELDS
    assert (written["inferences"], written["confidence"], written["threshold"]) == (None, None, 0.93)


@pytest.mark.parametrize("event", [None, [], {}, {"item": None}, {"item": []}, "text"])
def test_an_event_without_an_item_is_malformed(s3: FakeS3, event: Any) -> None:
    with pytest.raises(core.MalformedItemError):
        handler.handler(event, None)


@pytest.mark.parametrize("field", ["s3_bucket", "s3_key", "batch_id"])
@pytest.mark.parametrize("value", [None, "", 3])
def test_an_item_without_a_place_is_malformed(s3: FakeS3, field: str, value: Any) -> None:
    with pytest.raises(core.MalformedItemError, match=field):
        handler.handler(item(**{field: value}), None)


@pytest.mark.parametrize("batch_id", ["../x", "a/b", ".x", "x" * 129, "a b", "ü"])
def test_a_batch_id_cannot_lead_elsewhere(s3: FakeS3, batch_id: str) -> None:
    with pytest.raises(core.MalformedItemError, match="batch_id"):
        handler.handler(item(batch_id=batch_id), None)
    assert not s3.objects


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, core.RecordAccessDeniedError),
        ("SlowDown", 503, common.StorageUnavailableError),
        ("InternalError", 500, common.StorageUnavailableError),
        ("NoSuchBucket", 404, ClientError),
    ],
)
def test_each_failure_of_s3_has_its_name(s3: FakeS3, code: str, status: int, error: type[Exception]) -> None:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    s3.fail = ClientError(response, "PutObject")
    with pytest.raises(error) as caught:
        handler.handler(EXAMPLE, None)
    assert type(caught.value) is error


def test_a_lost_connection_is_worth_another_try(s3: FakeS3) -> None:
    s3.fail = EndpointConnectionError(endpoint_url="http://s3")
    with pytest.raises(common.StorageUnavailableError):
        handler.handler(EXAMPLE, None)
