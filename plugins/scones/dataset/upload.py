"""Write many objects to S3: in parallel with bounded memory, and only those that are not there already."""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)
PART_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Written:
    """What an object holds now, whether it was uploaded or found."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Found:
    """An object that exists: its ETag without quotes, its size in bytes."""

    etag: str
    bytes: int


def list_objects(s3: Any, bucket: str, prefix: str) -> dict[str, Found]:
    """The objects under ``prefix``, by key."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {
        item["Key"]: Found(item["ETag"].strip('"'), item["Size"]) for page in pages for item in page.get("Contents", [])
    }


class _DirectPut:
    """Sends small objects with a third of the client's work: one presigned URL, one plain HTTP PUT.

    boto3 spends more time on a request than it takes to answer, mostly in its event system and in waiting for
    "100 Continue"; thousands of 2 kB images are then bound by one core. Whatever is not a plain 200 is left to boto3,
    which knows retries, redirects and errors; after some failures in a row this is not tried any more.
    """

    MAX_FAILURES = 3

    def __init__(self, s3: Any, bucket: str, threads: int) -> None:
        import urllib3

        self.s3, self.bucket, self.failures = s3, bucket, 0
        timeout = urllib3.Timeout(connect=10, read=60)
        self.pool = urllib3.PoolManager(maxsize=threads, retries=False, timeout=timeout)

    def __call__(self, key: str, body: bytes, content_type: str) -> bool:
        """Whether the object was written."""
        from urllib3.exceptions import HTTPError

        if self.failures >= self.MAX_FAILURES:
            return False
        parameters = {"Bucket": self.bucket, "Key": key, "ContentType": content_type}
        url = self.s3.generate_presigned_url("put_object", Params=parameters, ExpiresIn=600)
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        try:
            answer = self.pool.request(
                "PUT", url, body=body, headers={"Content-Type": content_type, "Content-MD5": md5}
            )
        except HTTPError as error:
            log.debug("A direct upload of %s failed: %s", key, error)
            self.failures += 1
            return False
        self.failures = 0 if answer.status == 200 else self.failures + 1
        return answer.status == 200


class Uploader:
    """Uploads in ``threads`` threads; at most twice as many bodies are held in memory at a time.

    ``existing`` (from `list_objects`): an object whose ETag is the MD5 of the content is not sent again. With
    KMS encryption ETags are not MD5s; everything is then sent again, which is slower but right.

    Use as a context manager: leaving it waits for everything and raises the first error; an error stops the rest.
    """

    def __init__(self, s3: Any, bucket: str, existing: dict[str, Found] | None = None, threads: int = 8) -> None:
        self.s3, self.bucket, self.existing = s3, bucket, existing or {}
        self.uploaded, self.unchanged = 0, 0
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="upload")
        self._slots = threading.BoundedSemaphore(2 * threads)
        self._failure: BaseException | None = None
        self._direct = _DirectPut(s3, bucket, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None and self._failure is not None:
            raise self._failure

    def _submit(self, function: Any, *arguments: Any) -> Future[Any]:
        if self._failure is not None:
            raise self._failure
        self._slots.acquire()
        try:
            future: Future[Any] = self._pool.submit(function, *arguments)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[Any]) -> None:
        self._slots.release()
        if not future.cancelled() and (error := future.exception()) is not None and self._failure is None:
            self._failure = error

    def put(self, key: str, body: bytes, content_type: str) -> Written:
        """Write one object unless the same content is there. Returns at once; the upload may still be on its way."""
        written = Written(key, hashlib.sha256(body).hexdigest(), len(body))
        found = self.existing.get(key)
        if found and found.etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
            self.unchanged += 1
        else:
            self.uploaded += 1
            self._submit(self._put, key, body, content_type)
        return written

    def _put(self, key: str, body: bytes, content_type: str) -> None:
        if not self._direct(key, body, content_type):
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type)

    def put_stream(self, key: str, produce: Callable[[], Iterable[bytes]], content_type: str) -> Written:
        """Write one object of any size from the chunks that ``produce()`` yields, in parts of 8 MiB.

        A failed upload leaves nothing behind. ``produce`` is called twice where a large object exists already: S3 only
        tells the hash over all its parts, so whether it differs is known at the end.
        """
        found = self.existing.get(key)
        if found and "-" in found.etag and (same := self._compare(key, found, produce())) is not None:
            self.unchanged += 1
            return same
        parts = _parts(produce())
        first, second = next(parts), next(parts, None)
        if second is None:
            return self.put(key, first, content_type)
        upload_id = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, ContentType=content_type)["UploadId"]
        digest, total, futures = hashlib.sha256(), 0, []
        try:
            for number, part in enumerate(_chain(first, second, parts), start=1):
                digest.update(part)
                total += len(part)
                futures.append(self._submit(self._put_part, key, upload_id, number, part))
            etags = [{"PartNumber": number, "ETag": future.result()} for number, future in enumerate(futures, start=1)]
            self.s3.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": etags}
            )
        except BaseException:
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
            raise
        self.uploaded += 1
        return Written(key, digest.hexdigest(), total)

    def _compare(self, key: str, found: Found, chunks: Iterable[bytes]) -> Written | None:
        digest, total, md5s = hashlib.sha256(), 0, []
        for part in _parts(chunks):
            digest.update(part)
            total += len(part)
            md5s.append(hashlib.md5(part, usedforsecurity=False).digest())
        etag = f"{hashlib.md5(b''.join(md5s), usedforsecurity=False).hexdigest()}-{len(md5s)}"
        return Written(key, digest.hexdigest(), total) if found.etag == etag else None

    def _put_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        answer = self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body)
        return str(answer["ETag"])


def _chain(first: bytes, second: bytes, rest: Iterable[bytes]) -> Iterable[bytes]:
    yield first
    yield second
    yield from rest


def _parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks joined into parts of exactly `PART_BYTES` (the last one shorter), so that the same content makes the
    same ETag.
    """
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        while size >= PART_BYTES:
            joined = b"".join(held)
            yield joined[:PART_BYTES]
            held = [joined[PART_BYTES:]]
            size -= PART_BYTES
    if size or not held:
        yield b"".join(held)
