"""What stands for numpy while a pickle is read: markers that cannot be called, and one kind of array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scones.dataset.errors import CorruptArchiveError, UnsafePickleError

ADVICE = "Take the archive from its official source and check its md5."


class Marker:
    """An allowed global. It can be compared and named; it cannot be called."""

    def __init__(self, name: str) -> None:
        self.name = name


RECONSTRUCT, NDARRAY, DTYPE = Marker("_reconstruct"), Marker("ndarray"), Marker("dtype")
FROMBUFFER, ENCODE = Marker("_frombuffer"), Marker("encode")
ALLOWED_GLOBALS = {
    "numpy.core.multiarray._reconstruct": RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": RECONSTRUCT,
    "numpy.ndarray": NDARRAY,
    "numpy.dtype": DTYPE,
    "numpy.core.numeric._frombuffer": FROMBUFFER,
    "numpy._core.numeric._frombuffer": FROMBUFFER,
    "_codecs.encode": ENCODE,
}


def as_text(value: Any) -> Any:
    """Byte strings as text, anything else as it is."""
    return bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else value


class UInt8Type:
    """Stands for ``numpy.dtype('uint8')``, the only one accepted."""


class PickledArray:
    """An array being built; ``value`` is set once its state has been read and checked."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def fill(self, shape: Any, dtype: Any, fortran: Any, raw: Any, name: str) -> None:
        """Take over the state numpy wrote. Raises UnsafePickleError or CorruptArchiveError when it is not pixels."""
        if not isinstance(dtype, UInt8Type) or not isinstance(shape, tuple) or not isinstance(raw, bytes | memoryview):
            raise UnsafePickleError(f"{name}: an array's state is not (shape, uint8, order, bytes). {ADVICE}")
        if not 1 <= len(shape) <= 4 or not all(type(side) is int and side >= 0 for side in shape):
            raise UnsafePickleError(f"{name}: an array's shape is not one to four counts. {ADVICE}")
        if math.prod(shape) != len(raw):
            raise CorruptArchiveError(f"{name}: an array of shape {shape} holds {len(raw)} bytes. {ADVICE}")
        self.value = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")
