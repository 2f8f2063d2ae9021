"""Pickles as Python 2 with numpy 1 wrote them: the real CIFAR-100 archive's form."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np


def _string(value: str) -> bytes:
    raw = value.encode()
    return b"U" + bytes([len(raw)]) + raw


def _pixels(data: np.ndarray) -> bytes:
    """A uint8 matrix as numpy 1 on Python 2 pickles it."""
    shape = (
        b"M" + struct.pack("<H", data.shape[1]) if data.shape[1] < 65536 else b"J" + struct.pack("<i", data.shape[1])
    )
    raw = data.tobytes()
    return b"".join(
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01J" + struct.pack("<i", data.shape[0]) + shape + b"\x86",
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb",
        )
    )


def pickle_python2(content: dict[str, np.ndarray | Sequence[int] | Sequence[str] | str]) -> bytes:
    """``content`` as a protocol 2 pickle whose texts are Python 2 strings (bytes to Python 3)."""
    parts = [b"\x80\x02}("]
    for key, value in content.items():
        parts.append(_string(key))
        if isinstance(value, np.ndarray):
            parts.append(_pixels(value))
        elif isinstance(value, str):
            parts.append(_string(value))
        else:
            items = (_string(item) if isinstance(item, str) else b"K" + bytes([item]) for item in value)
            parts.append(b"](" + b"".join(items) + b"e")
    return b"".join((*parts, b"u."))
