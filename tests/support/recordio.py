"""Reading RecordIO back, as MXNet does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEADER = struct.Struct("<IfQQ")
_PREFIX = struct.Struct("<II")
_LENGTH_MASK = (1 << 29) - 1


class RecordIOError(ValueError):
    """The bytes are not RecordIO, or end in the middle of a record."""


@dataclass(frozen=True)
class ImageRecord:
    """One image: its class index, its unique id (first column of the ``.lst``) and its file's bytes."""

    label: int
    index: int
    content: bytes


def unpack_records(data: bytes | memoryview) -> Iterator[bytes]:
    """The records of a RecordIO file, split ones put together again. Raises RecordIOError, saying where."""
    view, at = memoryview(data), 0
    open_parts: list[bytes] | None = None
    while at < len(view):
        if at + 8 > len(view):
            raise RecordIOError(f"ends in the middle of a record's prefix at byte {at}")
        magic, word = _PREFIX.unpack_from(view, at)
        if magic != MAGIC:
            raise RecordIOError(f"no record starts at byte {at}")
        flag, length = word >> 29, word & _LENGTH_MASK
        end = at + 8 + length
        if end > len(view) or (end + 3) // 4 * 4 > len(view):
            raise RecordIOError(f"the record at byte {at} claims {length} bytes, the file ends before")
        part = bytes(view[at + 8 : end])
        if (flag in (0, 1)) != (open_parts is None) or flag > 3:
            raise RecordIOError(f"the record at byte {at} has the flag {flag} out of order")
        if flag == 0:
            yield part
        elif flag == 1:
            open_parts = [part]
        else:
            assert open_parts is not None
            open_parts.append(part)
            if flag == 3:
                yield _MAGIC_BYTES.join(open_parts)
                open_parts = None
        at = (end + 3) // 4 * 4
    if open_parts is not None:
        raise RecordIOError("ends before the last part of a split record")


def unpack_images(data: bytes | memoryview) -> Iterator[ImageRecord]:
    """The image records of a RecordIO file. Raises RecordIOError."""
    for record in unpack_records(data):
        if len(record) < _HEADER.size:
            raise RecordIOError(f"a record of {len(record)} bytes is too short for an image header")
        flag, label, index, _ = _HEADER.unpack_from(record)
        if flag:
            raise RecordIOError("a record with several labels")
        yield ImageRecord(int(label), index, record[_HEADER.size :])
