"""A batch's files in S3: what is listed and read to plan it, and what is written for it. Everything is streamed."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from botocore.exceptions import ClientError

from scones.aws import layout
from scones.aws.store import T, UnreadableObjectError
from scones.batch.inputs import BatchInputError, open_text, text_lines
from scones.batch.items import Entry, Item, Row
from scones.training.store import TrainingStore


class BatchStore(TrainingStore):
    """Batches in one bucket."""

    def text_lines(self, key: str) -> Iterator[str] | None:
        """Return the lines of a file that people wrote, with their ends; None when there is no such object.

        Raises:
            BatchInputError: while they are read: the file is damaged, or in another encoding.
        """
        answer = self._ask("get_object", key)
        return None if answer is None else text_lines(open_text(answer["Body"], self.uri(key)), self.uri(key))

    def listed(self, prefix: str, labels: Mapping[str, int]) -> Iterator[Entry]:
        """Yield what lies under ``prefix``, page by page, labelled where ``labels`` knows the key."""
        for entry in self.objects(prefix):
            item = Item(entry["Key"], labels.get(entry["Key"]), entry["ETag"].strip('"'))
            yield Entry(item, entry["LastModified"], entry["Size"], entry.get("StorageClass", ""))

    def picture(self, key: str, at_most: int) -> bytes | None:
        """Return an image's bytes for a page; None for nothing to show: gone, forbidden, archived, too large."""
        try:
            return self.read(key, at_most)
        except (ClientError, UnreadableObjectError):
            return None

    def threshold(self) -> tuple[dict[str, Any] | None, str]:
        """Return the threshold in force, and where it is written; (None, ...) when none is."""
        return self.read_json(layout.THRESHOLD), self.uri(layout.THRESHOLD)

    def change_accepted_labels(self, change: Callable[[bytes | None], bytes | None]) -> None:
        """Change the table of accepted labels; see `ObjectStore.update`."""
        self.update(layout.ACCEPTED_LABELS, change, "text/csv")

    def batch_ids(self) -> Iterator[str]:
        """Yield the ids of all batches."""
        return (prefix[len(layout.BATCHES) :].rstrip("/") for prefix in self.folders(layout.BATCHES))

    # A batch: its plan, its chunks, how far it is, what came of it

    def plan(self, batch_id: str) -> dict[str, Any] | None:
        """Return plan.json; None when the batch has no plan."""
        return self.read_json(layout.plan(batch_id))

    def plan_as(self, batch_id: str, kind: type[T]) -> T | None:
        """Return plan.json as a dataclass; None when the batch has no plan.

        Raises:
            DamagedDocumentError: it has one that can't be understood.
        """
        return self.read_as(layout.plan(batch_id), kind)

    def write_plan(self, batch_id: str, plan: Mapping[str, Any]) -> None:
        """Write plan.json."""
        self.write_json(layout.plan(batch_id), plan)

    def write_chunk(self, batch_id: str, number: int, lines: Iterable[str]) -> None:
        """Write the items of a chunk."""
        self.write(layout.chunk(batch_id, number), "".join(lines).encode("ascii"), "application/x-ndjson")

    def arrivals(self, batch_id: str) -> dict[str, Any] | None:
        """Return what the batch took from the queue of arrivals; None when it took nothing yet."""
        return self.read_json(layout.arrivals(batch_id))

    def write_arrivals(self, batch_id: str, taken: Mapping[str, Any]) -> None:
        """Write down what the batch took from the queue."""
        self.write_json(layout.arrivals(batch_id), taken)

    def claim(self, batch_id: str, mark: str) -> bool:
        """Say that what a mark stands for is this batch's; False when it is another's. The same again for a retry."""
        place, name = layout.claim(mark), batch_id.encode()
        return self.write_new(place, name, "text/plain") or self.read(place) == name

    def progress_keys(self, batch_id: str) -> list[str]:
        """Return the keys of what the chunks noted of how far they are."""
        return [entry["Key"] for entry in self.objects(layout.progress(batch_id))]

    def map_records(self, batch_id: str) -> int:
        """Return how many items of a Distributed Map have left their record."""
        return sum(1 for _ in self.objects(layout.map_items(batch_id)))

    def write_parquet(self, batch_id: str, number: int, content: bytes) -> None:
        """Write a part of the results as Parquet."""
        self.write(layout.part(batch_id, number, "parquet"), content, "application/vnd.apache.parquet")

    def upload_rejected(self, batch_id: str, path: str) -> str:
        """Upload the list of rejected images; return its address."""
        return self.upload(layout.rejected(batch_id), path, "text/csv")

    def uris(self, batch_id: str) -> dict[str, str]:
        """Return where the summary, the report and the results are."""
        return {
            "summary_uri": self.uri(layout.summary(batch_id)),
            "report_uri": self.uri(layout.batch_report(batch_id)),
            "results_uri": self.uri(layout.results(batch_id)),
        }

    def write_report(self, batch_id: str, page: str) -> None:
        """Write the batch's page."""
        self.write(layout.batch_report(batch_id), page.encode(), "text/html; charset=utf-8")

    def write_summary(self, batch_id: str, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        self.write_json(layout.summary(batch_id), summary)

    def summary(self, batch_id: str) -> dict[str, Any] | None:
        """Return summary.json; None when the batch has not been collected."""
        return self.read_json(layout.summary(batch_id))

    def part_numbers(self, batch_id: str) -> list[int]:
        """Return the numbers of the parts of results that are there."""
        names = (entry["Key"].rsplit("/", 1)[1] for entry in self.objects(layout.results(batch_id)))
        return sorted(int(name[5:-6]) for name in names if name.startswith("part-") and name.endswith(".jsonl"))

    def rows(self, batch_id: str, number: int) -> Iterator[Row]:
        """Yield the rows of one part of a batch's results.

        Raises:
            FileNotFoundError: there is no such part.
        """
        lines = self.lines(layout.part(batch_id, number))
        if lines is None:
            raise FileNotFoundError(f"{self.uri(layout.part(batch_id, number))} does not exist")
        return (cast("Row", json.loads(line)) for line in lines if line)

    def scored_before(self, not_in: str) -> KeyLedger:
        """Return the ledger of images with a row in the results of any batch but ``not_in``; see ``mark_scored``."""
        ledger = KeyLedger()
        for batch_id in self.batch_ids():
            if batch_id == not_in:
                continue
            for number in self.part_numbers(batch_id):
                for row in self.rows(batch_id, number):
                    mark_scored(ledger, row["key"], row.get("etag"))
        return ledger

    def rows_with(self, batch_id: str, outcomes: Iterable[str]) -> Iterator[Row]:
        """Yield the rows of an earlier batch whose outcome is one of ``outcomes``.

        Raises:
            BatchInputError: that batch has no results.
        """
        numbers = self.part_numbers(batch_id)
        if not numbers:
            raise BatchInputError(
                f"Batch {batch_id!r} has no results in {self.uri(layout.BATCHES)}: see `batch_id` in the"
                " summary.json of the batch to run again."
            )
        wanted = set(outcomes)
        return (row for number in numbers for row in self.rows(batch_id, number) if row["outcome"] in wanted)


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
