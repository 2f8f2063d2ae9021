"""What monitoring keeps in S3, and the capture files there: listing them by hour, and streaming them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from scones.aws import layout
from scones.aws.errors import code_of, is_absent_object
from scones.aws.store import JSON, ObjectStore
from scones.monitoring.capture_files import CaptureFile, hour_prefixes, key_time
from scones.monitoring.index import (
    IndexEntry,
    Mark,
    Place,
    add_entry,
    later_place,
    mark_entry,
    parse_index,
    parse_place,
)
from scones.training.store import TrainingStore

if TYPE_CHECKING:
    from scones.monitoring.document import Report, WrittenReport

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TRIES = 4
_CONNECT_S, _READ_S = 10, 60
_URL_VALID_S = 3600
#: At least one for each thread that reads.
_CONNECTIONS = 16


class MonitoringStore(TrainingStore):
    """Reports, how far they have read, and what they are made from."""

    def entries(self, endpoint: str) -> list[IndexEntry]:
        """Return the index of an endpoint's reports, the newest first."""
        return parse_index(self.read(layout.report_index(endpoint)))

    def add_entry(self, endpoint: str, entry: IndexEntry) -> None:
        """Put a report into the index of its endpoint, where it takes the place of an earlier try."""
        self.update(layout.report_index(endpoint), lambda content: add_entry(content, endpoint, entry), JSON)

    def mark_entry(self, written: WrittenReport, mark: Mark) -> None:
        """Note in a report's entry what followed from it, and when."""
        name, now = written["endpoint_name"], datetime.now(UTC)
        self.update(
            layout.report_index(name),
            lambda content: mark_entry(content, name, written["report_id"], mark, now),
            JSON,
        )

    def place(self, endpoint: str, entries: list[IndexEntry], report_id: str = "") -> Place:
        """Return where a report starts to read: for a report that was written before, where it started then."""
        for entry in entries:
            if entry.report_id == report_id:
                return entry.place_before
        return parse_place(self.read(layout.watermark(endpoint)), entries)

    def advance(self, endpoint: str, reached: Place) -> None:
        """Note how far the reports have read; a place that lies further on stays."""
        self.update(layout.watermark(endpoint), lambda content: later_place(content, reached), JSON)

    def write_report(self, report: Report, name: str, content: str, content_type: str = JSON) -> str:
        """Write a file of a report; return its address."""
        key = layout.report(report["endpoint_name"], report["report_id"], name)
        return self.write(key, content.encode(), content_type, CacheControl="private, no-cache")

    def report(self, written: WrittenReport) -> Report:
        """Return a report that was written.

        Raises:
            FileNotFoundError: somebody deleted it.
        """
        key = layout.report(written["endpoint_name"], written["report_id"], "report.json")
        found: Any = self.read_json(key)
        if found is None:
            raise FileNotFoundError(f"{self.uri(key)} is gone; clear the task write_report to write it again")
        return found

    def ground_truth(self, endpoint: str) -> tuple[str, list[CaptureFile]]:
        """Return where an endpoint's ground truth lies, and its files."""
        prefix = layout.ground_truth(endpoint)
        return prefix, listed(self, prefix)

    def labels(self) -> tuple[bytes | None, bytes | None]:
        """Return the table of accepted labels, and the one that the last training took, or was asked to take."""
        return self.read(layout.ACCEPTED_LABELS), self.read(layout.TAKEN_LABELS)

    def note_taken(self, labels: bytes) -> None:
        """Note the labels for which a training was asked."""
        self.write(layout.TAKEN_LABELS, labels, "text/csv")


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
