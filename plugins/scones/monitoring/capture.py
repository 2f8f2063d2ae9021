"""Data capture as SageMaker writes it: lines and their payloads.

A capture file holds one JSON object per line, any number of lines. Payloads come with encoding ``JSON``, ``CSV`` or
``BASE64``; SageMaker chooses base64 whenever the content type is not listed in ``CaptureContentTypeHeader``.
Source: "Capture data from real-time endpoint" in the SageMaker developer guide, and captures made by AWS.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

#: A line longer than this is not parsed: an endpoint's payload is at most 6 MB, twice that with base64 and quotes.
MAX_LINE_BYTES = 32 << 20
#: Times outside these years parse, but are nobody's: 0001-01-01 is the zero time of Go and .NET.
FIRST_YEAR, LAST_YEAR = 1970, 2200
#: Characters of a malformed line that are quoted.
_QUOTED = 160


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
    def input_content_type(self) -> str:
        """Content type of the request, lower case without parameters; empty when it is not known."""
        return _content_type(self._data.endpointInput)

    def input_bytes(self) -> bytes:
        """The body of the request.

        Raises:
            MalformedCaptureError: when it was not captured, or its encoding is wrong.
        """
        return _payload_bytes(self._data.endpointInput, "endpointInput")

    def probabilities(self) -> list[float]:
        """The class probabilities the endpoint answered, one per class.

        Raises:
            MalformedCaptureError: when the output was not captured or holds no probabilities.
        """
        payload = self._data.endpointOutput
        body = _payload_bytes(payload, "endpointOutput")
        # Only BASE64 hides which of the two forms the body has; the content type, or else the body itself, tells.
        is_csv = payload is not None and (payload.encoding == "CSV" or _content_type(payload) == "text/csv")
        return parse_csv_probabilities(body) if is_csv else parse_json_probabilities(body)


def parse_line(line: bytes) -> CaptureRecord:
    """Parse one line of a capture file.

    Raises:
        MalformedCaptureError: when the line is not a capture record; says why and quotes the line's beginning.
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
    except ValueError as error:
        raise MalformedCaptureError(
            f"inferenceTime {meta.inferenceTime[:40]!r} is not an ISO 8601 time: {quote(line)}"
        ) from error
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise MalformedCaptureError(
            f"inferenceTime {meta.inferenceTime[:40]!r} is outside {FIRST_YEAR} to {LAST_YEAR}: {quote(line)}"
        )
    seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
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

    Raises:
        MalformedCaptureError: on anything else.
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

    Raises:
        MalformedCaptureError: on anything else.
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
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise MalformedCaptureError(f"output holds something that is not a number: {quote(body)}")
        # Also false for NaN; whole numbers may have hundreds of digits, more than a float takes.
        if not -1e-6 <= number <= 1 + 1e-6:
            raise MalformedCaptureError(f"output holds what is no probability: {quote(body)}")
    return [float(number) for number in value]
