"""Traffic for demonstrations and drills: which image is sent when, drawn from the test images of a dataset."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scones.batch.planning import BatchInputError
from scones.images.transformations import KINDS

IMAGES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: a file of the dataset, and how it is changed before it is sent ("" for not at all)."""

    file: str
    label: int
    drift: str


def request_count(mode: str, images: int, rate_per_second: float, duration_seconds: float) -> int:
    """Return how many requests are sent: ``images`` in a burst, rate times duration in a stream.

    Raises:
        BatchInputError: none, or more than a million.
    """
    count = images if mode == "burst" else round(rate_per_second * duration_seconds)
    if not 1 <= count <= IMAGES_MAX:
        raise BatchInputError(f"That makes {count} requests: set images, or rate and duration, for 1 to {IMAGES_MAX}.")
    return count


def parse_class_mix(text: str, classes: Sequence[str]) -> dict[str, float]:
    """Read ``bicycle=3, motorcycle=1`` as shares of all requests; empty means every class alike.

    Raises:
        BatchInputError: unknown class, or no number that is not negative.
    """
    if not text.strip():
        return {name: 1 / len(classes) for name in classes}
    weights = dict.fromkeys(classes, 0.0)
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if name not in weights or not 0 <= weight < float("inf"):
            raise BatchInputError(
                f"class_mix has {part.strip()!r}: write class=weight, as {classes[0]}=3; the classes are"
                f" {', '.join(classes)}."
            )
        weights[name] = weight
    total = sum(weights.values())
    if total <= 0:
        raise BatchInputError("class_mix gives every class the weight 0.")
    return {name: weight / total for name, weight in weights.items()}


def draw_shots(
    files: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    count: int,
    *,
    class_mix: Mapping[str, float],
    drift: str,
    drifted_share: float,
    seed: int,
) -> list[Shot]:
    """Draw ``count`` requests; the same seed draws the same ones.

    Args:
        files: ``{"key", "label"}`` of the images to draw from.
        drift: one of the kinds of drift, ``mixed`` for all of them in turn, or ``none``.
        drifted_share: share of requests that are changed so.

    Raises:
        BatchInputError: a class with a share has no image.
    """
    by_class: dict[int, list[str]] = {index: [] for index in range(len(classes))}
    for file in files:
        by_class[file["label"]].append(file["key"])
    shares = [class_mix.get(name, 0.0) for name in classes]
    empty = [name for index, name in enumerate(classes) if shares[index] > 0 and not by_class[index]]
    if empty:
        raise BatchInputError(f"The dataset has no test images of {', '.join(empty)}: change class_mix.")
    kinds = KINDS if drift == "mixed" else (drift,)
    rng = random.Random(seed)  # noqa: S311 a draw, no secret
    shots = []
    for _ in range(count):
        label = rng.choices(range(len(classes)), shares)[0]
        changed = drift != "none" and rng.random() < drifted_share
        shots.append(Shot(rng.choice(by_class[label]), label, rng.choice(kinds) if changed else ""))
    return shots
