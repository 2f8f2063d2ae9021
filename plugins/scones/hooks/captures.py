"""Capture files in S3: listing them by hour, and streaming them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from scones.core.capture import CaptureFile, hour_prefixes, key_time
from scones.hooks.errors import code_of
from scones.hooks.objects import ObjectStore

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TRIES = 4


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

    def fetch(file: CaptureFile) -> Iterator[bytes]:
        offset = 0
        for left in reversed(range(_TRIES)):
            try:
                arguments = {"Range": f"bytes={offset}-"} if offset else {}
                body = store.client.get_object(Bucket=store.bucket, Key=file.key, **arguments)["Body"]
                for chunk in body.iter_chunks(_CHUNK):
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
