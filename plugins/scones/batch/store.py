"""A batch's files in S3: what is listed and read to plan it, and what is written for it. Everything is streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scones.aws import layout
from scones.batch.items import Item
from scones.batch.planning import BatchInputError, Candidate, KeyLedger, mark_scored
from scones.defaults import AWS_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

CURRENT_DATASET_KEY = "datasets/current.json"
THRESHOLD_KEY = "config/threshold.json"


def open_store(bucket: str, aws_conn_id: str | None = AWS_CONN_ID) -> BatchStore:
    """Return the store of the bucket, through Airflow's connection."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    return BatchStore(bucket, AwsBaseHook(aws_conn_id=aws_conn_id, client_type="s3").conn)


class BatchStore:
    """Batches in one bucket.

    Args:
        bucket: its name.
        s3: a boto3 S3 client.
    """

    def __init__(self, bucket: str, s3: Any) -> None:
        self.bucket, self.s3 = bucket, s3

    # Reading

    def lines(self, key: str) -> Iterator[str]:
        """Yield the lines of a text object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        try:
            body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"]
        except self.s3.exceptions.NoSuchKey:
            raise FileNotFoundError(f"s3://{self.bucket}/{key} does not exist") from None
        with body:
            for line in body.iter_lines(chunk_size=1 << 16):
                yield line.decode("utf-8-sig" if line.startswith(b"\xef\xbb\xbf") else "utf-8")

    def read_json(self, key: str) -> Any:
        """Return a JSON object, or None when there is none."""
        try:
            return json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        except self.s3.exceptions.NoSuchKey:
            return None

    def read_bytes(self, key: str, at_most: int) -> bytes | None:
        """Return an object's bytes; None when it is absent or larger than ``at_most``."""
        from botocore.exceptions import ClientError

        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=key)
        except ClientError:
            return None
        with answer["Body"] as body:
            return body.read() if answer["ContentLength"] <= at_most else None

    def listed(self, prefix: str, labels: Mapping[str, int]) -> Iterator[Candidate]:
        """Yield what lies under ``prefix``, page by page, labelled where ``labels`` knows the key."""
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                yield Candidate(Item(key, labels.get(key), entry["ETag"].strip('"')), entry["LastModified"])

    def dataset_manifest(self, version: str | None = None) -> dict[str, Any] | None:
        """Return the manifest of a dataset version, or of the current one; None when there is none."""
        if version is None:
            current = self.read_json(CURRENT_DATASET_KEY)
            return self.read_json(current["manifest_key"]) if current else None
        found: dict[str, Any] | None = self.read_json(f"datasets/{version}/manifest.json")
        return found

    def batch_ids(self) -> Iterator[str]:
        """Yield the ids of all batches."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=layout.BATCHES, Delimiter="/"
        )
        for page in pages:
            for entry in page.get("CommonPrefixes", ()):
                yield entry["Prefix"][len(layout.BATCHES) :].rstrip("/")

    def part_numbers(self, batch_id: str) -> list[int]:
        """Return the numbers of the parts of results that are there."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=layout.results(batch_id))
        names = (entry["Key"].rsplit("/", 1)[1] for page in pages for entry in page.get("Contents", ()))
        return sorted(int(name[5:-6]) for name in names if name.startswith("part-") and name.endswith(".jsonl"))

    def rows(self, batch_id: str, number: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of one part of a batch's results."""
        return (json.loads(line) for line in self.lines(layout.part(batch_id, number)) if line)

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

    def without_answer(self, batch_id: str, outcomes: Iterable[str]) -> Iterator[Candidate]:
        """Yield the images of an earlier batch whose outcome is one of ``outcomes``.

        Raises:
            BatchInputError: that batch has no results.
        """
        numbers = self.part_numbers(batch_id)
        if not numbers:
            raise BatchInputError(
                f"Batch {batch_id!r} has no results in s3://{self.bucket}/{layout.BATCHES}: see `batch_id` in the"
                " summary.json of the batch to run again."
            )
        wanted = set(outcomes)
        for number in numbers:
            for row in self.rows(batch_id, number):
                if row["outcome"] in wanted:
                    yield Candidate(Item(row["key"], row.get("label"), row.get("etag")))

    # Writing

    def write_bytes(self, key: str, content: bytes, content_type: str) -> str:
        """Write a small object; returns its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)
        return self.uri(key)

    def write_text(self, key: str, text: str, content_type: str = "application/json") -> str:
        """Write a small text object; returns its URI."""
        return self.write_bytes(key, text.encode("utf-8"), content_type)

    def write_json(self, key: str, value: Any) -> str:
        """Write a JSON object; returns its URI."""
        return self.write_text(key, json.dumps(value, indent=1, default=str))

    def upload(self, key: str, path: str, content_type: str) -> str:
        """Upload a file of any size; returns its URI."""
        self.s3.upload_file(path, self.bucket, key, ExtraArgs={"ContentType": content_type})
        return self.uri(key)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"
