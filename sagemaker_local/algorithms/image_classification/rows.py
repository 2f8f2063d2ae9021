"""Rows of numbers in a file: read and written in parts, so that memory does not grow with the number of images."""

import os
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Readable(Protocol):
    """What training reads images from: an array, or rows of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Array, /) -> Array: ...


class Rows:
    """An array (rows, *shape) in a file, added to at its end and read by row numbers.

    A mapped file would do too, but each page of it that was touched counts as this process's memory.

    Args:
        path: file to create; whoever made its folder deletes it.
        shape: shape of one row.
        dtype: of the numbers.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._bytes = self.dtype.itemsize * int(np.prod(shape))
        self._file = path.open("w+b", buffering=0)
        self._count = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def append(self, rows: Array) -> None:
        """Add rows (rows, *shape)."""
        if rows.shape[1:] != self.shape:
            raise ValueError(f"rows have the shape {rows.shape[1:]} instead of {self.shape}")
        if not len(rows):
            return
        content = np.ascontiguousarray(rows, dtype=self.dtype).data.cast("B")
        with self._lock:
            at = self._count * self._bytes
            while content:  # one call writes at most 2 GB
                done = os.pwrite(self._file.fileno(), content, at)
                content, at = content[done:], at + done
            self._count += len(rows)

    def __getitem__(self, rows: Array) -> Array:
        """The rows with these numbers, in this order; any number of threads may read.

        Raises:
            IndexError: there is no such row.
        """
        rows = np.asarray(rows, dtype=np.intp)
        result = np.empty((len(rows), *self.shape), dtype=self.dtype)
        if not len(rows):
            return result
        if rows.min() < 0 or rows.max() >= self._count:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self._count}")
        target = result.data.cast("B")
        # Rows that follow each other in the file are read in one go.
        starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) != 1)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            part = target[start * self._bytes : stop * self._bytes]
            if os.preadv(self._file.fileno(), [part], int(rows[start]) * self._bytes) != len(part):
                raise OSError(f"{self._file.name} is shorter than its {self._count} rows")
        return result

    def close(self) -> None:
        self._file.close()
