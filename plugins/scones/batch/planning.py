"""Which images a batch scores: filters, sampling and cutting into chunks, with memory that does not grow with them."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from scones.batch.items import Item

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_CHUNKS = 1000
KEY_BYTES_MAX = 1024


class BatchInputError(ValueError):
    """The input of a batch cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may become an item. ``modified`` is its LastModified, known when it was listed."""

    item: Item
    modified: datetime | None = None


def folder_prefix(prefix: str, bucket: str) -> str:
    """Return ``prefix`` as a folder of the bucket: no leading slash, one at the end.

    Without the end, ``test`` would also list ``test.lst`` and ``test-old/``. ``s3://<bucket>/...`` is taken too.

    Raises:
        BatchInputError: the URI names another bucket, or nothing is left of the prefix.
    """
    text = prefix.strip()
    if text.startswith("s3://"):
        other, _, text = text[5:].partition("/")
        if other != bucket:
            raise BatchInputError(
                f"The prefix is in bucket {other!r}; the workflow reads only {bucket!r}: copy the images there first."
            )
    text = text.strip("/")
    if not text:
        raise BatchInputError(
            "The prefix is the whole bucket. Name the folder with the images, as `photos/2026-11-20/`."
        )
    return text + "/"


def parse_date(text: str | None, name: str) -> datetime | None:
    """Read an ISO date or time of the form; empty is None, no zone is UTC.

    Raises:
        BatchInputError: it is no date.
    """
    if not text or not text.strip():
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BatchInputError(
            f"{name} is {text!r}: give an ISO date or time, as 2026-11-20 or 2026-11-20T08:00+01:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Filters:
    """Which candidates are taken: by suffix (any case) and by ``after <= LastModified < before``."""

    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    modified_after: datetime | None = None
    modified_before: datetime | None = None

    def takes(self, candidate: Candidate) -> bool:
        """Whether the candidate is wanted.

        Raises:
            BatchInputError: a date filter is set and the candidate has no date.
        """
        if not candidate.item.key.lower().endswith(self.suffixes):
            return False
        if self.modified_after is None and self.modified_before is None:
            return True
        if candidate.modified is None:
            raise BatchInputError(
                f"The date filters need a date and {candidate.item.key!r} has none: give the manifest a last_modified"
                " column, or list a prefix."
            )
        if self.modified_after is not None and candidate.modified < self.modified_after:
            return False
        return self.modified_before is None or candidate.modified < self.modified_before


def parse_manifest(lines: Iterable[str], name: str, classes: tuple[str, ...] = ()) -> Iterator[Candidate]:
    """Read a manifest of keys: JSONL (objects with ``key``, or plain strings) or CSV with a header that has ``key``.

    Optional fields: ``label`` (class index or name), ``etag``, ``last_modified`` (ISO).

    Raises:
        BatchInputError: a line cannot be read; names the manifest and the line.
    """
    if name.lower().endswith(".csv"):
        reader = csv.DictReader(lines)
        if "key" not in (reader.fieldnames or []):
            raise BatchInputError(f"{name} has no column named key: its header is {reader.fieldnames}.")
        for row in reader:
            yield candidate_of(row, f"{name} line {reader.line_num}", classes)
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise BatchInputError(f"{name} line {number} is not JSON: {line.strip()[:80]!r}") from None
        yield candidate_of({"key": record} if isinstance(record, str) else record, f"{name} line {number}", classes)


def candidate_of(record: Any, where: str, classes: tuple[str, ...]) -> Candidate:
    key = record.get("key") if isinstance(record, Mapping) else None
    if not isinstance(key, str) or not key:
        raise BatchInputError(f"{where} has no key: {record!r}")
    if len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES_MAX:
        raise BatchInputError(f"{where}: the key is longer than the {KEY_BYTES_MAX} bytes S3 allows: {key[:60]!r}...")
    modified = parse_date(str(record.get("last_modified") or ""), f"{where}: last_modified")
    label = parse_label(record.get("label"), where, classes)
    return Candidate(Item(key, label, record.get("etag") or None), modified)


def parse_label(value: Any, where: str, classes: tuple[str, ...]) -> int | None:
    """Return a class index given as one or as a class name; None and empty are no label."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    try:
        index = int(value)
    except (TypeError, ValueError):
        raise BatchInputError(
            f"{where}: label {value!r} is neither a class index nor a class ({', '.join(classes) or 'none known'})."
        ) from None
    if index < 0 or (classes and index >= len(classes)):
        raise BatchInputError(f"{where}: label {index} is not an index of the {len(classes)} classes.")
    return index


class KeyLedger:
    """A set of strings that stays out of memory: 16-byte digests in a private temporary SQLite file."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("")
        self._base.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, *parts: str | None) -> bool:
        """Note the parts as one entry; False when they were noted before."""
        cursor = self._base.execute("INSERT OR IGNORE INTO seen VALUES (?)", (_digest(parts),))
        return cursor.rowcount == 1

    def __contains__(self, parts: tuple[str | None, ...]) -> bool:
        return self._base.execute("SELECT 1 FROM seen WHERE digest = ?", (_digest(parts),)).fetchone() is not None

    def close(self) -> None:
        self._base.close()


def _digest(parts: Iterable[str | None]) -> bytes:
    text = "\0".join(part or "" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


_ANY_ETAG = "*"


def mark_scored(ledger: KeyLedger, key: str, etag: str | None) -> None:
    """Note an image as scored, in the version that ``etag`` tells (any version, when it is unknown)."""
    ledger.add(key, None)
    ledger.add(key, etag or _ANY_ETAG)


def was_scored(ledger: KeyLedger, item: Item) -> bool:
    """Whether an image was scored; one that was overwritten since is a new image."""
    return (item.key, item.etag) in ledger or (item.key, _ANY_ETAG) in ledger


def spool(candidates: Iterable[Candidate], filters: Filters, skip: KeyLedger | None, file: IO[str]) -> dict[str, int]:
    """Write the items that are wanted to ``file``, one JSON line each, every key once.

    ``skip`` is the ledger of images that have an outcome already.

    Returns:
        Counts: ``listed``, ``other_files`` (filtered out), ``repeated``, ``already_scored``, ``items``.
    """
    counts = dict.fromkeys(("listed", "other_files", "repeated", "already_scored", "items"), 0)
    seen = KeyLedger()
    try:
        for candidate in candidates:
            counts["listed"] += 1
            item = candidate.item
            if not filters.takes(candidate):
                counts["other_files"] += 1
            elif not seen.add(item.identity):
                counts["repeated"] += 1
            elif skip is not None and was_scored(skip, item):
                counts["already_scored"] += 1
            else:
                counts["items"] += 1
                file.write(item.to_json() + "\n")
    finally:
        seen.close()
    return counts


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


def chunk_size_for(images: int, wanted: int, max_chunks: int = MAX_CHUNKS) -> int:
    """Return the images per chunk: ``wanted``, or more where that would make more than ``max_chunks`` mapped tasks."""
    return max(1, wanted, -(-images // max_chunks))


def cut(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut lines into lists of ``size``; the last may be shorter."""
    chunk: list[str] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
