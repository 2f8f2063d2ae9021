"""Data capture: what one captured invocation looks like and where it lands in S3. Pure functions.

Source of the shapes: records that real endpoints wrote, and the DataCaptureConfig reference.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sagemaker_local.s3 import split_uri
from sagemaker_local.serving.ids import fast_uuid4

EVENT_VERSION = "0"


@dataclass(frozen=True)
class CaptureSettings:
    """The parts of a DataCaptureConfig that decide what is captured, and where to.

    `prefix` has no slash at either end: a doubled slash in the key hides the files from monitoring jobs.
    """

    bucket: str
    prefix: str
    sampling_percentage: int
    capture_input: bool
    capture_output: bool
    json_content_types: frozenset[str] = frozenset()
    csv_content_types: frozenset[str] = frozenset()
    kms_key_id: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> CaptureSettings | None:
        """Read a DataCaptureConfig; None when there is none or EnableCapture is false (it defaults to true).

        Raises:
            s3.DataError: DestinationS3Uri names no bucket.
        """
        if not config or not config.get("EnableCapture", True):
            return None
        # Path style, https://host/bucket/prefix, is taken too.
        bucket, path = split_uri(re.sub(r"^https://[^/]*/*", "s3://", config["DestinationS3Uri"]))
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        headers = config.get("CaptureContentTypeHeader") or {}
        return cls(
            bucket=bucket,
            prefix="/".join(part for part in path.split("/") if part),
            sampling_percentage=int(config["InitialSamplingPercentage"]),
            capture_input=bool(modes & {"Input", "InputAndOutput"}),
            capture_output=bool(modes & {"Output", "InputAndOutput"}),
            json_content_types=frozenset(_media_type(name) for name in headers.get("JsonContentTypes", ())),
            csv_content_types=frozenset(_media_type(name) for name in headers.get("CsvContentTypes", ())),
            kms_key_id=config.get("KmsKeyId"),
        )

    def samples(self, draw: float) -> bool:
        """Whether an invocation is captured, for `draw` uniform in [0, 1)."""
        return draw * 100 < self.sampling_percentage


@dataclass(frozen=True)
class Invocation:
    """One answered invocation, as the capture sees it. Times are UTC."""

    input_body: bytes
    input_content_type: str | None
    output_body: bytes
    output_content_type: str | None
    time: datetime
    inference_id: str | None = None
    custom_attributes: str | None = None


def record(settings: CaptureSettings, invocation: Invocation, event_id: str | None = None) -> bytes:
    """One line of a capture file, newline included."""
    data: dict[str, Any] = {}
    if settings.capture_input:
        data["endpointInput"] = _side(settings, "INPUT", invocation.input_body, invocation.input_content_type)
    if settings.capture_output:
        data["endpointOutput"] = _side(settings, "OUTPUT", invocation.output_body, invocation.output_content_type)
    metadata: dict[str, Any] = {"eventId": event_id or fast_uuid4()}
    if invocation.custom_attributes:
        metadata["customAttributes"] = [invocation.custom_attributes]
    if invocation.inference_id:
        metadata["inferenceId"] = invocation.inference_id
    metadata["inferenceTime"] = invocation.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = {"captureData": data, "eventMetadata": metadata, "eventVersion": EVENT_VERSION}
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def object_key(settings: CaptureSettings, endpoint: str, variant: str, opened: datetime, file_id: str) -> str:
    """The S3 key of a capture file whose first record came at `opened` (UTC)."""
    moment = opened.astimezone(UTC)
    name = f"{moment:%M-%S}-{moment.microsecond // 1000:03d}-{file_id}.jsonl"
    parts = [settings.prefix, endpoint, variant, f"{moment:%Y/%m/%d/%H}", name]
    return "/".join(part for part in parts if part)


def _side(settings: CaptureSettings, mode: str, body: bytes, content_type: str | None) -> dict[str, str]:
    data, encoding = _encode(settings, body, content_type)
    side = {"observedContentType": content_type} if content_type else {}
    return {**side, "mode": mode, "data": data, "encoding": encoding}


def _encode(settings: CaptureSettings, body: bytes, content_type: str | None) -> tuple[str, str]:
    """Text stays readable only for the content types the config lists; everything else is base64."""
    media_type = _media_type(content_type or "")
    for encoding, listed in (("JSON", settings.json_content_types), ("CSV", settings.csv_content_types)):
        if media_type in listed:
            try:
                return body.decode(), encoding
            except UnicodeDecodeError:
                break  # not the text its header says: base64 keeps every byte
    return base64.b64encode(body).decode("ascii"), "BASE64"


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
