"""Reader for RecordIO image files as MXNet's im2rec writes them.

A file is a row of parts: magic 0xced7230a, a word with a 3-bit continuation flag and a 29-bit length, the data, zeros
to the next multiple of four. A record whose data holds the magic itself on a 4-byte boundary is cut there into several
parts (flags 1, 2, 3) and the magic put back on reading. A record is an IRHeader (flag, label, id, id2), `flag` further
float labels, and the encoded image. Little endian throughout. Source: MXNet python/mxnet/recordio.py, dmlc-core
recordio.h.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")


class RecordFile:
    """One .rec file, mapped into memory: records by the offset of their first part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as handle:
            size = path.stat().st_size
            self._data: mmap.mmap | bytes = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __enter__(self) -> "RecordFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()

    def _part(self, offset: int) -> tuple[int, int, int, int]:
        """Flag, first byte, byte after the last, and offset of the next part."""
        if offset + _PART.size > len(self._data):
            raise AlgorithmError(
                f"{self.path.name} ends inside a record header at byte {offset}: the file is truncated"
            )
        magic, word = _PART.unpack_from(self._data, offset)
        if magic != MAGIC:
            raise AlgorithmError(
                f"{self.path.name} has {magic:#010x} instead of the RecordIO magic {MAGIC:#010x} at byte {offset}:"
                " it is not a RecordIO file, or is corrupt"
            )
        begin = offset + _PART.size
        end = begin + (word & 0x1FFFFFFF)
        if end > len(self._data):
            raise AlgorithmError(f"{self.path.name} ends inside the record at byte {offset}: the file is truncated")
        return word >> 29, begin, end, end + (-end) % 4

    def _spans(self, offset: int) -> tuple[list[tuple[int, int]], int]:
        flag, begin, end, following = self._part(offset)
        spans = [(begin, end)]
        if flag == 0:
            return spans, following
        if flag != 1:
            raise AlgorithmError(
                f"{self.path.name} has a record at byte {offset} that begins in its middle (flag {flag})"
            )
        while flag != 3:
            flag, begin, end, following = self._part(following)
            if flag not in (2, 3):
                raise AlgorithmError(f"{self.path.name} has an unfinished record at byte {offset}")
            spans.append((begin, end))
        return spans, following

    def offsets(self) -> Iterator[int]:
        """Offset of each record, in file order.

        Raises:
            AlgorithmError: a record is corrupt; those before it were given.
        """
        offset = 0
        while offset < len(self._data):
            _, following = self._spans(offset)
            yield offset
            offset = following

    def read(self, offset: int) -> tuple[float, int, bytes]:
        """Label, id and encoded image of the record at `offset`.

        Raises:
            AlgorithmError: the record is corrupt, or carries several labels.
        """
        spans, _ = self._spans(offset)
        data = _MAGIC_BYTES.join(bytes(self._data[begin:end]) for begin, end in spans)
        if len(data) < _HEADER.size:
            raise AlgorithmError(
                f"{self.path.name} has a record of {len(data)} bytes at byte {offset}; no image header fits"
            )
        labels, label, identifier, _ = _HEADER.unpack_from(data)
        start = _HEADER.size
        if labels:
            if labels != 1:
                raise AlgorithmError(
                    f"{self.path.name} has a record with {labels} labels at byte {offset}; each image needs one class"
                )
            start += 4
            if len(data) < start:
                raise AlgorithmError(f"{self.path.name} ends inside the label of the record at byte {offset}")
            (label,) = struct.unpack_from("<f", data, _HEADER.size)
        return label, identifier, data[start:]
