"""The forms of the DAGs that score images: what an Airflow Param is made of, as data."""

from __future__ import annotations

from typing import Any

from scones.defaults import OPEN_SECTION
from scones.images.transformations import KINDS

CHOICE, PACE, DRIFT, LIMITS = (
    "Which of them",
    "How fast",
    "Drift",
    "When the run fails",
)


def field(default: Any, **schema: Any) -> dict[str, Any]:
    """Return the arguments of one Param: its default and its JSON schema."""
    return {"default": default, **schema}


EXECUTION_DEADLINE = field(
    300, type="integer", minimum=1, maximum=31_536_000, title="Execution deadline (s)", section=PACE,
    description="An execution that runs longer is stopped and counts as timed out.",
)  # fmt: skip
CLASSES = field(
    [], type=["null", "array"], items={"type": "string"}, title="Class names", section="A model trained elsewhere",
    description="In label order, for an endpoint whose model was not trained here; else its lineage names them.",
)  # fmt: skip

BATCH = {
    "prefix": field(
        "", type=["null", "string"], title="S3 prefix", section=OPEN_SECTION,
        description="Folder in the project's bucket, as photos/2026-11-20/. Empty: the served model's test images.",
    ),
    "manifest": field(
        "", type=["null", "string"], title="Manifest", section=OPEN_SECTION,
        description="S3 key of a .jsonl or .csv file with the keys to score, instead of a prefix.",
    ),
    "keys": field(
        [], type=["null", "array"], items={"type": "string"}, title="Keys", section=OPEN_SECTION,
        description="S3 keys to score, one per line, instead of a prefix.",
    ),
    "rerun_failed_of": field(
        "", type=["null", "string"], title="Run the failed ones again", section=OPEN_SECTION,
        description="Id of an earlier batch: scores its failed, timed out and aborted images.",
    ),
    "only_new": field(
        False, type="boolean", title="Only new images", section=OPEN_SECTION,
        description="Leave out images that have a row in the results of an earlier batch (unless overwritten since).",
    ),
    "suffixes": field(
        [".png", ".jpg", ".jpeg"], type="array", items={"type": "string"}, title="Suffixes", section=CHOICE,
        description="Only keys that end so, in any case; lists and manifests never reach the classifier.",
    ),
    "modified_after": field(
        "", type=["null", "string"], title="Not older than", section=CHOICE,
        description="ISO date or time; images last modified before it are left out.",
    ),
    "modified_before": field(
        "", type=["null", "string"], title="Older than", section=CHOICE,
        description="ISO date or time; images last modified at or after it are left out.",
    ),
    "sample_size": field(
        0, type="integer", minimum=0, maximum=100_000_000, title="Sample size", section=CHOICE,
        description="Score so many at random; 0: all.",
    ),
    "sample_seed": field(
        0, type="integer", minimum=0, maximum=2**31 - 1, title="Sample seed", section=CHOICE,
        description="The same seed picks the same images.",
    ),
    "classes": CLASSES,
    "fan_out": field(
        "executions", type="string", enum=["executions", "distributed_map", "express"], title="Fan out by",
        section=OPEN_SECTION,
        description="executions, distributed_map or express: see the notes above.",
    ),
    "concurrency": field(
        64, type="integer", minimum=1, maximum=10_000, title="Concurrency", section=PACE,
        description="Executions in flight at most. It adapts below that: throttling lowers it, success raises it.",
    ),
    "starts_per_second": field(
        150, type="number", exclusiveMinimum=0, maximum=10_000, title="Starts per second", section=PACE,
        description="StartExecution calls per second at most; the quota is 150 to 300, by region.",
    ),
    "defer_after_seconds": field(
        10, type="number", minimum=0, maximum=3600, title="Defer after (s)", section=PACE,
        description="A batch of up to 500 images that takes longer is left to the triggerer, and its worker freed.",
    ),
    "chunk_size": field(
        1000, type="integer", minimum=1, maximum=100_000, title="Images per chunk", section=PACE,
        description="Images per mapped task; raised where that would make more than 1000 tasks.",
    ),
    "execution_timeout_seconds": EXECUTION_DEADLINE,
    "threshold": field(
        None, type=["null", "number"], minimum=0, maximum=1, title="Threshold", section=OPEN_SECTION,
        description="Confidence below which an answer is rejected. Empty: the deployed one (config/threshold.json).",
    ),
    "max_failed_share": field(
        0.1, type="number", minimum=0, maximum=1, title="Failures tolerated", section=LIMITS,
        description="The run fails when a larger share of all images failed, timed out or was aborted.",
    ),
    "max_rejected_share": field(
        0.9, type="number", minimum=0, maximum=1, title="Rejections tolerated", section=LIMITS,
        description="The run fails when a larger share of the answers was rejected.",
    ),
}  # fmt: skip

_OF_A_BATCH = (
    "suffixes", "classes", "fan_out", "concurrency", "starts_per_second", "defer_after_seconds", "chunk_size",
    "execution_timeout_seconds", "threshold",
)  # fmt: skip
ARRIVALS = {
    "max_messages": field(
        10_000, type="integer", minimum=1, maximum=100_000, title="Messages per run", section=OPEN_SECTION,
        description="How much a run takes out of the queue at most; what is left starts the next run.",
    ),
    "sweep": field(
        False, type="boolean", title="Sweep", section=OPEN_SECTION,
        description="Look through the whole prefix as well, for images that no message told of.",
    ),
    **{name: BATCH[name] for name in _OF_A_BATCH},
    # A single image is a batch here, and one that is rejected is no failure of anything.
    "max_failed_share": BATCH["max_failed_share"] | {"default": 0.5},
    "max_rejected_share": BATCH["max_rejected_share"] | {"default": 1.0},
}  # fmt: skip

TRAFFIC = {
    "mode": field(
        "burst", type="string", enum=["burst", "stream"], title="Mode", section=OPEN_SECTION,
        description="burst: all at once. stream: at an even rate for a while.",
    ),
    "images": field(
        100, type="integer", minimum=1, maximum=1_000_000, title="Images", section=OPEN_SECTION,
        description="How many requests a burst sends; images repeat when there are fewer.",
    ),
    "class_mix": field(
        "", type=["null", "string"], title="Class mix", section=OPEN_SECTION,
        description="Weights by class, as bicycle=3, motorcycle=1. Empty: every class alike.",
    ),
    "seed": field(
        0, type="integer", minimum=0, maximum=2**31 - 1, title="Seed", section=OPEN_SECTION,
        description="The same seed sends the same images.",
    ),
    "classes": CLASSES,
    "rate_per_second": field(
        2.0, type="number", exclusiveMinimum=0, maximum=300, title="Rate (1/s)", section=PACE,
        description="Requests a second of a stream.",
    ),
    "duration_seconds": field(
        60, type="integer", minimum=1, maximum=604_800, title="Duration (s)", section=PACE,
        description="How long a stream lasts.",
    ),
    "concurrency": field(
        64, type="integer", minimum=1, maximum=1000, title="Concurrency", section=PACE,
        description="Executions in flight at most.",
    ),
    "execution_timeout_seconds": EXECUTION_DEADLINE,
    "drift": field(
        "none", type="string", enum=["none", *KINDS, "mixed"], title="Drift", section=OPEN_SECTION,
        description="How images are changed before they are sent; mixed: each in one of the ways.",
    ),
    "drifted_share": field(
        1.0, type="number", minimum=0, maximum=1, title="Share that drifted", section=DRIFT,
        description="Share of the requests that are changed.",
    ),
    "drift_strength": field(
        0.7, type="number", minimum=0, maximum=1, title="Strength", section=DRIFT,
        description="0 leaves an image as it is, 1 makes it hard to recognise.",
    ),
    "max_failed_share": field(
        1.0, type="number", minimum=0, maximum=1, title="Failures tolerated", section=LIMITS,
        description="The run fails when a larger share of the requests got no answer.",
    ),
    "max_rejected_share": field(
        1.0, type="number", minimum=0, maximum=1, title="Rejections tolerated", section=LIMITS,
        description="The run fails when a larger share of the answers was rejected.",
    ),
}  # fmt: skip
