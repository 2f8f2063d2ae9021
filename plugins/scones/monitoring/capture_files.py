"""Capture files: what their keys say, how they are cut at line ends, and which of them were read already.

A key ends in ``<endpoint>/<variant>/yyyy/mm/dd/HH/MM-SS-mmm-<uuid>.jsonl``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import msgspec

from scones.monitoring.capture import MAX_LINE_BYTES

_KEY = re.compile(
    r"(?P<variant>[^/]+)/(?P<hour>\d{4}/\d\d/\d\d/\d\d)/(?P<minute>\d\d)-(?P<second>\d\d)-(?P<milli>\d{3})-[^/]+\.jsonl$"
)
#: Hours that are listed one by one; of more, everything is listed.
MAX_HOURS = 96
#: Bytes kept of a line that is too long, to quote it.
_KEPT = 320


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """One object under an endpoint's capture prefix, as S3 lists it."""

    key: str
    size: int
    modified: datetime


def key_time(key: str) -> datetime | None:
    """The time a capture file's key states, UTC; None when the key is not one of data capture."""
    match = _KEY.search(key)
    if match is None:
        return None
    stamp = f"{match['hour']}/{match['minute']}/{match['second']}/{match['milli']}000"
    try:
        return datetime.strptime(stamp, "%Y/%m/%d/%H/%M/%S/%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def endpoint_prefix(destination_s3_uri: str, endpoint_name: str) -> tuple[str, str]:
    """Bucket and key prefix under which an endpoint's captures lie.

    Args:
        destination_s3_uri: ``DestinationS3Uri`` of the endpoint's DataCaptureConfig; stray slashes are ignored,
            as a doubled one breaks Model Monitor's own reader.

    Raises:
        ValueError: when it is not an S3 URI.
    """
    match = re.fullmatch(r"s3://([^/]+)/*(.*)", destination_s3_uri.strip())
    if match is None:
        raise ValueError(f"{destination_s3_uri!r} is not an S3 URI such as s3://bucket/capture")
    parts = [part for part in match[2].split("/") if part]
    return match[1], "/".join([*parts, endpoint_name, ""])


def hour_prefixes(since: datetime, until: datetime) -> list[str] | None:
    """``yyyy/mm/dd/HH/`` of every hour that touches ``[since, until]``; None when there are more than `MAX_HOURS`."""
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if (until - hour) / timedelta(hours=1) > MAX_HOURS:
        return None
    prefixes: list[str] = []
    while hour <= until:
        prefixes.append(hour.strftime("%Y/%m/%d/%H/"))
        hour += timedelta(hours=1)
    return prefixes


def split_blocks(chunks: Iterable[bytes], block_bytes: int = 4 << 20) -> Iterator[tuple[int, bytes]]:
    """Cut a stream at line ends into blocks of about ``block_bytes``, each with the number of its first line (from 1).

    A line longer than a block, up to :data:`MAX_LINE_BYTES`, comes whole; of a longer one only the beginning is
    kept, which will not parse. Memory is bounded by the larger of the two.
    """
    pending = bytearray()
    number = 1
    skipping = False
    for chunk in chunks:
        if skipping:
            end = chunk.find(b"\n")
            if end < 0:
                continue
            chunk, skipping = chunk[end:], False  # noqa: PLW2901 - the rest of the chunk
        pending += chunk
        if len(pending) < block_bytes:
            continue
        end = pending.rfind(b"\n") + 1
        if end:
            block = bytes(pending[:end])
            del pending[:end]
            yield number, block
            number += block.count(b"\n")
        elif len(pending) > MAX_LINE_BYTES:
            del pending[_KEPT:]
            skipping = True
    if pending:
        yield number, bytes(pending)


class Watermark(msgspec.Struct, frozen=True):
    """Up to where the captures of an endpoint were read.

    Files are ordered by their arrival (S3's LastModified), so a file that arrives late, with a key of an hour long
    past, is still read. LastModified counts whole seconds, so the keys of the last minute are remembered as well.

    Attributes:
        arrived: LastModified of the newest file read; None before the first report.
        recent: keys read that arrived within a minute before ``arrived``.
    """

    arrived: datetime | None = None
    recent: frozenset[str] = frozenset()

    SLACK: ClassVar[timedelta] = timedelta(minutes=1)

    def select(self, files: Iterable[CaptureFile], until: datetime | None = None) -> list[CaptureFile]:
        """Files not read yet that arrived by ``until``, oldest key first."""
        chosen = [
            file
            for file in files
            if (self.arrived is None or (file.modified > self.arrived - self.SLACK and file.key not in self.recent))
            and (until is None or file.modified <= until)
        ]
        return sorted(chosen, key=lambda file: file.key)

    def advance(self, read: Iterable[CaptureFile]) -> Watermark:
        """The watermark after ``read`` were read as well."""
        files = list(read)
        arrived = max([file.modified for file in files] + ([self.arrived] if self.arrived else []), default=None)
        if arrived is None:
            return self
        recent = {file.key for file in files if file.modified > arrived - self.SLACK}
        if self.arrived is not None and self.arrived > arrived - self.SLACK:
            recent |= self.recent
        return Watermark(arrived, frozenset(recent))
