"""The one threshold: parsed strictly, its version raised only when it changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scones.evaluation.evaluate import follow_rollback, publish_threshold
from scones.evaluation.threshold import Threshold, ThresholdError, Why, bump, check_value, parse
from tests.support.fake_aws import FakeS3, store

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DOCUMENT = {
    "threshold": 0.93,
    "version": 1,
    "set_at": "2026-01-01T00:00:00+00:00",
    "set_by": "deploy",
    "reason": "first",
}


def test_round_trip() -> None:
    parsed = parse(DOCUMENT)
    assert parsed == Threshold(**DOCUMENT)  # type: ignore[arg-type]
    assert parse(parsed.dumps()) == parsed
    assert parse(json.dumps(DOCUMENT)) == parsed
    assert json.loads(parsed.dumps()) == {**DOCUMENT, "training_job": ""}


def test_a_new_value_is_the_next_version() -> None:
    raised = bump(parse(DOCUMENT), 0.9, Why("evaluation", "sweep"), NOW)
    assert raised == Threshold(0.9, 2, "2026-01-02T03:04:05+00:00", "evaluation", "sweep")


def test_the_same_value_changes_nothing() -> None:
    current = parse(DOCUMENT)
    assert bump(current, 0.93, Why("x", "y"), NOW) is current


def test_the_first_one_is_version_1() -> None:
    assert bump(None, 1, Why("x", "y"), NOW).version == 1


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ThresholdError, match="time zone"):
        bump(None, 0.9, Why("x", "y"), datetime(2026, 1, 1))


@pytest.mark.parametrize("value", [0, -0.1, 1.01, float("nan"), float("inf"), True, "0.9", None, [0.9]])
def test_values_that_are_no_threshold(value: Any) -> None:
    with pytest.raises(ThresholdError, match="above 0 and at most 1"):
        check_value(value)
    with pytest.raises(ThresholdError):
        parse({**DOCUMENT, "threshold": value})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        ("[1]", "holds a list"),
        ({**DOCUMENT, "version": 0}, "version must be"),
        ({**DOCUMENT, "version": "2"}, "version must be"),
        ({**DOCUMENT, "version": True}, "version must be"),
        ({**DOCUMENT, "reason": 5}, "reason must be text"),
        ({}, "above 0"),
    ],
)
def test_damaged_documents_are_named(document: Any, message: str) -> None:
    with pytest.raises(ThresholdError, match=message):
        parse(document)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=20))
def test_versions_count_the_changes(steps: list[int]) -> None:
    current: Threshold | None = None
    changes = 0
    for step in steps:
        value = step / 100
        changes += current is None or current.threshold != value
        current = bump(current, value, Why("x", "y"), NOW)
        assert current.version == changes
        assert current.threshold == value


def test_the_threshold_goes_back_with_the_model_it_was_recommended_for() -> None:
    s3 = FakeS3()
    bucket = store(client=s3)
    assert not follow_rollback(bucket, "old", 0.8)  # nothing is in force yet
    publish_threshold(bucket, 0.93, Why("deploy", "first"))
    assert not follow_rollback(bucket, "old", 0.8)  # a person's choice belongs to no model
    publish_threshold(bucket, 0.7, Why("train_and_deploy", "recommended", "new"))
    assert not follow_rollback(bucket, "new", 0.7)
    assert not follow_rollback(bucket, "old", None)
    assert parse(s3.objects["config/threshold.json"]).threshold == 0.7
    assert follow_rollback(bucket, "old", 0.8)
    found = parse(s3.objects["config/threshold.json"])
    assert (found.threshold, found.version, found.training_job) == (0.8, 3, "old")
