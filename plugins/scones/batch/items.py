"""One image to score, and the workflow input made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scones.batch.names import inference_id


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a batch.

    Attributes:
        key: its S3 key.
        label: class index, where it is known.
        etag: S3 ETag when it was listed; tells a changed image from one already scored.
        item_id: what makes it one item of the batch; the key, unless a key is sent more than once on purpose.
    """

    key: str
    label: int | None = None
    etag: str | None = None
    item_id: str = ""

    @property
    def identity(self) -> str:
        return self.item_id or self.key

    def to_json(self) -> str:
        record: dict[str, Any] = {"s3_key": self.key}
        if self.label is not None:
            record["label"] = self.label
        if self.etag:
            record["etag"] = self.etag
        if self.item_id:
            record["id"] = self.item_id
        return json.dumps(record, ensure_ascii=True)

    @classmethod
    def from_json(cls, line: str) -> Item:
        record = json.loads(line)
        return cls(record["s3_key"], record.get("label"), record.get("etag"), record.get("id", ""))


def read_items(lines: Iterable[str]) -> Iterator[Item]:
    """Read a chunk file: one JSON object per line, with the field the Distributed Map reads too (``s3_key``)."""
    return (Item.from_json(line) for line in lines if line.strip())


def workflow_input(
    item: Item, *, batch_id: str, bucket: str, threshold: float | None, threshold_version: int | None
) -> str:
    """Return the input of the inference workflow for ``item``; byte for byte the same at every retry.

    The threshold travels along, so that one batch is judged by one threshold even if it is changed meanwhile.
    """
    event: dict[str, Any] = {
        "image_data": "",
        "s3_bucket": bucket,
        "s3_key": item.key,
        "inference_id": inference_id(batch_id, item.identity),
    }
    if threshold is not None:
        event["threshold"] = threshold
    if threshold_version is not None:
        event["threshold_version"] = threshold_version
    return json.dumps(event, ensure_ascii=True, sort_keys=True)
