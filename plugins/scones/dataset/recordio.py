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
from collections.abc import Iterator

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEADER = struct.Struct("<IfQQ")
_LENGTH_MASK = (1 << 29) - 1


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
    """``data`` as one RecordIO record (several parts when it contains the magic).

    Raises:
        ValueError: it has 512 MiB or more.
    """
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


def first_images(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (label, image file) of the records at the beginning of a file, of which ``data`` may end anywhere.

    A record in parts, which is rare, is passed over; what is no record ends it.
    """
    at = 0
    while data[at : at + 4] == _MAGIC_BYTES and len(data) >= at + 8:
        word = int.from_bytes(data[at + 4 : at + 8], "little")
        length, start = word & _LENGTH_MASK, at + 8
        if start + length > len(data):
            return
        if word >> 29 == 0 and length > _HEADER.size:
            _, label, _, _ = _HEADER.unpack_from(data, start)
            if 0 <= label < 2**24:  # false for NaN
                yield int(label), data[start + _HEADER.size : start + length]
        at = start + (length + 3) // 4 * 4
