"""Which production variant and which instance answers an invocation. Pure functions over weights and loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

RANDOM = "RANDOM"
LEAST_OUTSTANDING_REQUESTS = "LEAST_OUTSTANDING_REQUESTS"


class Loaded(Protocol):
    """Something that counts the invocations it is busy with."""

    @property
    def outstanding(self) -> int: ...


Instance = TypeVar("Instance", bound=Loaded)


def choose_weighted(weights: Mapping[str, float], draw: float) -> str | None:
    """The name that `draw` (uniform in [0, 1)) falls on, each as likely as its share of all weights.

    None when every weight is zero: then only an invocation that names its variant can be answered.
    """
    total = sum(weights.values())
    if total <= 0:
        return None
    point, last = draw * total, None
    for name, weight in weights.items():
        if weight <= 0:
            continue
        last = name
        if point < weight:
            return name
        point -= weight
    return last  # rounding may leave a crumb past the last weight


def choose_instance(instances: Sequence[Instance], strategy: str, draw: float) -> Instance | None:
    """One of `instances` by a RoutingConfig's strategy; None of none. `draw` is uniform in [0, 1).

    RANDOM, SageMaker's default, takes any; LEAST_OUTSTANDING_REQUESTS any of the least busy.
    """
    if not instances:
        return None
    candidates: Sequence[Instance] = instances
    if strategy == LEAST_OUTSTANDING_REQUESTS:
        least = min(instance.outstanding for instance in instances)
        candidates = [instance for instance in instances if instance.outstanding == least]
    return candidates[int(draw * len(candidates))]
