"""Data capture as SageMaker writes it: keys, lines and their payloads.

A capture file holds one JSON object per line, any number of lines; its key ends in
``<endpoint>/<variant>/yyyy/mm/dd/HH/MM-SS-mmm-<uuid>.jsonl``. Payloads come with encoding ``JSON``, ``CSV`` or
``BASE64``; SageMaker chooses base64 whenever the content type is not listed in ``CaptureContentTypeHeader``.
Source: "Capture data from real-time endpoint" in the SageMaker developer guide, and captures made by AWS.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec

#: A line longer than this is not parsed: an endpoint's payload is at most 6 MB, twice that with base64 and quotes.
MAX_LINE_BYTES = 32 << 20
#: Characters of a malformed line that are quoted.
_QUOTED = 160
_KEY = re.compile(
    r"(?P<variant>[^/]+)/(?P<hour>\d{4}/\d\d/\d\d/\d\d)/(?P<minute>\d\d)-(?P<second>\d\d)-(?P<milli>\d{3})-[^/]+\.jsonl$"
)


class MalformedCaptureError(ValueError):
    """A line, or the payload of a line, is not what data capture writes."""


class _Payload(msgspec.Struct, frozen=True):
    data: str
    encoding: str = "BASE64"
    observedContentType: str | None = None


class _Data(msgspec.Struct, frozen=True):
    endpointInput: _Payload | None = None
    endpointOutput: _Payload | None = None


class _Metadata(msgspec.Struct, frozen=True):
    inferenceTime: str
    eventId: str = ""
    inferenceId: str | None = None
    customAttributes: str | list[str] | None = None


class _Line(msgspec.Struct, frozen=True):
    captureData: _Data
    eventMetadata: _Metadata


_DECODE_LINE = msgspec.json.Decoder(_Line).decode
_DECODE_JSON = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class CaptureRecord:
    """One captured invocation. Payloads stay encoded until asked for.

    Attributes:
        event_id: id SageMaker gave the event.
        inference_time: seconds since the epoch, UTC.
        inference_id: what the caller sent as InferenceId, or None.
        custom_attributes: what the caller sent as CustomAttributes; empty when nothing.
    """

    event_id: str
    inference_time: float
    inference_id: str | None
    custom_attributes: str
    _data: _Data

    @property
    def has_input(self) -> bool:
        """Whether the input was captured (CaptureMode ``Input``)."""
        return self._data.endpointInput is not None

    @property
    def has_output(self) -> bool:
        """Whether the output was captured (CaptureMode ``Output``)."""
        return self._data.endpointOutput is not None

    @property
    def input_content_type(self) -> str:
        """Content type of the request, lower case without parameters; empty when it is not known."""
        return _content_type(self._data.endpointInput)

    def input_bytes(self) -> bytes:
        """The body of the request.

        :raises MalformedCaptureError: when it was not captured, or its encoding is wrong.
        """
        return _payload_bytes(self._data.endpointInput, "endpointInput")

    def probabilities(self) -> list[float]:
        """The class probabilities the endpoint answered, one per class.

        :raises MalformedCaptureError: when the output was not captured or holds no probabilities.
        """
        payload = self._data.endpointOutput
        body = _payload_bytes(payload, "endpointOutput")
        # Only BASE64 hides which of the two forms the body has; the content type, or else the body itself, tells.
        is_csv = payload is not None and (payload.encoding == "CSV" or _content_type(payload) == "text/csv")
        return parse_csv_probabilities(body) if is_csv else parse_json_probabilities(body)


def parse_line(line: bytes) -> CaptureRecord:
    """Parse one line of a capture file.

    :raises MalformedCaptureError: when the line is not a capture record; says why and quotes the line's beginning.
    """
    if len(line) > MAX_LINE_BYTES:
        raise MalformedCaptureError(f"line of {len(line)} bytes is longer than any capture record: {quote(line)}")
    try:
        parsed = _DECODE_LINE(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedCaptureError(f"{error}: {quote(line)}") from error
    meta = parsed.eventMetadata
    try:
        time = datetime.fromisoformat(meta.inferenceTime)
        seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise MalformedCaptureError(
            f"inferenceTime {meta.inferenceTime[:40]!r} is not an ISO 8601 time: {quote(line)}"
        ) from error
    custom = meta.customAttributes
    attributes = custom if isinstance(custom, str) else ", ".join(custom or ())
    return CaptureRecord(meta.eventId, seconds, meta.inferenceId, attributes, parsed.captureData)


def quote(line: bytes) -> str:
    """The beginning of a line as printable text, for messages."""
    text = line[:_QUOTED].decode("utf-8", "backslashreplace")
    printable = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return printable + ("..." if len(line) > _QUOTED else "")


def _content_type(payload: _Payload | None) -> str:
    if payload is None or not payload.observedContentType:
        return ""
    return payload.observedContentType.partition(";")[0].strip().lower()


def _payload_bytes(payload: _Payload | None, side: str) -> bytes:
    if payload is None:
        raise MalformedCaptureError(f"{side} was not captured; capture both Input and Output")
    if payload.encoding == "BASE64":
        try:
            return binascii.a2b_base64(payload.data)
        except (binascii.Error, ValueError) as error:
            raise MalformedCaptureError(f"{side} is not base64: {error}") from error
    if payload.encoding in ("JSON", "CSV"):
        return payload.data.encode("utf-8", "surrogatepass")
    raise MalformedCaptureError(f"{side} has the unknown encoding {payload.encoding[:40]!r}")


def parse_json_probabilities(body: bytes) -> list[float]:
    """Read ``[p0, p1]``, ``{"prediction": [p0, p1]}`` or ``[[p0, p1]]``.

    :raises MalformedCaptureError: on anything else.
    """
    try:
        value = _DECODE_JSON(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"{" not in body and b"[" not in body:
            return parse_csv_probabilities(body)
        raise MalformedCaptureError(f"output is not JSON ({error}): {quote(body)}") from error
    if isinstance(value, dict):
        value = value.get("prediction", value.get("predictions"))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return _checked(value, body)


def parse_csv_probabilities(body: bytes) -> list[float]:
    """Read ``p0,p1``, with or without brackets and quotes.

    :raises MalformedCaptureError: on anything else.
    """
    try:
        value = [float(part) for part in body.decode("ascii").strip().strip('[]"').split(",")]
    except ValueError as error:
        raise MalformedCaptureError(f"output is not a line of numbers: {quote(body)}") from error
    return _checked(value, body)


def _checked(value: Any, body: bytes) -> list[float]:
    if not isinstance(value, list) or len(value) < 2:
        raise MalformedCaptureError(f"output is not a list of two or more probabilities: {quote(body)}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise MalformedCaptureError(f"output holds something that is not a number: {quote(body)}")
        if not -1e-6 <= number <= 1 + 1e-6:
            raise MalformedCaptureError(f"output holds {number:g}, which is not a probability: {quote(body)}")
    return [float(number) for number in value]


# ---- keys and files


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

    :param destination_s3_uri: ``DestinationS3Uri`` of the endpoint's DataCaptureConfig; stray slashes are ignored,
        as a doubled one breaks Model Monitor's own reader.
    :raises ValueError: when it is not an S3 URI.
    """
    match = re.fullmatch(r"s3://([^/]+)/*(.*)", destination_s3_uri.strip())
    if match is None:
        raise ValueError(f"{destination_s3_uri!r} is not an S3 URI such as s3://bucket/capture")
    parts = [part for part in match[2].split("/") if part]
    return match[1], "/".join([*parts, endpoint_name, ""])


def hour_prefixes(since: datetime, until: datetime, limit: int = 96) -> list[str] | None:
    """``yyyy/mm/dd/HH/`` of every hour that touches ``[since, until]``; None when there are more than ``limit``."""
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if (until - hour) / timedelta(hours=1) > limit:
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
            del pending[_QUOTED * 2 :]
            skipping = True
    if pending:
        yield number, bytes(pending)


# ---- what was read already


@dataclass(frozen=True, slots=True)
class Watermark:
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

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"arrived": self.arrived.isoformat() if self.arrived else None, "recent": sorted(self.recent)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Watermark:
        """Read what :meth:`as_dict` returned."""
        arrived = value.get("arrived")
        return cls(datetime.fromisoformat(arrived) if arrived else None, frozenset(value.get("recent", ())))
