"""The decision whether a model may go to production, with its reasons in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scones.evaluation.data import Comparison, Decision


@dataclass(frozen=True)
class Rules:
    """What the gate asks of a model.

    Attributes:
        min_accuracy: lowest accepted accuracy on the test images, 0 to 1.
        max_drop: how much lower than the live model's, on the same images, it may be.
        replace_classes: whether a model of other classes may follow the live one.
        person_decides: whether a person is asked afterwards, who may allow what ``replace_classes`` would.
    """

    min_accuracy: float
    max_drop: float
    replace_classes: bool = False
    person_decides: bool = False


def _share(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{what} must be between 0 and 1, not {value!r:.40}")
    return float(value)


def decide(candidate: Mapping[str, Any], champion: Comparison | None, rules: Rules) -> Decision:
    """Whether the candidate passes: accurate enough, of the live model's classes, and not worse than that by too much.

    Args:
        candidate: its evaluation (``test_accuracy``, ``classes``).
        champion: the live model on the same images; None when nothing, or this very model, is live.

    Raises:
        ValueError: an accuracy or a limit is missing or outside 0..1.
    """
    lowest, drop = _share(rules.min_accuracy, "min_accuracy"), _share(rules.max_drop, "max_drop")
    accuracy = _share(candidate.get("test_accuracy"), "The candidate's accuracy")
    enough = accuracy >= lowest - 1e-9
    reasons = [f"accuracy {accuracy:.4f} is {'at least' if enough else 'below'} the minimum {lowest:.4f}"]
    if champion is None:
        return _decision(enough, [*reasons, "no other model is live"], accuracy)
    if not champion["comparable"]:
        blind = f"it cannot be compared with the live model: {champion['reason']}"
        if rules.replace_classes:
            return _decision(enough, [*reasons, f"{blind}; replace_classes allows it"], accuracy)
        if rules.person_decides:
            return _decision(enough, [*reasons, f"{blind}; a person has to allow it"], accuracy, needs_person=True)
        return _decision(False, [*reasons, f"{blind}; set replace_classes or require_approval to allow it"], accuracy)
    live = _share(champion.get("accuracy"), "The live model's accuracy")
    kept = accuracy >= live - drop - 1e-9
    if accuracy >= live:
        reasons.append(f"not worse than the live model ({live:.4f})")
    else:
        verdict = "within" if kept else "more than"
        reasons.append(
            f"{live - accuracy:.4f} worse than the live model ({live:.4f}), {verdict} the allowed {drop:.4f}"
        )
    if champion["classes"] != candidate["classes"]:
        reasons.append(f"the order of the classes becomes {', '.join(candidate['classes'])}")
    return _decision(enough and kept, reasons, accuracy, live)


def _decision(
    passed: bool, reasons: list[str], accuracy: float, live: float | None = None, *, needs_person: bool = False
) -> Decision:
    return {
        "passed": passed,
        "needs_person": needs_person,
        "reasons": reasons,
        "summary": f"{'Accepted' if passed else 'Refused'}: {'; '.join(reasons)}",
        "candidate_accuracy": accuracy,
        "champion_accuracy": live,
    }
