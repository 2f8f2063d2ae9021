"""What `serialize_image` decides without AWS: is the event complete, are these bytes an image, does it fit."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from lambdas.common import NotAnImageError

# A state's payload is at most 256 KiB (Step Functions quota). Base64 makes 4 bytes of 3, and key, bucket and the
# invocation's metadata need room beside it. Larger images go by reference.
MAX_INLINE_BYTES = 180 * 1024

PASSED_THROUGH = ("threshold", "threshold_version", "inference_id")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}


def check_image(content: bytes, s3_key: str) -> None:
    """Raise NotAnImageError unless `content` is a complete PNG or JPEG with a sane header."""
    if not content:
        raise NotAnImageError(f"{s3_key!r} is empty")
    if content.startswith(_PNG_SIGNATURE):
        problem = _png_problem(content)
    elif content.startswith(_JPEG_START):
        problem = _jpeg_problem(content)
    else:
        problem = f"it starts with {content[:8].hex(' ')}, which is neither PNG nor JPEG"
    if problem:
        raise NotAnImageError(f"{s3_key!r} is not a usable image: {problem}")


def _png_problem(content: bytes) -> str | None:
    at, first = len(_PNG_SIGNATURE), True
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            return "the PNG is cut off"
        if zlib.crc32(memoryview(content)[at + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            return f"the PNG's {kind.decode('latin-1')} chunk is corrupt"
        if first:
            if kind != b"IHDR" or length != 13:
                return "the PNG does not start with its header"
            width, height, depth, colour = struct.unpack_from(">IIBB", content, at + 8)
            if not width or not height or depth not in _PNG_BIT_DEPTHS.get(colour, ()):
                return f"the PNG's header says {width}x{height}, {depth} bits of colour type {colour}"
            first = False
        if kind == b"IEND":
            return None
        at = end
    return "the PNG is cut off"


def _jpeg_problem(content: bytes) -> str | None:
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return "the JPEG's segments are corrupt"
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _JPEG_WITHOUT_LENGTH:
            at += 2
            continue
        length = struct.unpack_from(">H", content, at + 2)[0]
        if marker in _JPEG_FRAMES:
            if length < 8 or at + 9 > len(content):
                return "the JPEG's header is cut off"
            height, width = struct.unpack_from(">HH", content, at + 5)
            if not width or not height:
                return f"the JPEG's header says {width}x{height}"
            return None if content.find(_JPEG_END, at + length) >= 0 else "the JPEG is cut off"
        if marker == _JPEG_SCAN or length < 2:
            return "the JPEG has no header"
        at += 2 + length
    return "the JPEG is cut off"


def serialized(data: dict[str, Any], content: bytes, etag: str) -> dict[str, Any]:
    """Return the function's answer: the image as base64 text, or its ETag if it is too large for that.

    Args:
        data: the event, with s3_bucket and s3_key.
    """
    inline = len(content) <= MAX_INLINE_BYTES
    body: dict[str, Any] = {
        "image_data": base64.b64encode(content).decode("ascii") if inline else "",
        "s3_bucket": data["s3_bucket"],
        "s3_key": data["s3_key"],
        "inferences": [],
    }
    if not inline:
        body["image_etag"] = etag
    body.update({field: data[field] for field in PASSED_THROUGH if data.get(field) is not None})
    return {"statusCode": 200, "body": body}
