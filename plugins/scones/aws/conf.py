"""What a run was started with, held against the params of its DAG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class UnknownParamError(ValueError):
    """A run was given a name that its DAG does not know, or a number that is none."""


def check_conf(conf: Mapping[str, Any] | None, params: Iterable[str]) -> None:
    """Refuse what would be passed over without a word: a misspelt name leaves the default in force.

    Raises:
        UnknownParamError: names what is wrong, and the nearest right name.
    """
    known = sorted(params)
    for name, value in (conf or {}).items():
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            meant = f"Did you mean {near[0]!r}?" if near else f"The params are {', '.join(known) or 'none'}."
            raise UnknownParamError(f"This DAG has no param {name!r}. {meant}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UnknownParamError(f"The param {name!r} is {value}: give a finite number.")
