"""Where a batch keeps its files: S3 keys below ``batches/<batch_id>/``."""

from __future__ import annotations

ROOT = "batches/"


def folder(batch_id: str) -> str:
    return f"{ROOT}{batch_id}/"


def plan_key(batch_id: str) -> str:
    """The plan: written last, so that a batch with a plan has all its chunks."""
    return f"{folder(batch_id)}plan.json"


def chunk_key(batch_id: str, number: int) -> str:
    return f"{folder(batch_id)}chunks/{number:05d}.jsonl"


def checkpoint_key(batch_id: str, number: int) -> str:
    """Rows of a chunk that is still being followed; gone when its part is written."""
    return f"{folder(batch_id)}checkpoints/{number:05d}.jsonl"


def part_key(batch_id: str, number: int, kind: str = "jsonl") -> str:
    """One part of the results for each chunk, as ``jsonl`` and as ``parquet``."""
    return f"{results_prefix(batch_id)}part-{number:05d}.{kind}"


def results_prefix(batch_id: str) -> str:
    return f"{folder(batch_id)}results/"


def summary_key(batch_id: str) -> str:
    return f"{folder(batch_id)}summary.json"


def report_key(batch_id: str) -> str:
    return f"{folder(batch_id)}report.html"


def rejected_key(batch_id: str) -> str:
    """The reject queue: rejected images with the model's guess, to be labelled."""
    return f"{folder(batch_id)}rejected.csv"


def map_items_prefix(batch_id: str) -> str:
    """What the items of a Distributed Map write."""
    return f"{folder(batch_id)}items/"
