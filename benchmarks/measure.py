"""What one benchmark says of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One measured number, its goal, and what was measured beside it in the same run.

    Attributes:
        name: stable name, as in ``make bench ONLY=name``.
        value: the measured number, in ``unit``.
        unit: e.g. ``"x"``, ``"s"``, ``"MB"``, ``"share"``.
        goal: the goal in words, e.g. ``">= 0.9"``.
        holds: whether the value meets the goal.
        beside: the numbers it was measured against, by name.
    """

    name: str
    value: float
    unit: str
    goal: str
    holds: bool
    beside: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
