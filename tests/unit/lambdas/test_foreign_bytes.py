"""Whatever comes from outside ends in an answer or in a named error of ours, never in another exception."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas import common
from lambdas.classify_image import core as classify
from lambdas.filter_inferences import core as filter_
from lambdas.record_result import core as record

NUMBERS = st.one_of(st.integers(), st.just(10**400), st.floats(), st.booleans(), st.none())
JSON: st.SearchStrategy[Any] = st.recursive(
    NUMBERS | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=6,
)
DOCUMENTS = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([1, 900, 60_000]).map(lambda depth: b"[" * depth),
)
FIELDS = ("image_data", "s3_bucket", "s3_key", "threshold", "threshold_version", "inference_id", "inferences", "body")
EVENTS = st.one_of(JSON, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=len(FIELDS)))


@settings(max_examples=40)
@given(DOCUMENTS)
def test_an_answer_is_finite_numbers_or_malformed(answer: bytes) -> None:
    try:
        values = classify.inferences(answer)
    except common.MalformedInferencesError:
        return
    assert values
    assert all(value == value and abs(value) != float("inf") for value in values)


@settings(max_examples=40)
@given(DOCUMENTS)
def test_a_configured_threshold_is_one_or_named(document: bytes) -> None:
    try:
        threshold, _ = filter_.configured_threshold(document, "config")
    except (filter_.ThresholdNotConfiguredError, filter_.InvalidThresholdError):
        return
    assert 0 <= threshold <= 1


@settings(max_examples=40)
@given(EVENTS)
def test_an_event_is_read_or_named(event: Any) -> None:
    try:
        data = common.unwrap(event)
        bucket, key = common.object_location(data)
    except (common.MalformedEventError, common.MissingKeyError, common.InvalidLocationError):
        return
    assert bucket
    assert len(key.encode()) <= 1024


@settings(max_examples=40)
@given(EVENTS)
def test_probabilities_are_some_or_malformed(event: Any) -> None:
    data = event if isinstance(event, dict) else {"inferences": event}
    try:
        values = filter_.probabilities(data)
    except common.MalformedInferencesError:
        return
    assert abs(sum(values) - 1) <= filter_.SUM_TOLERANCE


REASONS = JSON | st.dictionaries(st.sampled_from(("inferences", "threshold")), JSON)


@settings(max_examples=40)
@given(st.text(max_size=40) | REASONS.map(lambda value: json.dumps({"errorMessage": json.dumps(value)})))
def test_a_rejection_leaves_its_record_whatever_its_cause(cause: str) -> None:
    item = {"s3_bucket": "b", "s3_key": "k", "batch_id": "x", "failure": {"Error": record.REJECTED, "Cause": cause}}
    assert record.record({"execution_arn": "arn", "item": item})["outcome"] == "rejected"
