"""The gate: both ends of each rule, never blind, and reasons a person understands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scones.evaluation.data import Comparison, Decision
from scones.evaluation.gate import Rules, decide

CLASSES = ["bicycle", "motorcycle"]


def live_model(accuracy: Any, classes: list[str] = CLASSES) -> Comparison:
    return {"training_job_name": "old", "classes": classes, "comparable": True, "accuracy": accuracy}


def gate(candidate: Any, champion: Any = None, minimum: Any = 0.85, drop: Any = 0.02) -> Decision:
    live = None if champion is None else live_model(champion)
    return decide({"test_accuracy": candidate, "classes": CLASSES}, live, Rules(minimum, drop))


@pytest.mark.parametrize(
    ("candidate", "champion", "passed", "says"),
    [
        (0.85, None, True, "at least the minimum 0.8500; no other model is live"),
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
    assert decision["passed"] is passed
    assert says in decision["summary"]
    assert decision["summary"].startswith("Accepted: " if passed else "Refused: ")
    assert decision["champion_accuracy"] == champion
    assert len(decision["reasons"]) == 2


BLIND: Comparison = {
    "training_job_name": "old",
    "classes": ["bus", "tank"],
    "comparable": False,
    "reason": "it knows bus, tank; the new model bicycle, motorcycle",
}


@pytest.mark.parametrize(
    ("rules", "passed", "needs_person"),
    [
        (Rules(0.85, 0.0), False, False),
        (Rules(0.85, 0.0, replace_classes=True), True, False),
        (Rules(0.85, 0.0, person_decides=True), True, True),
        (Rules(0.85, 0.0, replace_classes=True, person_decides=True), True, False),
        (Rules(0.95, 0.0, replace_classes=True), False, False),
        (Rules(0.95, 0.0, person_decides=True), False, True),
    ],
)
def test_what_cannot_be_compared_is_refused_unless_somebody_says_so(
    rules: Rules, passed: bool, needs_person: bool
) -> None:
    decision = decide({"test_accuracy": 0.9, "classes": CLASSES}, BLIND, rules)
    assert (decision["passed"], decision["needs_person"]) == (passed, needs_person)
    assert "cannot be compared with the live model: it knows bus, tank" in decision["summary"]


def test_another_order_is_compared_and_told() -> None:
    live = live_model(0.95, CLASSES[::-1])
    assert not decide({"test_accuracy": 0.9, "classes": CLASSES}, live, Rules(0.85, 0.02))["passed"]
    live["accuracy"] = 0.9
    decision = decide({"test_accuracy": 0.9, "classes": CLASSES}, live, Rules(0.85, 0.02))
    assert decision["passed"]
    assert decision["reasons"][-1] == "the order of the classes becomes bicycle, motorcycle"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_better_never_does_worse(candidate: float, champion: float, minimum: float, drop: float) -> None:
    if gate(candidate, champion, minimum, drop)["passed"]:
        assert gate(min(1.0, candidate + 0.01), champion, minimum, drop)["passed"]
        assert gate(candidate, champion, minimum * 0.9, drop)["passed"]
        assert gate(candidate, None, minimum, drop)["passed"]


@pytest.mark.parametrize("value", [None, "0.9", True, float("nan"), 1.2, -0.1])
def test_no_accuracy_is_an_error_not_a_pass(value: Any) -> None:
    with pytest.raises(ValueError, match="candidate's accuracy must be between"):
        gate(value)
    if value is not None:
        with pytest.raises(ValueError, match="live model's accuracy must be between"):
            gate(0.9, value)


@pytest.mark.parametrize("limit", [-0.1, 1.1, True, "0.5", None])
def test_limits_outside_0_to_1_are_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="min_accuracy must be"):
        gate(0.9, minimum=limit)
    with pytest.raises(ValueError, match="max_drop must be"):
        gate(0.9, drop=limit)
