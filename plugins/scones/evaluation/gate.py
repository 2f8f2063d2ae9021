"""The decision whether a model may go to production, with its reasons in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class GateDecision:
    """``reasons``: one sentence per rule, whether it was met or not; ``summary`` is for the log and the
    announcement.
    """

    passed: bool
    reasons: list[str]
    candidate_accuracy: float
    champion_accuracy: float | None

    @property
    def summary(self) -> str:
        return f"{'Accepted' if self.passed else 'Refused'}: " + "; ".join(self.reasons)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "summary": self.summary}


def _accuracy(document: Mapping[str, Any], who: str) -> float:
    value = document.get("test_accuracy", document.get("accuracy"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"The {who}'s evaluation has no accuracy between 0 and 1 (found {value!r}).")
    return float(value)


def decide(
    candidate: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    *,
    min_accuracy: float,
    max_drop: float,
) -> GateDecision:
    """Whether the candidate passes: accurate enough, and not worse than the champion by more than ``max_drop``.

    :param candidate: its evaluation document (``test_accuracy``).
    :param champion: the champion on the same images (the evaluation's ``champion``: ``accuracy``); None when nothing is
        live yet. One with ``"comparable": False`` (it knows other classes) is named, and not compared.
    :raises ValueError: an accuracy or a limit is missing or outside 0..1.
    """
    for name, limit in (("min_accuracy", min_accuracy), ("max_drop", max_drop)):
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {limit!r}")
    accuracy = _accuracy(candidate, "candidate")
    enough = accuracy >= min_accuracy - 1e-9
    reasons = [f"accuracy {accuracy:.4f} is {'at least' if enough else 'below'} the minimum {min_accuracy:.4f}"]
    if champion is None:
        return GateDecision(enough, [*reasons, "no model is live to compare with"], accuracy, None)
    if champion.get("comparable") is False:
        why = str(champion.get("reason", "it cannot be compared"))
        return GateDecision(enough, [*reasons, f"not compared with the live model: {why}"], accuracy, None)
    live = _accuracy(champion, "champion")
    kept = accuracy >= live - max_drop - 1e-9
    if accuracy >= live:
        reasons.append(f"not worse than the live model ({live:.4f})")
    else:
        verdict = "within" if kept else "more than"
        reasons.append(
            f"{live - accuracy:.4f} worse than the live model ({live:.4f}), {verdict} the allowed {max_drop:.4f}"
        )
    return GateDecision(enough and kept, reasons, accuracy, live)
