"""One set of values that was tried, and whether to go on with it. Pure.

Source: Golovin et al., "Google Vizier" (2017), for the median stopping rule.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

_LEAST_CURVES = 3  # completed jobs before one is stopped for being worse


@dataclass(frozen=True)
class Trial:
    """Values that were tried. `score` (more is better) is None while it runs or when it gave none.

    `curve` holds the scores in the order they were reported.
    """

    values: dict[str, str]
    score: float | None = None
    curve: tuple[float, ...] = field(default=())
    running: bool = False


def should_stop(trial: Trial, others: Sequence[Trial]) -> bool:
    """The median rule: whether a running trial's best so far is below the median of the others' means until then."""
    length = len(trial.curve)
    means = [statistics.fmean(one.curve[:length]) for one in others if not one.running and len(one.curve) >= length > 1]
    return len(means) >= _LEAST_CURVES and max(trial.curve) < statistics.median(means)
