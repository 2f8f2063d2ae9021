"""The gate: both ends of each rule, and reasons a person understands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scones.evaluation.gate import decide


def gate(candidate: float, champion: float | None = None, minimum: float = 0.85, drop: float = 0.02) -> Any:
    live = None if champion is None else {"accuracy": champion}
    return decide({"test_accuracy": candidate}, live, min_accuracy=minimum, max_drop=drop)


@pytest.mark.parametrize(
    ("candidate", "champion", "passed", "says"),
    [
        (0.85, None, True, "at least the minimum 0.8500; no model is live"),
        (0.8499, None, False, "0.8499 is below the minimum"),
        (0.90, 0.90, True, "not worse than the live model"),
        (0.90, 0.92, True, "0.0200 worse than the live model (0.9200), within the allowed 0.0200"),
        (0.90, 0.9201, False, "more than the allowed 0.0200"),
        (0.80, 0.70, False, "below the minimum 0.8500; not worse than the live model"),
        (0.84, 0.99, False, "below the minimum"),
    ],
)
def test_rules(candidate: float, champion: float | None, passed: bool, says: str) -> None:
    decision = gate(candidate, champion)
    assert decision.passed is passed
    assert says in decision.summary
    assert decision.summary.startswith("Accepted: " if passed else "Refused: ")
    assert decision.champion_accuracy == champion
    assert len(decision.reasons) == 2


def test_a_champion_of_other_classes_is_named_and_not_compared() -> None:
    live = {"comparable": False, "reason": "it knows 5 classes, the candidate 2"}
    decision = decide({"test_accuracy": 0.9}, live, min_accuracy=0.85, max_drop=0.0)
    assert decision.passed
    assert "not compared with the live model: it knows 5 classes" in decision.summary
    assert not decide({"test_accuracy": 0.8}, live, min_accuracy=0.85, max_drop=0.0).passed


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_better_never_does_worse(candidate: float, champion: float, minimum: float, drop: float) -> None:
    if gate(candidate, champion, minimum, drop).passed:
        assert gate(min(1.0, candidate + 0.01), champion, minimum, drop).passed
        assert gate(candidate, champion, minimum * 0.9, drop).passed
        assert gate(candidate, None, minimum, drop).passed


@pytest.mark.parametrize("value", [None, "0.9", True, float("nan"), 1.2, -0.1])
def test_no_accuracy_is_an_error_not_a_pass(value: Any) -> None:
    with pytest.raises(ValueError, match="candidate's evaluation has no accuracy"):
        decide({"test_accuracy": value}, None, min_accuracy=0.5, max_drop=0.1)
    with pytest.raises(ValueError, match="champion's evaluation has no accuracy"):
        decide({"test_accuracy": 0.9}, {"accuracy": value}, min_accuracy=0.5, max_drop=0.1)


@pytest.mark.parametrize("limit", [-0.1, 1.1, True, "0.5", None])
def test_limits_outside_0_to_1_are_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="min_accuracy must be"):
        decide({"test_accuracy": 0.9}, None, min_accuracy=limit, max_drop=0.1)
    with pytest.raises(ValueError, match="max_drop must be"):
        decide({"test_accuracy": 0.9}, None, min_accuracy=0.5, max_drop=limit)
