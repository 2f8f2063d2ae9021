"""`filter_inferences`: the threshold, where it comes from, and what a rejection says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from lambdas import common
from lambdas.filter_inferences import core, handler

EXAMPLE = json.loads((Path(handler.__file__).parent / "event.json").read_text())


class FakeS3:
    """S3 with config/threshold.json, or a failure."""

    def __init__(self) -> None:
        self.document: bytes = b'{"threshold": 0.9, "version": 4}'
        self.fail: Exception | None = None
        self.reads: list[tuple[str, str]] = []

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.reads.append((Bucket, Key))
        if self.fail:
            raise self.fail
        return {"Body": io.BytesIO(self.document)}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3()
    monkeypatch.setattr(handler, "s3_client", lambda: fake)
    monkeypatch.setattr(handler, "_cached", None)
    monkeypatch.setenv("BUCKET_NAME", "scones")
    return fake


def event(**changes: Any) -> dict[str, Any]:
    return {"s3_bucket": "b", "s3_key": "k.png", "inferences": [0.95, 0.05]} | changes


def test_the_example_event_gives_the_documented_answer(s3: FakeS3) -> None:
    assert handler.handler(EXAMPLE, None) == {
        "statusCode": 200,
        "body": EXAMPLE | {"confidence": 0.9655245423316956, "predicted_class_index": 0},
    }
    assert not s3.reads


def test_the_threshold_itself_passes_and_just_below_does_not(s3: FakeS3) -> None:
    assert handler.handler(event(inferences=[0.07, 0.93], threshold=0.93), None)["body"]["predicted_class_index"] == 1
    with pytest.raises(core.THRESHOLD_CONFIDENCE_NOT_MET):
        handler.handler(event(inferences=[0.0701, 0.9299], threshold=0.93), None)


def test_a_rejection_has_the_exact_name_and_says_what_was_decided_on(s3: FakeS3) -> None:
    with pytest.raises(core.THRESHOLD_CONFIDENCE_NOT_MET) as caught:
        handler.handler(event(inferences=[0.6, 0.4], threshold=0.93, threshold_version=2), None)
    assert type(caught.value).__name__ == "THRESHOLD_CONFIDENCE_NOT_MET"
    assert json.loads(str(caught.value)) == {
        "s3_key": "k.png",
        "inferences": [0.6, 0.4],
        "threshold": 0.93,
        "threshold_version": 2,
    }


def test_without_a_threshold_in_the_event_the_configured_one_counts(s3: FakeS3) -> None:
    body = handler.handler(event(), None)["body"]
    assert (body["threshold"], body["threshold_version"]) == (0.9, 4)
    assert s3.reads == [("scones", "config/threshold.json")]


def test_the_configured_threshold_is_read_again_after_a_minute(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(handler.time, "monotonic", lambda: now)
    handler.handler(event(), None)
    s3.document = b'{"threshold": 0.5, "version": 5}'
    now += handler.CACHE_SECONDS
    assert handler.handler(event(), None)["body"]["threshold_version"] == 4
    now += 0.1
    assert handler.handler(event(), None)["body"]["threshold_version"] == 5
    assert len(s3.reads) == 2


@pytest.mark.parametrize("value", ["0.9", True, -0.1, 1.1, float("nan"), 10**400, [], {}])
def test_a_threshold_that_is_none_is_refused(s3: FakeS3, value: Any) -> None:
    with pytest.raises(core.InvalidThresholdError, match="the event"):
        handler.handler(event(threshold=value), None)


@pytest.mark.parametrize("value", ["1", 1.5, True, []])
def test_a_version_that_is_none_is_refused(s3: FakeS3, value: Any) -> None:
    with pytest.raises(core.InvalidThresholdError, match="version"):
        handler.handler(event(threshold=0.9, threshold_version=value), None)


@pytest.mark.parametrize("document", [b"", b"[]", b"0.93", b"{}", b"\xff", b"[" * 100_000])
def test_a_configuration_without_a_threshold_is_named(s3: FakeS3, document: bytes) -> None:
    s3.document = document
    with pytest.raises(core.ThresholdNotConfiguredError, match=r"config/threshold\.json"):
        handler.handler(event(), None)


def test_a_configured_threshold_that_is_none_is_refused(s3: FakeS3) -> None:
    s3.document = b'{"threshold": 93}'
    with pytest.raises(core.InvalidThresholdError, match=r"config/threshold\.json"):
        handler.handler(event(), None)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("NoSuchKey", 404, core.ThresholdNotConfiguredError),
        ("AccessDenied", 403, core.ThresholdNotConfiguredError),
        ("SlowDown", 503, common.StorageUnavailableError),
        ("InternalError", 500, common.StorageUnavailableError),
    ],
)
def test_each_failure_of_s3_has_its_name(s3: FakeS3, code: str, status: int, error: type[Exception]) -> None:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    s3.fail = ClientError(response, "GetObject")
    with pytest.raises(error):
        handler.handler(event(), None)


def test_a_failure_is_not_cached(s3: FakeS3) -> None:
    s3.fail = EndpointConnectionError(endpoint_url="http://s3")
    with pytest.raises(common.StorageUnavailableError):
        handler.handler(event(), None)
    s3.fail = None
    assert handler.handler(event(), None)["body"]["threshold"] == 0.9


def test_without_a_bucket_it_says_so(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUCKET_NAME")
    with pytest.raises(core.ThresholdNotConfiguredError, match="BUCKET_NAME"):
        handler.handler(event(), None)


BAD_SHAPES: list[Any] = [None, [], [1.0], {"0": 1}, ["0.9", "0.1"], [True, False], [0.9, None]]
BAD_TEXTS = ["", "nonsense", "[", "[" * 100_000]
BAD_NUMBERS: list[Any] = [[1.2, -0.2], [float("nan"), 1], [float("inf"), 0], [0.5, 0.4], [0.9, 0.9], [10**400, 0]]


@pytest.mark.parametrize("values", [*BAD_SHAPES, *BAD_TEXTS, *BAD_NUMBERS])
def test_inferences_that_are_no_probabilities_are_malformed(s3: FakeS3, values: Any) -> None:
    with pytest.raises(common.MalformedInferencesError, match=r"k\.png"):
        handler.handler(event(inferences=values), None)


def test_inferences_as_json_text_in_a_body_that_is_json_text_are_read_as_well(s3: FakeS3) -> None:
    inner = event(inferences="[0.99, 0.01]", threshold=0.93)
    body = handler.handler({"statusCode": 200, "body": json.dumps(inner)}, None)["body"]
    assert body["inferences"] == [0.99, 0.01]
    assert body["confidence"] == 0.99


@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=8).map(lambda raw: [value / sum(raw) for value in raw]),
    st.floats(0, 1),
)
def test_it_passes_exactly_when_the_best_probability_reaches_the_threshold(
    values: list[float], threshold: float
) -> None:
    data = event(inferences=values)
    try:
        body = core.decide(data, core.probabilities(data), threshold, 1)["body"]
    except core.THRESHOLD_CONFIDENCE_NOT_MET:
        assert max(values) < threshold
    else:
        assert max(values) >= threshold
        assert values[body["predicted_class_index"]] == body["confidence"] == max(values)
