"""MXNet's RecordIO with image records, as ``im2rec`` writes it and AWS's image-classification algorithm reads it.

One record is ``magic, flag << 29 | length, data, padding to 4 bytes``, little-endian. Data that contains the magic on a
4-byte boundary is split there, the magic left out: flag 1 starts such a record, 2 continues it, 3 ends it, 0 is a whole
one. So a reader that starts anywhere finds the next record by its magic alone. The data of an image record is a header
(flag u32 = 0, label f32, id u64, 0 u64) and the image file.

Format: dmlc-core ``recordio.h``, MXNet ``image_recordio.h``. AWS takes one ``.rec`` file per channel, so one is
written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
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


def _magic_positions(data: bytes) -> list[int]:
    """Where ``data`` holds the magic on a 4-byte boundary."""
    positions = []
    at = data.find(_MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            positions.append(at)
        at = data.find(_MAGIC_BYTES, at + 1)
    return positions


def pack_record(data: bytes) -> bytes:
    """``data`` as one RecordIO record (several parts when it contains the magic). Raises ValueError from 512 MiB on."""
    if len(data) > _LENGTH_MASK:
        raise ValueError(f"a record holds less than 2**29 bytes, not {len(data):,}")
    padding = bytes(-len(data) % 4)
    splits = _magic_positions(data)
    if not splits:
        return b"".join((_MAGIC_BYTES, struct.pack("<I", len(data)), data, padding))
    parts: list[bytes] = []
    start = 0
    for at in splits:
        flag = 1 if start == 0 else 2
        parts += (_MAGIC_BYTES, struct.pack("<I", flag << 29 | (at - start)), data[start:at])
        start = at + 4
    parts += (_MAGIC_BYTES, struct.pack("<I", 3 << 29 | (len(data) - start)), data[start:], padding)
    return b"".join(parts)


def pack_image(label: int, index: int, content: bytes) -> bytes:
    """One image record: header and image file, as ``im2rec`` packs a single-label image."""
    return pack_record(_HEADER.pack(0, float(label), index, 0) + content)


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


def pack_images(records: Iterable[ImageRecord]) -> Iterator[bytes]:
    """Packed records, one after the other: joined, they are the ``.rec`` file."""
    for record in records:
        yield pack_image(record.label, record.index, record.content)
