"""Names of a batch and of its executions: the same again for every retry, and legal for any image key."""

from __future__ import annotations

import hashlib
import re

from scones.aws.naming import content_hash

EXECUTION_NAME_MAX = 80
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


def execution_name(batch_id: str, item_id: str, attempt: int) -> str:
    """Return the Step Functions execution name of one image's attempt: at most 80 of ``[A-Za-z0-9-]``.

    The key is hashed (96 bits): keys may hold spaces, unicode, ``+`` or 1,000 characters, names may not.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, got {attempt}")
    digest = hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{batch_id}-{digest}-{attempt}"


def execution_arn(state_machine_arn: str, name: str) -> str:
    """Return the ARN that a standard execution of that name has, known before it is started."""
    head, separator, machine = state_machine_arn.partition(":stateMachine:")
    if not separator:
        raise ValueError(f"{state_machine_arn!r} is not the ARN of a state machine")
    return f"{head}:execution:{machine.split(':')[0]}:{name}"


def inference_id(batch_id: str, item_id: str) -> str:
    """Return the InferenceId (32 ASCII characters) that joins captured data to a row of results."""
    return hashlib.sha256(f"{batch_id}\n{item_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
