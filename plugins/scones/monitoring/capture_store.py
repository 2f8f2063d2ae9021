"""Capture files in S3: listing them by hour, and streaming them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from scones.aws.errors import code_of
from scones.aws.store import ObjectStore
from scones.monitoring.capture_files import CaptureFile, hour_prefixes, key_time

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TRIES = 4
_CONNECT_S, _READ_S = 10, 60
_URL_VALID_S = 3600
#: At least one for each thread that reads.
_CONNECTIONS = 16


def list_captures(store: ObjectStore, prefix: str, since: datetime | None, until: datetime) -> list[CaptureFile]:
    """Capture files of an endpoint whose hour lies in ``[since, until]``, or all when ``since`` is None.

    Only the hours in question are listed, so that a year of captures does not slow the hourly report.
    """
    hours = hour_prefixes(since, until) if since is not None else None
    if hours is None:
        prefixes = [prefix]
    else:
        variants = list(_folders(store, prefix))
        prefixes = [variant + hour for variant in variants for hour in hours]
    files = []
    for one in prefixes:
        for item in store.objects(one):
            at = key_time(item["Key"])
            if at is None or (since is not None and at < since.replace(minute=0, second=0, microsecond=0)):
                continue
            files.append(CaptureFile(item["Key"], item["Size"], item["LastModified"].astimezone(UTC)))
    return sorted(files, key=lambda file: file.key)


def _folders(store: ObjectStore, prefix: str) -> Iterator[str]:
    pages = store.client.get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        for common in page.get("CommonPrefixes", []):
            yield common["Prefix"]


def fetcher(store: ObjectStore) -> Callable[[CaptureFile], Iterator[bytes]]:
    """A function that streams a capture file; a broken connection goes on where it stopped.

    A file that was deleted meanwhile is empty.
    """
    opener = _Opener(store)

    def fetch(file: CaptureFile) -> Iterator[bytes]:
        offset = 0
        for left in reversed(range(_TRIES)):
            try:
                for chunk in opener.open(file.key, offset):
                    offset += len(chunk)
                    yield chunk
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "404"):
                    log.warning("%s was deleted while the report was being written", file.key)
                    return
                if code_of(error) == "InvalidRange":
                    return
                raise
            except (BotoCoreError, HTTPError, OSError) as error:
                if not left:
                    raise
                log.warning("Reading %s broke off at byte %d (%s); going on from there", file.key, offset, error)
            else:
                return

    return fetch


class _Opener:
    """Opens objects by presigned URL, which takes a third of the processor time of boto3's ``get_object``.

    Whatever is not plainly the object is asked for again by ``get_object``, which knows retries, redirects and the
    names of errors; when a presigned URL is refused, no other is tried.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._client, verify = store.presigning()
        self._http = URLLib3Session(
            verify=verify,
            proxies=get_environ_proxies(self._client.meta.endpoint_url),
            timeout=(_CONNECT_S, _READ_S),
            max_pool_connections=_CONNECTIONS,
        )
        self._direct = True

    def open(self, key: str, offset: int) -> Iterator[bytes]:
        """The object's bytes from ``offset`` on, in chunks."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if self._direct:
            url = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._store.bucket, "Key": key}, ExpiresIn=_URL_VALID_S
            )
            response = self._http.send(AWSPreparedRequest("GET", url, headers, None, True))
            if response.status_code == (206 if offset else 200):
                yield from response.raw.stream(_CHUNK)
                return
            response.raw.close()
            if response.status_code in (400, 401, 403):
                log.info("Presigned URLs are refused (%d): reading through boto3", response.status_code)
                self._direct = False
        arguments = {"Range": headers["Range"]} if offset else {}
        yield from self._store.client.get_object(Bucket=self._store.bucket, Key=key, **arguments)["Body"].iter_chunks(
            _CHUNK
        )
