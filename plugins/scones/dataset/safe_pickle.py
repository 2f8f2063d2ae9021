"""Read the CIFAR-100 pickles, and run nothing that a pickle asks for.

A pickle is a program for a small stack machine that calls whatever function the program names. First the program is
looked through without being run: only the operations that an honest CIFAR-100 pickle needs, few enough of them, every
length within the file. Then Python's own unpickler runs it with names of our own for numpy's: the few with which numpy
1, numpy 2 and Python 2 or 3 write a ``uint8`` array are answered by stand-ins, everything else is refused by name.

Large byte strings never go through the unpickler: they stay views into the input, so the 154 MB pixel block of the full
archive exists once.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from scones.dataset.errors import BadInputError, CorruptArchiveError, UnsafePickleError

_ADVICE = "Take the archive from its official source and check its md5."
# The full training pickle needs about 260,000 operations. One byte of input can build one object, so this bound,
# not the size of the file, keeps a hostile pickle from filling the memory.
MAX_OPERATIONS = 2_000_000
# Nothing nested is needed. Python hashes nested tuples by recursion, and a deep one ends the process.
MAX_TUPLES = 1000
_MAX_LINE = 1024
_LARGE = 4096
_BYTES = frozenset({"BINSTRING", "BINBYTES", "BINBYTES8", "BYTEARRAY8"})
_ALLOWED = re.compile(
    r"(INT|BININT[12]?|LONG1?|BINFLOAT|NONE|NEWTRUE|NEWFALSE|(SHORT_)?BIN(STRING|BYTES|UNICODE)|STRING|UNICODE"
    r"|(BINBYTES|BYTEARRAY|BINUNICODE)8|EMPTY_(LIST|DICT|TUPLE)|APPENDS?|LIST|TUPLE[123]?|DICT|SETITEMS?|POP|MARK"
    r"|(BIN|LONG_BIN)?(GET|PUT)|MEMOIZE|(STACK_)?GLOBAL|REDUCE|BUILD|PROTO|FRAME|STOP)"
)
_OPERATIONS = {ord(op.code): op for op in pickletools.opcodes if _ALLOWED.fullmatch(op.name)}
_REFUSED = {ord(op.code): op.name for op in pickletools.opcodes if not _ALLOWED.fullmatch(op.name)}
# Width of the length in front of an operation's content.
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _look_through(data: memoryview) -> tuple[bytes, list[memoryview]]:
    """Return the program with each large byte string taken out, and those strings as views into ``data``.

    Raises:
        UnsafePickleError: no honest pickle would be this program.
        CorruptArchiveError: it is none, or ends too early.
    """
    kept: list[memoryview | bytes] = []
    large: list[memoryview] = []
    position = tuples = start = 0
    for _ in range(MAX_OPERATIONS):
        if position >= len(data):
            raise CorruptArchiveError("the pickle ends without a result")
        op = _OPERATIONS.get(data[position])
        if op is None and data[position] in _REFUSED:
            raise UnsafePickleError(f"the pickle uses {_REFUSED[data[position]]}. Nothing was run")
        if op is None:
            raise CorruptArchiveError(f"byte 0x{data[position]:02x} is not a pickle operation")
        if op.name == "STOP":
            return b"".join([*kept, data[start : position + 1]]), large
        content, end = _argument(data, op, position + 1)
        if end > len(data):
            raise CorruptArchiveError("the pickle ends in the middle of a value")
        tuples += op.name.startswith("TUPLE")
        if tuples > MAX_TUPLES:
            raise UnsafePickleError(f"the pickle has more than {MAX_TUPLES} tuples")
        if op.name in ("PUT", "LONG_BINPUT"):  # the unpickler makes a table as long as the largest place
            place = bytes(data[content:end])
            if (int(place) if place[:-1].isdigit() else int.from_bytes(place, "little")) > MAX_OPERATIONS:
                raise UnsafePickleError("the pickle remembers values at places beyond its own length")
        if op.name == "FRAME":  # its length would be wrong now, and it only helps to read ahead
            kept.append(data[start:position])
            start = end
        elif end - content >= _LARGE and op.name in _BYTES:
            kept += (data[start:position], b"J" + struct.pack("<i", len(large)) + b"Q")
            large.append(data[content:end])
            start = end
        position = end
    raise UnsafePickleError(f"the pickle has more than {MAX_OPERATIONS:,} operations")


def _argument(data: memoryview, op: Any, start: int) -> tuple[int, int]:
    """Return where the content of the operation's argument begins and ends."""
    if op.arg is None:
        return start, start
    if op.arg.n >= 0:
        return start, start + int(op.arg.n)
    if op.arg.n in _LENGTHS:
        content = start + _LENGTHS[op.arg.n]
        return content, content + int.from_bytes(data[start:content], "little")
    end = start
    for _ in range(2 if op.name == "GLOBAL" else 1):
        line = bytes(data[end : end + _MAX_LINE]).find(b"\n") + 1
        if not line:
            raise CorruptArchiveError("the pickle has a line without an end")
        end += line
    return start, end


class _StandIn:
    """What a name of numpy's becomes: it can be called as numpy writes the call, and nothing else."""

    __slots__ = ("_function", "name")

    def __init__(self, name: str, function: Callable[..., Any] | None = None) -> None:
        self.name, self._function = name, function

    def __call__(self, *arguments: Any) -> Any:
        try:
            if self._function is not None:
                return self._function(*arguments)
        except TypeError:
            pass
        raise UnsafePickleError(f"the pickle calls numpy's {self.name} as no CIFAR-100 archive does. Nothing was run")

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError(f"the pickle sets the state of numpy's {self.name}")


class _UInt8:
    """``numpy.dtype('uint8')``, the only one accepted."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        # Byte order and alignment, without meaning for single bytes.
        if not isinstance(state, tuple) or state[2:5] != (None, None, None):
            raise UnsafePickleError("the pickle sets the state of a type")


class _Array:
    """An array being built; ``value`` is set once its state has been read and checked."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafePickleError("the pickle sets the state of an array to something else")
        _, shape, dtype, fortran, raw = state
        if (
            not isinstance(dtype, _UInt8)
            or not isinstance(shape, tuple)
            or not isinstance(raw, bytes | bytearray | memoryview)
        ):
            raise UnsafePickleError("an array's state is not (shape, uint8, order, bytes)")
        if not 1 <= len(shape) <= 4 or not all(type(side) is int and side >= 0 for side in shape):
            raise UnsafePickleError("an array's shape is not one to four counts")
        if math.prod(shape) != len(raw):
            raise CorruptArchiveError(f"an array of shape {shape} holds {len(raw)} bytes")
        self.value = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran is True else "C")
        self.value.flags.writeable = False


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise TypeError
    return _Array()


def _dtype(wanted: Any, *_: Any) -> _UInt8:
    if _text(wanted) not in ("u1", "|u1", "uint8"):
        # Never format what a pickle built: nested lists that share their parts print for years.
        raise UnsafePickleError(f"an array is of type {_text(wanted)!s:.40}, not uint8")
    return _UInt8()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, _text(order) == "F", raw))
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError
    return text.encode("latin-1")


_NDARRAY = _StandIn("ndarray")
_NAMES = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _StandIn("dtype", _dtype),
    "_codecs.encode": _StandIn("encode", _encode),
    **{
        f"numpy.{core}.{module}.{function.__name__}": _StandIn(function.__name__, function)
        for core in ("core", "_core")
        for module, function in (("multiarray", _reconstruct), ("numeric", _frombuffer))
    },
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, program: bytes, large: list[memoryview]) -> None:
        super().__init__(io.BytesIO(program), encoding="bytes")
        self._large = large

    def persistent_load(self, pid: Any) -> memoryview:
        return self._large[pid]

    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get(f"{module}.{name}")
        if found is None:
            raise UnsafePickleError(
                f"the pickle asks for {f'{module}.{name}'[:200]!r}, which no CIFAR-100 archive needs. Nothing was run"
            )
        return found


def _text(value: Any) -> str:
    """Return a text or byte string as text, and of anything else the name of its type."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("latin-1")
    return value if isinstance(value, str) else f"<{type(value).__name__}>"


def loads(data: bytes | bytearray, name: str = "pickle") -> dict[str, Any]:
    """The dictionary a CIFAR-100 pickle holds, its keys as text, its arrays as read-only ``uint8`` arrays.

    Accepts what Python 2 or 3 writes with numpy 1 or 2 (of protocol 0, lines up to 1 kB: no arrays). Byte strings stay
    bytes (views when long).

    Raises:
        UnsafePickleError: it asks for code, or for too much.
        CorruptArchiveError: it is broken.
    """
    try:
        result = _Unpickler(*_look_through(memoryview(data).toreadonly())).load()
        if type(result) is not dict:
            raise CorruptArchiveError(f"holds a {type(result).__name__} instead of a dictionary")
        if not all(isinstance(key, bytes | str) for key in result):
            raise CorruptArchiveError("a dictionary key is no text")
    except BadInputError as error:
        raise type(error)(f"{name}: {error}. {_ADVICE}") from error
    except Exception as error:
        # The unpickler raises whatever the broken value raises: UnpicklingError, EOFError, TypeError, KeyError, ...
        raise CorruptArchiveError(
            f"{name}: the pickle is damaged ({type(error).__name__}: {error!s:.120}). {_ADVICE}"
        ) from error
    return {_text(key): value.value if isinstance(value, _Array) else value for key, value in result.items()}
