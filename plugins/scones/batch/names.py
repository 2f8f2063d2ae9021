"""The name of a batch: the same again for every retry, and legal for any run."""

from __future__ import annotations

import re

from scones.aws.naming import content_hash

# Guards the account's quotas, not the workers. Its size is in pools.json (`airflow pools import` reads it).
BATCH_POOL = "step_functions_batch"
BATCH_ID_MAX = 40
_ILLEGAL = re.compile(r"[^A-Za-z0-9]+")
_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}")


def batch_id_for(dag_id: str, run_id: str) -> str:
    """Return the id of the batch that one DAG run is: a readable head and a hash of the whole, 40 characters at most.

    Depends on the run alone (never on the clock), so that a retried or cleared task finds its own batch again.
    """
    digest = content_hash([dag_id, run_id], 10)
    head = _ILLEGAL.sub("-", run_id).strip("-")[: BATCH_ID_MAX - len(digest) - 1].rstrip("-")
    return f"{head}-{digest}" if head else digest


def check_batch_id(batch_id: str) -> str:
    """Return ``batch_id`` when it can be one.

    Raises:
        ValueError: it holds other characters than letters, digits and hyphens, or more than 40 of them.
    """
    if not _BATCH_ID.fullmatch(batch_id):
        raise ValueError(
            f"{batch_id!r} is not a batch id: letters, digits and hyphens, {BATCH_ID_MAX} at most, as the folder names"
            " under batches/ in the bucket and `batch_id` in a summary.json."
        )
    return batch_id
