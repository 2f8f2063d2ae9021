"""How far a batch is while it runs: what each chunk's follower notes every ten seconds, joined for a page."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from scones.aws.store import DamagedDocumentError
from scones.batch.items import OUTCOMES, WITHOUT_ANSWER, Row
from scones.batch.plan import Plan
from scones.batch.store import BatchStore

log = logging.getLogger(__name__)
FAILURES_SHOWN = 5
_READERS = 8


@dataclass(frozen=True)
class ChunkProgress:
    """What came of a chunk's images so far. ``failures`` are the last without an answer: (key, error)."""

    outcomes: dict[str, int] = field(default_factory=dict)
    failures: list[list[str]] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """Count the rows that are there."""
        found = list(rows)
        failed = [row for row in found if row["outcome"] in WITHOUT_ANSWER]
        last = [[row["key"], row["error"] or row["outcome"]] for row in failed[-FAILURES_SHOWN:]]
        return cls(dict(Counter(row["outcome"] for row in found)), last)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class LiveBatch:
    """A batch under way. ``outcomes`` are unknown (empty) of a Distributed Map: its records are counted, not read."""

    batch_id: str
    fan_out: str
    images: int
    done: int
    outcomes: dict[str, int]
    failures: list[list[str]]
    images_per_second: float | None
    expected_end: str | None


def live(plan: Plan, chunks: Sequence[ChunkProgress], records: int, now: datetime) -> LiveBatch:
    """Join what the chunks noted.

    Args:
        records: how many items of a Distributed Map have left their record.
    """
    outcomes: Counter[str] = Counter()
    for chunk in chunks:
        outcomes.update(chunk.outcomes)
    images, done = plan.images, max(outcomes.total(), records)
    seconds = now.timestamp() - datetime.fromisoformat(plan.created_at).timestamp()
    rate = done / seconds if done and seconds > 0 else None
    end = (now + timedelta(seconds=(images - done) / rate)).isoformat(timespec="seconds") if rate else None
    failures = [failure for chunk in chunks for failure in chunk.failures][-FAILURES_SHOWN:]
    named = {outcome: outcomes[outcome] for outcome in OUTCOMES if outcomes[outcome]}
    return LiveBatch(plan.batch_id, plan.fan_out, images, done, named, failures, rate, end)


def read_live(store: BatchStore, batch_id: str) -> LiveBatch | None:
    """Return how far a batch is; None when it has no plan, or one that can't be understood."""
    try:
        plan = Plan.load(store, batch_id)
    except DamagedDocumentError as error:
        log.warning("What %s has done so far is not shown: %s", batch_id, error)
        return None
    if plan is None:
        return None

    def read(key: str) -> ChunkProgress:
        try:
            return ChunkProgress(**(store.read_json(key) or {}))
        except (DamagedDocumentError, TypeError):
            return ChunkProgress()  # it costs its own chunk, never the page

    with ThreadPoolExecutor(_READERS) as pool:
        chunks = list(pool.map(read, store.progress_keys(batch_id)))
    records = store.map_records(batch_id) if plan.fan_out == "distributed_map" else 0
    return live(plan, chunks, records, datetime.now(UTC))
