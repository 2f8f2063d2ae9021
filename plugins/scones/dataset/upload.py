"""Write many objects to S3: in parallel with bounded memory, and only those that are not there already."""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import urllib3
from urllib3.exceptions import HTTPError

from scones.aws.store import ObjectStore

log = logging.getLogger(__name__)
PART_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Written:
    """What an object holds now, whether it was uploaded or found."""

    sha256: str
    bytes: int


class _DirectPut:
    """Sends small objects with a third of the client's work: one presigned URL, one plain HTTP PUT.

    boto3 spends more time on a request than it takes to answer, mostly in its event system and in waiting for
    "100 Continue"; thousands of 2 kB images are then bound by one core. Whatever is not a plain 200 is left to boto3,
    which knows retries, redirects and errors; after some failures in a row this is not tried any more.
    """

    MAX_FAILURES = 3

    def __init__(self, store: ObjectStore, threads: int) -> None:
        self.store, self.failures = store, 0
        timeout = urllib3.Timeout(connect=10, read=60)
        self.pool = urllib3.PoolManager(maxsize=threads, retries=False, timeout=timeout)

    def __call__(self, key: str, body: bytes, content_type: str) -> bool:
        """Whether the object was written."""
        if self.failures >= self.MAX_FAILURES:
            return False
        parameters = {"Bucket": self.store.bucket, "Key": key, "ContentType": content_type}
        url = self.store.client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=600)
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

    ``existing`` (from `ObjectStore.objects`, by key): an object whose ETag is the MD5 of the content is not sent again.
    With KMS encryption ETags are not MD5s; everything is then sent again, which is slower but right.

    Use as a context manager: leaving it waits for everything and raises the first error; an error stops the rest.
    """

    def __init__(
        self, store: ObjectStore, existing: Mapping[str, Mapping[str, Any]] | None = None, threads: int = 8
    ) -> None:
        self.store, self.existing = store, existing or {}
        self.uploaded, self.unchanged = 0, 0
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="upload")
        self._slots = threading.BoundedSemaphore(2 * threads)
        self._failure: BaseException | None = None
        self._direct = _DirectPut(store, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None and self._failure is not None:
            raise self._failure

    def _submit(self, function: Any, *arguments: Any, **named: Any) -> Future[Any]:
        if self._failure is not None:
            raise self._failure
        self._slots.acquire()
        try:
            future: Future[Any] = self._pool.submit(function, *arguments, **named)
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
        written = Written(hashlib.sha256(body).hexdigest(), len(body))
        if self._etag(key) == hashlib.md5(body, usedforsecurity=False).hexdigest():
            self.unchanged += 1
        else:
            self.uploaded += 1
            self._submit(self._put, key, body, content_type)
        return written

    def _put(self, key: str, body: bytes, content_type: str) -> None:
        if not self._direct(key, body, content_type):
            self.store.write(key, body, content_type)

    def _etag(self, key: str) -> str:
        return str(self.existing[key]["ETag"]).strip('"') if key in self.existing else ""

    def put_stream(self, key: str, produce: Callable[[], Iterable[bytes]], content_type: str) -> Written:
        """Write one object of any size from the chunks that ``produce()`` yields, in parts of 8 MiB.

        A failed upload leaves nothing behind. ``produce`` is called twice where a large object exists already: S3 only
        tells the hash over all its parts, so whether it differs is known at the end.
        """
        if "-" in self._etag(key) and (same := self._compare(key, produce())) is not None:
            self.unchanged += 1
            return same
        parts = _parts(produce())
        first, second = next(parts), next(parts, None)
        if second is None:
            return self.put(key, first, content_type)
        s3, where = self.store.client, {"Bucket": self.store.bucket, "Key": key}
        where["UploadId"] = s3.create_multipart_upload(**where, ContentType=content_type)["UploadId"]
        digest, total, futures = hashlib.sha256(), 0, []
        try:
            for number, part in enumerate(itertools.chain([first, second], parts), start=1):
                digest.update(part)
                total += len(part)
                futures.append(self._submit(s3.upload_part, PartNumber=number, Body=part, **where))
            etags = [
                {"PartNumber": number, "ETag": future.result()["ETag"]}
                for number, future in enumerate(futures, start=1)
            ]
            s3.complete_multipart_upload(**where, MultipartUpload={"Parts": etags})
        except BaseException:
            s3.abort_multipart_upload(**where)
            raise
        self.uploaded += 1
        return Written(digest.hexdigest(), total)

    def _compare(self, key: str, chunks: Iterable[bytes]) -> Written | None:
        digest, total, md5s = hashlib.sha256(), 0, []
        for part in _parts(chunks):
            digest.update(part)
            total += len(part)
            md5s.append(hashlib.md5(part, usedforsecurity=False).digest())
        etag = f"{hashlib.md5(b''.join(md5s), usedforsecurity=False).hexdigest()}-{len(md5s)}"
        return Written(digest.hexdigest(), total) if self._etag(key) == etag else None


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
