"""The project's bucket: reading, listing, and changing what others may change at the same time."""

from __future__ import annotations

import json
import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.config import Config
from botocore.exceptions import ClientError

from scones.aws.errors import code_of, is_absent_object
from scones.aws.resources import AWS_CONN_ID

JSON = "application/json"
# A condition that does not hold; and one that S3 could not look at, as somebody else wrote at that moment.
EXISTS_CODES = frozenset({"PreconditionFailed", "412"})
CONFLICT_CODES = EXISTS_CODES | {"ConditionalRequestConflict", "409"}
UPDATE_TRIES = 20
DELETE_BATCH = 1000  # DeleteObjects takes no more keys at once
log = logging.getLogger(__name__)
T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow.providers.amazon.aws.hooks.s3 import S3Hook


class DamagedDocumentError(ValueError):
    """A stored document cannot be understood; the message names it."""


class UnreadableObjectError(ValueError):
    """An object is there and cannot be read as it is; the message names it and says why."""


class ObjectTooLargeError(UnreadableObjectError):
    """An object is larger than its reader takes."""


class ArchivedObjectError(UnreadableObjectError):
    """An object lies in an archive (S3 Glacier) and must be restored before it can be read."""


class NotDeletedError(ClientError):
    """S3 kept objects that were to be deleted; the code is that of the first refusal, the message names its key."""


class ConflictError(RuntimeError):
    """A document was changed by others at every try."""


class ObjectStore:
    """One bucket, through the Airflow connection, or, where there is no Airflow, a client."""

    def __init__(self, bucket: str, aws_conn_id: str | None = AWS_CONN_ID, client: Any = None) -> None:
        self.bucket = bucket
        self._hook: S3Hook | None = None
        if client is None:
            from airflow.providers.amazon.aws.hooks.s3 import S3Hook

            self._hook = S3Hook(aws_conn_id=aws_conn_id)
        self.client = self._hook.conn if self._hook is not None else client

    def presigning(self) -> tuple[Any, bool | str]:
        """A client whose presigned URLs carry Signature Version 4, and what it verifies TLS certificates with.

        Buckets made since 2020 and objects under KMS refuse the older signature, boto3's default in some regions.
        """
        if self._hook is None:
            return self.client, True
        verify = True if self._hook.verify is None else self._hook.verify
        config = self.client.meta.config.merge(Config(signature_version="s3v4"))
        session = self._hook.get_session(region_name=self.client.meta.region_name)
        url = self.client.meta.endpoint_url
        return session.client("s3", endpoint_url=url, config=config, verify=verify), verify

    def uri(self, key: str) -> str:
        """Return the object's s3:// address."""
        return f"s3://{self.bucket}/{key}"

    # Reading: what is not there is None; what may not be read is an error, never "not there".

    def read(self, key: str, at_most: int | None = None) -> bytes | None:
        """Return an object's bytes, or None when there is none.

        Raises:
            ObjectTooLargeError: it has more than ``at_most`` bytes.
            ArchivedObjectError: it must be restored first.
        """
        answer = self._ask("get_object", key)
        if answer is None:
            return None
        with answer["Body"] as body:
            if at_most is not None and answer["ContentLength"] > at_most:
                raise ObjectTooLargeError(f"{self.uri(key)} has {answer['ContentLength']:,} bytes, over {at_most:,}")
            content: bytes = body.read()
        return content

    def beginning(self, key: str, size: int) -> bytes:
        """Return the first ``size`` bytes of an object, or all if it has fewer; none when there is no such key."""
        answer = self._ask("get_object", key)
        if answer is None:
            return b""
        with answer["Body"] as body:
            content: bytes = body.read(size)
        return content

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object, or None when there is no such key.

        Raises:
            DamagedDocumentError: what is stored is no JSON object.
        """
        body = self.read(key)
        if body is None:
            return None
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise DamagedDocumentError(f"{self.uri(key)} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise DamagedDocumentError(f"{self.uri(key)} holds a {type(document).__name__}, not an object")
        return document

    def read_as(self, key: str, kind: type[T]) -> T | None:
        """Return a JSON object as a dataclass, its types checked; None when there is no such key.

        Raises:
            DamagedDocumentError: what is stored is no such object.
        """
        import msgspec

        document = self.read_json(key)
        try:
            return None if document is None else msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            raise DamagedDocumentError(f"{self.uri(key)}: {error}") from error

    def read_usable(self, key: str, otherwise: str) -> dict[str, Any]:
        """Return a JSON document; an empty one when there is none, or a damaged one, which is logged with what then
        happens ``otherwise``."""
        try:
            return self.read_json(key) or {}
        except DamagedDocumentError as error:
            log.warning("%s: %s", error, otherwise)
            return {}

    def lines(self, key: str) -> Iterator[bytes] | None:
        """Return the lines of an object as they arrive, without their ends, or None when there is no such key."""
        answer = self._ask("get_object", key)
        return None if answer is None else self._lines(answer["Body"])

    def download(self, key: str, path: str) -> bool:
        """Fetch an object of any size into a file; return False when there is none."""
        try:
            self.client.download_file(self.bucket, key, path)
        except ClientError as error:
            if is_absent_object(error):
                return False
            raise
        return True

    def exists(self, key: str) -> bool:
        """Return whether there is such a key."""
        return self.metadata(key) is not None

    def metadata(self, key: str) -> dict[str, str] | None:
        """Return what was noted on an object (``x-amz-meta-...``), or None when there is none."""
        head = self.head(key)
        return None if head is None else head.get("Metadata", {})

    def head(self, key: str) -> dict[str, Any] | None:
        """Return {"ETag", "ContentLength", "LastModified", ...} of an object, or None when there is none."""
        return self._ask("head_object", key)

    def objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield {"Key", "Size", "ETag", "LastModified", ...} under a prefix, over all pages."""
        for page in self._pages(Prefix=prefix):
            yield from page.get("Contents", [])

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the prefixes one level below ``prefix``."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            yield from (common["Prefix"] for common in page.get("CommonPrefixes", []))

    # Writing

    def write(self, key: str, content: bytes, content_type: str, **arguments: Any) -> str:
        """Write an object; return its s3:// address. ``arguments`` go to PutObject."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type, **arguments)
        return self.uri(key)

    def write_new(self, key: str, content: bytes, content_type: str) -> bool:
        """Write an object unless there is one; return whether it was written. Of several writers one succeeds.

        Raises:
            ConflictError: others wrote or deleted it at every try.
        """
        for _ in self._tries(key):
            try:
                self.write(key, content, content_type, IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) in EXISTS_CODES:
                    break
                # At the same moment as somebody else, who may have deleted it: whether it is there is still to be seen.
                if code_of(error) not in CONFLICT_CODES:
                    raise
            else:
                return True
        return False

    def write_json(self, key: str, document: Any) -> str:
        """Write a JSON document; return its s3:// address."""
        return self.write(key, dumps(document), JSON)

    def upload(self, key: str, path: str, content_type: str) -> str:
        """Upload a file of any size; return its s3:// address."""
        self.client.upload_file(path, self.bucket, key, ExtraArgs={"ContentType": content_type})
        return self.uri(key)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, up to 1,000 a call; those that are gone already don't matter.

        Raises:
            NotDeletedError: S3 kept some of them, e.g. under a retention.
        """
        rest = iter(keys)
        while batch := [{"Key": key} for key in islice(rest, DELETE_BATCH)]:
            answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
            if kept := answer.get("Errors"):
                told = f"{len(kept)} of {len(batch)} objects of {self.bucket} were kept, the first is {kept[0]['Key']}"
                raise NotDeletedError({"Error": {"Code": kept[0]["Code"], "Message": told}}, "DeleteObjects")

    def update(self, key: str, change: Callable[[bytes | None], bytes | None], content_type: str) -> None:
        """Change an object so that no concurrent change is lost: the write holds only for what was read.

        Args:
            change: gets the present bytes (None: there is no such object) and returns the new ones, or None to leave
                the object as it is. Called again with what others wrote meanwhile.

        Raises:
            ConflictError: others changed it at every try.
        """
        for _ in self._tries(key):
            answer = self._ask("get_object", key)
            changed = change(None if answer is None else answer["Body"].read())
            if changed is None:
                return
            condition = {"IfNoneMatch": "*"} if answer is None else {"IfMatch": answer["ETag"]}
            try:
                self.write(key, changed, content_type, **condition)
            except ClientError as error:
                # Somebody else was quicker: read theirs and change it again.
                if code_of(error) not in CONFLICT_CODES:
                    raise
            else:
                return

    def _tries(self, key: str) -> Iterator[None]:
        """Let a conditional write be tried again, ever later; raise ConflictError when others always come first."""
        for attempt in range(UPDATE_TRIES):
            yield
            time.sleep(min(1.0, 0.02 * 2**attempt))
        raise ConflictError(f"{self.uri(key)} was changed by others {UPDATE_TRIES} times in a row: try again")

    def _ask(self, operation: str, key: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = getattr(self.client, operation)(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if is_absent_object(error):
                return None
            if code_of(error) == "InvalidObjectState":
                raise ArchivedObjectError(f"{self.uri(key)} is archived: restore it first") from error
            raise
        return answer

    def _pages(self, **arguments: str) -> Iterator[dict[str, Any]]:
        return iter(self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, **arguments))

    @staticmethod
    def _lines(body: Any) -> Iterator[bytes]:
        with body:
            yield from body.iter_lines(chunk_size=1 << 16)


def dumps(document: Any) -> bytes:
    """Return the document as it is stored: JSON with sorted keys."""
    return json.dumps(document, indent=1, sort_keys=True, default=str).encode()
