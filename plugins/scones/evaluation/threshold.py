"""The one confidence threshold: a small versioned document that the filter Lambda, gate, batch and reports all read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

KEY = "config/threshold.json"


class ThresholdError(ValueError):
    """The threshold document or value is not valid. The message says what is."""


@dataclass(frozen=True)
class Threshold:
    """``threshold`` in (0, 1]: highest probability an inference must reach. ``version`` counts up from 1.

    ``training_job``: whose evaluation recommended it; empty where a person or the deployment chose it.
    """

    threshold: float
    version: int
    set_at: str
    set_by: str
    reason: str
    training_job: str = ""

    def dumps(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def check_value(value: Any) -> float:
    """``value`` as a threshold.

    Raises:
        ThresholdError: it is no number in (0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 < value <= 1:
        raise ThresholdError(f"A threshold is a number above 0 and at most 1, not {value!r:.60}.")
    return float(value)


def parse(document: bytes | str | Mapping[str, Any]) -> Threshold:
    """The document, checked field by field.

    Raises:
        ThresholdError: a field is wrong; the message names it.
    """
    if isinstance(document, bytes | str):
        try:
            document = json.loads(document)
        except ValueError as error:
            raise ThresholdError(f"{KEY} is not JSON: {error}. Set the threshold again.") from error
    if not isinstance(document, Mapping):
        raise ThresholdError(f"{KEY} holds a {type(document).__name__}, not an object. Set the threshold again.")
    value = check_value(document.get("threshold"))
    version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ThresholdError(f"{KEY}: version must be a whole number from 1 on, not {version!r:.60}.")
    texts = {name: document.get(name, "") for name in ("set_at", "set_by", "reason", "training_job")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ThresholdError(f"{KEY}: {name} must be text, not {text!r:.60}.")
    return Threshold(value, version, **texts)


@dataclass(frozen=True)
class Why:
    """Who sets a threshold and why; ``training_job`` when a model's evaluation recommends it."""

    set_by: str
    reason: str
    training_job: str = ""


def bump(current: Threshold | None, value: Any, why: Why, now: datetime) -> Threshold:
    """The next version with a new value; ``current`` itself when the value is the same (nothing then changes)."""
    checked = check_value(value)
    if now.tzinfo is None:
        raise ThresholdError("now must know its time zone")
    if current is not None and math.isclose(current.threshold, checked, abs_tol=1e-12):
        return current
    version = current.version + 1 if current else 1
    return Threshold(checked, version, now.isoformat(timespec="seconds"), why.set_by, why.reason, why.training_job)
