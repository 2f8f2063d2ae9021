"""Parameter ranges: between a hyperparameter's text and a place in the unit interval. Pure.

Source: ParameterRanges in the SageMaker API reference, and the developer guide on hyperparameter scaling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LARGEST_GRID = 10_000
_AUTO_LOGARITHMIC = 1000.0  # a range that spans more than this is searched by its logarithm


@dataclass(frozen=True)
class NumberRange:
    """Numbers from `least` to `most`; `scaling` is Linear, Logarithmic or ReverseLogarithmic."""

    name: str
    least: float
    most: float
    scaling: str
    whole: bool

    def place(self, text: str) -> tuple[float, ...]:
        """Where a value lies in [0, 1], by the scaling."""
        low, high = self._scale(self.least), self._scale(self.most)
        return ((self._scale(float(text)) - low) / (high - low) if high > low else 0.5,)

    def text(self, draw: float) -> str:
        """The value at a place in [0, 1], as a hyperparameter is written."""
        low, high = self._scale(self.least), self._scale(self.most)
        value = min(max(self._unscale(low + draw * (high - low)), self.least), self.most)
        return str(round(value)) if self.whole else repr(value)

    def _scale(self, value: float) -> float:
        if self.scaling == "Logarithmic":
            return math.log(value)
        return -math.log1p(-value) if self.scaling == "ReverseLogarithmic" else value

    def _unscale(self, value: float) -> float:
        if self.scaling == "Logarithmic":
            return math.exp(value)
        return -math.expm1(-value) if self.scaling == "ReverseLogarithmic" else value


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    name: str
    values: tuple[str, ...]

    def place(self, text: str) -> tuple[float, ...]:
        """A corner for each word, all equally far from one another."""
        return tuple(float(value == text) / math.sqrt(2) for value in self.values)

    def text(self, draw: float) -> str:
        """The word at a place in [0, 1]."""
        return self.values[min(int(draw * len(self.values)), len(self.values) - 1)]


Range = NumberRange | Choice


def parse_ranges(document: Mapping[str, Any]) -> tuple[Range, ...]:
    """The ranges of a ParameterRanges.

    Raises:
        ValueError: one is wrong, and the message names it; or there is none, or a hyperparameter has two.
    """
    ranges: list[Range] = []
    for member, whole in (("IntegerParameterRanges", True), ("ContinuousParameterRanges", False)):
        ranges += [_number_range(entry, whole) for entry in document.get(member, ())]
    ranges += [
        Choice(entry["Name"], tuple(entry["Values"])) for entry in document.get("CategoricalParameterRanges", ())
    ]
    names = [one.name for one in ranges]
    if not ranges:
        raise ValueError("at least one hyperparameter range is needed")
    if len(set(names)) < len(names):
        raise ValueError("a hyperparameter has more than one range")
    return tuple(ranges)


def _number_range(entry: Mapping[str, str], whole: bool) -> NumberRange:
    name, scaling = entry["Name"], entry.get("ScalingType", "Auto")
    try:
        least, most = (float(int(entry[m]) if whole else float(entry[m])) for m in ("MinValue", "MaxValue"))
    except (ValueError, OverflowError):
        raise ValueError(f"MinValue and MaxValue of {name} must be {'integers' if whole else 'numbers'}") from None
    if not (math.isfinite(least) and math.isfinite(most) and least <= most):
        raise ValueError(f"MinValue of {name} must not be above its MaxValue")
    if scaling == "Auto":
        scaling = "Logarithmic" if least > 0 and most / least >= _AUTO_LOGARITHMIC else "Linear"
    if scaling == "Logarithmic" and least <= 0:
        raise ValueError(f"Logarithmic scaling needs values above 0, and {name} begins at {entry['MinValue']}")
    if scaling == "ReverseLogarithmic" and (whole or not 0 <= least <= most < 1):
        raise ValueError(f"ReverseLogarithmic scaling is for continuous values from 0 to below 1, not for {name}")
    return NumberRange(name, least, most, scaling, whole)


def grid(ranges: Sequence[Range]) -> list[dict[str, str]]:
    """Every combination.

    Raises:
        ValueError: not all ranges are categorical, as a grid's must be, or they have too many combinations.
    """
    if not all(isinstance(one, Choice) for one in ranges):
        raise ValueError("the Grid strategy takes categorical ranges only")
    choices = [one.values for one in ranges if isinstance(one, Choice)]
    if (size := math.prod(map(len, choices))) > _LARGEST_GRID:
        raise ValueError(f"the grid has {size} combinations, and {_LARGEST_GRID} are taken")
    names = [one.name for one in ranges]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*choices)]
