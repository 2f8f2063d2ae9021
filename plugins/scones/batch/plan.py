"""What a batch scores, and how: its source listed, filtered, sampled, cut into chunks, and frozen as its plan."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any, TypedDict

from scones.batch.inputs import BatchInputError, parse_date
from scones.batch.items import Entry, Threshold
from scones.batch.sources import IMAGE_SUFFIXES, Filters, Source, find_source
from scones.batch.store import BatchStore, KeyLedger, was_scored
from scones.training.served import ServedModel

MAX_CHUNKS = 1000
# A parent execution reads its whole chunk by itself, so its chunks can be larger.
MAP_CHUNK_SIZE = 10_000
SMALL_BATCH = 500
# The stack's output that names the state machine of each way to fan out.
MACHINES = {
    "executions": "StateMachineArn",
    "distributed_map": "DistributedMapStateMachineArn",
    "express": "ExpressStateMachineArn",
}


@dataclass(frozen=True)
class Plan:
    """What a batch scores and how, as `plan.json` keeps it.

    Attributes:
        counts: what became of the entries that were listed.
        warnings: what of them the workflow cannot score, known from the listing already.
        model: what served when the batch was planned.
        threshold: the one that the whole batch is judged by.
        params: the run's params, as given.
    """

    batch_id: str
    created_at: str
    source: str
    fan_out: str
    state_machine_arn: str
    images: int
    chunks: int
    chunk_size: int
    counts: dict[str, int]
    warnings: list[str]
    threshold: Threshold
    model: ServedModel
    params: dict[str, Any]

    @property
    def deadline_s(self) -> float:
        """How long an execution may take."""
        return float(self.params["execution_timeout_seconds"])

    def save(self, store: BatchStore) -> None:
        """Write it: last, so that a batch with a plan has all its chunks."""
        store.write_plan(self.batch_id, asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read the text of plan.json."""
        import msgspec

        return msgspec.convert(json.loads(text), cls)

    @classmethod
    def load(cls, store: BatchStore, batch_id: str) -> Plan | None:
        """Return the plan that a batch has already; None when it has none.

        Raises:
            DamagedDocumentError: it has one that can't be understood.
        """
        return store.plan_as(batch_id, cls)

    def references(self) -> list[ChunkReference]:
        """Return what identifies each chunk, in order: what the mapped tasks get. The images stay in S3."""
        references: list[ChunkReference] = []
        for number in range(self.chunks):
            first, last = number * self.chunk_size + 1, min(self.images, (number + 1) * self.chunk_size)
            # Done in the time that a deferral takes; and alone, so that one process keeps the whole batch's pace.
            small = self.fan_out == "executions" and self.chunks == 1 and self.images <= SMALL_BATCH
            title = f"images {first} to {last}"
            one: ChunkReference = {
                "batch_id": self.batch_id, "number": number, "images": last - first + 1, "title": title, "small": small,
            }  # fmt: skip
            references.append(one)
        return references


class ChunkReference(TypedDict):
    """What a mapped task must know of its chunk."""

    batch_id: str
    number: int
    images: int
    title: str
    small: bool


@dataclass(frozen=True)
class ChunkRequest:
    """What a chunk's follower must know; the rest is in the batch's plan. All of it survives serialisation as JSON."""

    bucket: str
    batch_id: str
    number: int
    concurrency: int
    starts_per_second: float
    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: dict[str, Any] | None = None


def make_plan(
    store: BatchStore,
    batch_id: str,
    params: dict[str, Any],
    resources: Mapping[str, str],
    model: ServedModel,
    source: Source | None = None,
) -> Plan:
    """List, filter, sample and cut the images; write the chunks and, last, the plan. Memory does not grow with them.

    Args:
        source: where the images come from, when the params don't say so.

    Raises:
        BatchInputError: the params contradict each other, or no image is left.
    """
    # Before the listing, which may take long: the model was looked at now.
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    fan_out = params["fan_out"]
    machine = resources.get(MACHINES[fan_out])
    if not machine:
        raise BatchInputError(
            f"The stack has no state machine for fan_out {fan_out!r}: deploy the current template with `make deploy`."
        )
    threshold = find_threshold(store, params["threshold"])
    source = source or find_source(store, params, model)
    filters = Filters(
        tuple(suffix.lower() for suffix in params["suffixes"]) or IMAGE_SUFFIXES,
        parse_date(params["modified_after"], "modified_after"),
        parse_date(params["modified_before"], "modified_before"),
    )
    with ExitStack() as stack:
        skip = stack.enter_context(closing(store.scored_before(batch_id))) if params["only_new"] else None
        file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
        counts, warnings = spool(source.entries, filters, skip, file)
        if not counts["items"] and not counts["already_scored"]:
            raise BatchInputError(source.nothing_left(counts, filters, store))
        file.seek(0)
        images = min(counts["items"], params["sample_size"] or counts["items"])
        sample = sample_lines(file, counts["items"], images, params["sample_seed"])
        wanted = MAP_CHUNK_SIZE if fan_out == "distributed_map" else params["chunk_size"]
        size = chunk_size_for(images, wanted)
        chunks = write_chunks(store, batch_id, sample, size)
    plan = Plan(
        batch_id=batch_id,
        created_at=created_at,
        source=source.name,
        fan_out=fan_out,
        state_machine_arn=machine,
        images=images,
        chunks=chunks,
        chunk_size=size,
        counts={**counts, **source.counts},
        warnings=[*warnings, *source.notes],
        threshold=threshold,
        model=model,
        params=params,
    )
    plan.save(store)
    return plan


def write_chunks(store: BatchStore, batch_id: str, lines: Iterable[str], size: int) -> int:
    """Write the items' lines as chunk files of ``size``; returns how many."""
    number = 0
    for number, chunk in enumerate(cut(lines, size), start=1):
        store.write_chunk(batch_id, number - 1, chunk)
    return number


def find_threshold(store: BatchStore, asked: float | None) -> Threshold:
    """Return the threshold (and its version) that the whole batch is judged by.

    Raises:
        BatchInputError: none was asked for and none is set in the bucket.
    """
    if asked is not None:
        return Threshold(float(asked))
    found, where = store.threshold()
    if not found:
        raise BatchInputError(f"{where} is missing: run `make deploy`, or give the param threshold.")
    return Threshold(float(found["threshold"]), int(found["version"]))


def spool(
    entries: Iterable[Entry], filters: Filters, skip: KeyLedger | None, file: IO[str]
) -> tuple[dict[str, int], list[str]]:
    """Write the items that are wanted to ``file``, one JSON line each, every key once.

    ``skip`` is the ledger of images that have an outcome already.

    Returns:
        Counts (``listed``, ``other_files`` as filtered out, ``repeated``, ``already_scored``, ``items``, and of these
        ``archived`` and ``too_large``), and warnings.

    Raises:
        BatchInputError: an image has two labels.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("listed", "other_files", "repeated", "already_scored", "items"), 0))
    troubled: dict[str, list[str]] = {trouble: [] for trouble in _TROUBLES}
    with closing(KeyLedger()) as seen:
        for entry in entries:
            counts["listed"] += 1
            item, label = entry.item, None if entry.item.label is None else str(entry.item.label)
            if not filters.takes(entry):
                counts["other_files"] += 1
                continue
            first = seen.add("key", item.item_id)
            if label is not None and seen.add("label", item.item_id, label) and not first:
                raise BatchInputError(f"{item.key!r} is there more than once, with different labels: keep one line.")
            if not first:
                counts["repeated"] += 1
            elif skip is not None and was_scored(skip, item):
                counts["already_scored"] += 1
            else:
                counts["items"] += 1
                file.write(item.to_json() + "\n")
                trouble = _trouble(entry)
                if trouble:
                    counts[trouble] += 1
                    troubled[trouble] += [item.key] * (counts[trouble] <= TROUBLED_SHOWN)
    return dict(counts), [
        f"{counts[trouble]} images {_TROUBLES[trouble]}: {', '.join(keys)}" + ", ..." * (counts[trouble] > len(keys))
        for trouble, keys in troubled.items()
        if keys
    ]


TROUBLED_SHOWN = 3
# The largest body InvokeEndpoint takes.
ENDPOINT_BYTES_MAX = 6 * 1024 * 1024
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_TROUBLES = {
    "archived": "lie in an archive (GLACIER, DEEP_ARCHIVE) and cannot be read before they are restored",
    "too_large": "have more than the 6 MiB that the endpoint takes: store smaller ones, as JPEG or with fewer pixels",
}


def _trouble(entry: Entry) -> str | None:
    if entry.storage_class in ARCHIVES:
        return "archived"
    return "too_large" if (entry.size or 0) > ENDPOINT_BYTES_MAX else None


def sample_lines(lines: Iterable[str], total: int, size: int, seed: int) -> Iterator[str]:
    """Pick exactly ``min(size, total)`` lines at random, in order, the same ones for the same seed (0: all of them)."""
    if not 0 < size < total:
        yield from lines
        return
    rng, wanted = random.Random(seed), size  # noqa: S311 a sample, no secret
    for position, line in enumerate(lines):
        if rng.random() * (total - position) < wanted:
            wanted -= 1
            yield line


def chunk_size_for(images: int, wanted: int) -> int:
    """Return the images per chunk: ``wanted``, or more where that would make more than `MAX_CHUNKS` mapped tasks."""
    return max(1, wanted, -(-images // MAX_CHUNKS))


def cut(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut lines into lists of ``size``; the last may be shorter."""
    rest = iter(lines)
    return iter(lambda: list(islice(rest, size)), [])
