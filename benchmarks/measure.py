"""What one benchmark says of itself, and where benchmarks find the real images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Not in the repository, and not on every machine.
SHARED_ARCHIVE = (
    Path(os.environ.get("SCONES_SHARED_DATA") or ROOT.parent / "shared" / "data") / "cifar-100-python.tar.gz"
)


@dataclass(frozen=True)
class Measurement:
    """One measured number, its goal, and what was measured beside it in the same run.

    Attributes:
        name: stable name, in ``.run/bench.json`` too; a benchmark of several has the first for ``make bench ONLY=``.
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
