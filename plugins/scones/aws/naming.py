"""AWS resource names: legal, deterministic, and short enough for the tightest service."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SAGEMAKER_NAME_MAX = 63
TRIAL_NAME_MAX = 120
# Holds the trials of all runs.
EXPERIMENT = "scones-courier"
_ILLEGAL = re.compile(r"[^a-zA-Z0-9]+")


def content_hash(value: Any, length: int = 12) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of ``value`` as canonical JSON (keys sorted)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def sagemaker_name(*parts: str, limit: int = SAGEMAKER_NAME_MAX) -> str:
    """Join ``parts`` into a legal SageMaker name: ``[a-zA-Z0-9](-*[a-zA-Z0-9])*``, at most ``limit`` characters.

    A name too long keeps its head and ends in a hash of the whole, so that two long names stay different.

    Raises:
        ValueError: nothing legal is left of the parts.
    """
    name = "-".join(cleaned for part in parts if (cleaned := _ILLEGAL.sub("-", part).strip("-")))
    if not name:
        raise ValueError(f"No letter or digit in {parts!r} to make a SageMaker name of")
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def trial_name(dag_id: str, run_id: str) -> str:
    """Return the name of the trial that holds a DAG run's jobs."""
    return sagemaker_name("scones", dag_id, run_id, limit=TRIAL_NAME_MAX)
