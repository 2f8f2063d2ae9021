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

from scones.aws.errors import code_of, is_absent_object
from scones.aws.store import ObjectStore
from scones.monitoring.capture_files import CaptureFile, hour_prefixes, key_time

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TRIES = 4
_CONNECT_S, _READ_S = 10, 60
_URL_VALID_S = 3600
#: At least one for each thread that reads.
_CONNECTIONS = 16


def listed(store: ObjectStore, prefix: str) -> list[CaptureFile]:
    """The files under a prefix."""
    return [
        CaptureFile(item["Key"], item["Size"], item["LastModified"].astimezone(UTC)) for item in store.objects(prefix)
    ]


def list_captures(store: ObjectStore, prefix: str, since: datetime | None, until: datetime) -> list[CaptureFile]:
    """Capture files of an endpoint whose hour lies in ``[since, until]``, or all when ``since`` is None.

    Only the hours in question are listed, so that a year of captures does not slow the hourly report.
    """
    prefixes, first = [prefix], None
    if since is not None:
        first = since.replace(minute=0, second=0, microsecond=0)
        hours = hour_prefixes(since, until)
        if hours is not None:
            prefixes = [variant + hour for variant in store.folders(prefix) for hour in hours]
    times = [(key_time(file.key), file) for one in prefixes for file in listed(store, one)]
    found = [file for at, file in times if at is not None and (first is None or at >= first)]
    return sorted(found, key=lambda file: file.key)


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
                if is_absent_object(error):
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
