"""Read the CIFAR-100 pickles without Python's unpickler.

A pickle is a program for a small stack machine, and Python's own machine calls whatever function the program
names. This one is not able to: it knows strings, numbers, containers and one thing more, the few names with which
numpy 1, numpy 2 and Python 2 or 3 write a ``uint8`` array. Those names are answered with inert markers, never with
the functions, so no code outside this module ever sees what a hostile file says. Everything else is refused by name.

Large byte strings are returned as views into the input, not copies: the 154 MB pixel block of the full archive
exists once.
"""

from __future__ import annotations

import codecs
import struct
from typing import Any

from scones.dataset.errors import CorruptArchiveError, UnsafePickleError
from scones.dataset.pickle_arrays import (
    ADVICE,
    ALLOWED_GLOBALS,
    DTYPE,
    ENCODE,
    FROMBUFFER,
    NDARRAY,
    RECONSTRUCT,
    Marker,
    PickledArray,
    UInt8Type,
    as_text,
)

# The full training pickle needs about 260,000 operations. One byte of input can build one object, so this bound,
# not the size of the file, keeps a hostile pickle from filling the memory.
MAX_OPERATIONS = 2_000_000
_VIEW_FROM_BYTES = 4096
_MAX_LINE = 1024
_REFUSED_OPCODES = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    ord("P"): "PERSID",
    ord("Q"): "BINPERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    ord("2"): "DUP",
    0x8F: "EMPTY_SET",
    0x90: "ADDITEMS",
    0x91: "FROZENSET",
}
# Opcode -> width of its little-endian length field, by what the counted bytes become.
_COUNTED_BYTES = {ord("U"): 1, ord("C"): 1, ord("T"): 4, ord("B"): 4, 0x8E: 8, 0x96: 8}
_COUNTED_TEXT = {0x8C: 1, ord("X"): 4, 0x8D: 8}
_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
_MARK = object()


class _Machine:
    """One run over one pickle. ``name`` only serves the messages."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str) -> None:
        self.data, self.name, self.position = memoryview(data).toreadonly(), name, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    # -- reading ------------------------------------------------------------------------------------------------
    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            raise CorruptArchiveError(f"{self.name}: the pickle ends in the middle of a value. {ADVICE}")
        view = self.data[self.position : end]
        self.position = end
        return view

    def _number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _line(self) -> bytes:
        window = bytes(self.data[self.position : self.position + _MAX_LINE])
        end = window.find(b"\n")
        if end < 0:
            raise CorruptArchiveError(f"{self.name}: the pickle has a line without an end. {ADVICE}")
        self.position += end + 1
        return window[:end]

    def _since_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise CorruptArchiveError(f"{self.name}: the pickle closes a group it never opened. {ADVICE}")

    def _blob(self, width: int) -> bytes | memoryview:
        view = self._take(self._number(width))
        return view if len(view) >= _VIEW_FROM_BYTES else bytes(view)

    # -- the few operations that build something --------------------------------------------------------------------
    def _global(self, module: Any, attribute: Any) -> Marker:
        module, attribute = as_text(module), as_text(attribute)
        if not isinstance(module, str) or not isinstance(attribute, str):
            # Never format what a pickle built: nested lists that share their parts print for years.
            raise UnsafePickleError(f"{self.name}: the pickle asks for a {type(module).__name__} as code. {ADVICE}")
        full = f"{module}.{attribute}"
        marker = ALLOWED_GLOBALS.get(full)
        if marker is None:
            raise UnsafePickleError(
                f"{self.name}: the pickle asks for {full[:200]!r}, which no CIFAR-100 archive needs. "
                f"Nothing was run. {ADVICE}"
            )
        return marker

    def _reduce(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise UnsafePickleError(f"{self.name}: the pickle calls something without a tuple of arguments. {ADVICE}")
        if function is RECONSTRUCT and arguments and arguments[0] is NDARRAY:
            return PickledArray()
        if function is DTYPE and arguments:
            wanted = as_text(arguments[0])
            if wanted not in ("u1", "|u1", "uint8"):
                found = repr(wanted[:40]) if isinstance(wanted, str) else type(wanted).__name__
                raise UnsafePickleError(f"{self.name}: an array is of type {found}, not uint8. {ADVICE}")
            return UInt8Type()
        if function is FROMBUFFER and len(arguments) == 4:
            array = PickledArray()
            array.fill(arguments[2], arguments[1], as_text(arguments[3]) == "F", arguments[0], self.name)
            return array
        if function is ENCODE and len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
            return arguments[0].encode("latin-1")
        called = f"numpy's {function.name}" if isinstance(function, Marker) else type(function).__name__
        raise UnsafePickleError(
            f"{self.name}: the pickle calls {called} as no CIFAR-100 archive does. Nothing was run. {ADVICE}"
        )

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, UInt8Type) and isinstance(state, tuple) and state[2:5] == (None, None, None):
            return  # byte order and alignment, without meaning for single bytes
        if isinstance(target, PickledArray) and isinstance(state, tuple) and len(state) == 5:
            target.fill(*state[1:], self.name)
            return
        raise UnsafePickleError(f"{self.name}: the pickle sets the state of a {type(target).__name__}. {ADVICE}")

    def _set_items(self, target: Any, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise CorruptArchiveError(f"{self.name}: the pickle sets items on a {type(target).__name__}. {ADVICE}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, bytes | str):
                raise UnsafePickleError(f"{self.name}: a dictionary key is a {type(key).__name__}. {ADVICE}")
            target[key] = value

    def _extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise CorruptArchiveError(f"{self.name}: the pickle appends to a {type(target).__name__}. {ADVICE}")
        target.extend(items)

    # -- the loop ---------------------------------------------------------------------------------------------------
    def run(self) -> Any:
        stack, memo, data = self.stack, self.memo, self.data
        for _ in range(MAX_OPERATIONS):
            if self.position >= len(data):
                raise CorruptArchiveError(f"{self.name}: the pickle ends without a result. {ADVICE}")
            op = data[self.position]
            self.position += 1
            if op == 0x4B:  # K BININT1: labels, by far the most frequent
                stack.append(self._number(1))
            elif op in _COUNTED_BYTES:
                stack.append(self._blob(_COUNTED_BYTES[op]))
            elif op == 0x71:  # q BINPUT
                memo[self._number(1)] = stack[-1]
            elif op == 0x72:  # r LONG_BINPUT
                memo[self._number(4)] = stack[-1]
            elif op == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            elif op == 0x2E:  # . STOP
                return stack.pop()
            else:
                self._rare(op)
        raise UnsafePickleError(f"{self.name}: the pickle has more than {MAX_OPERATIONS:,} operations. {ADVICE}")

    def _rare(self, op: int) -> None:
        stack = self.stack
        if op in _CONSTANTS:
            stack.append(_CONSTANTS[op])
        elif op == 0x28:  # ( MARK
            stack.append(_MARK)
        elif op == 0x68:  # h BINGET
            stack.append(self.memo[self._number(1)])
        elif op == 0x6A:  # j LONG_BINGET
            stack.append(self.memo[self._number(4)])
        elif op == 0x7D:  # } EMPTY_DICT
            stack.append({})
        elif op == 0x5D:  # ] EMPTY_LIST
            stack.append([])
        elif op == 0x65:  # e APPENDS
            items = self._since_mark()
            self._extend(stack[-1], items)
        elif op == 0x61:  # a APPEND
            item = stack.pop()
            self._extend(stack[-1], [item])
        elif op == 0x75:  # u SETITEMS
            items = self._since_mark()
            self._set_items(stack[-1], items)
        elif op == 0x73:  # s SETITEM
            value, key = stack.pop(), stack.pop()
            self._set_items(stack[-1], [key, value])
        elif op == 0x74:  # t TUPLE
            stack.append(tuple(self._since_mark()))
        elif op in (0x85, 0x86, 0x87):  # TUPLE1..3
            count = op - 0x84
            items = stack[-count:]
            del stack[-count:]
            stack.append(tuple(items))
        elif op == 0x63:  # c GLOBAL
            module, attribute = self._line(), self._line()
            stack.append(self._global(module, attribute))
        elif op == 0x93:  # STACK_GLOBAL
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._global(module, attribute))
        elif op == 0x52:  # R REDUCE
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._reduce(function, arguments))
        elif op == 0x62:  # b BUILD
            state = stack.pop()
            self._build(stack[-1], state)
        elif op == 0x4D:  # M BININT2
            stack.append(self._number(2))
        elif op == 0x4A:  # J BININT
            stack.append(self._number(4, signed=True))
        elif op == 0x8A:  # LONG1
            stack.append(self._number(self._number(1), signed=True))
        elif op == 0x47:  # G BINFLOAT
            stack.append(struct.unpack(">d", self._take(8))[0])
        elif op in _COUNTED_TEXT:
            stack.append(str(self._take(self._number(_COUNTED_TEXT[op])), "utf-8"))
        elif op == 0x80:  # PROTO
            self._number(1)
        elif op == 0x95:  # FRAME
            self._number(8)
        elif op == 0x30:  # 0 POP
            stack.pop()
        else:
            self._text_or_refused(op)

    def _text_or_refused(self, op: int) -> None:
        """Protocol 0, which writes values as lines of text, and everything that is refused."""
        stack = self.stack
        if op in (0x49, 0x4C):  # I INT, L LONG
            line = self._line()
            digits = line.rstrip(b"L")
            if len(digits) > 20:
                raise UnsafePickleError(f"{self.name}: a number of {len(digits)} digits. {ADVICE}")
            stack.append(digits == b"01" if op == 0x49 and digits in (b"00", b"01") else int(digits))
        elif op == 0x53:  # S STRING
            line = self._line()
            stack.append(codecs.escape_decode(line[1:-1])[0])
        elif op == 0x56:  # V UNICODE
            stack.append(self._line().decode("raw-unicode-escape"))
        elif op == 0x70:  # p PUT
            self.memo[int(self._line()[:20])] = stack[-1]
        elif op == 0x67:  # g GET
            stack.append(self.memo[int(self._line()[:20])])
        elif op == 0x6C:  # l LIST
            stack.append(self._since_mark())
        elif op == 0x64:  # d DICT
            items = self._since_mark()
            stack.append({})
            self._set_items(stack[-1], items)
        elif op == ord("i"):
            self._global(self._line(), self._line())
            raise UnsafePickleError(f"{self.name}: the pickle makes an object (INST). {ADVICE}")
        elif op in _REFUSED_OPCODES:
            raise UnsafePickleError(f"{self.name}: the pickle uses {_REFUSED_OPCODES[op]}. Nothing was run. {ADVICE}")
        else:
            raise CorruptArchiveError(f"{self.name}: byte 0x{op:02x} is not a pickle operation. {ADVICE}")


def loads(data: bytes | bytearray | memoryview, name: str = "pickle") -> dict[str, Any]:
    """The dictionary a CIFAR-100 pickle holds, its keys as text, its arrays as read-only ``uint8`` arrays.

    Accepts protocols 1 to 5 as written by Python 2 or 3 with numpy 1 or 2 (of protocol 0, lines up to 1 kB: no
    arrays). Byte strings stay bytes (views when long). Raises UnsafePickleError for anything that asks for code or
    for too much, CorruptArchiveError for anything broken.
    """
    machine = _Machine(data, name)
    try:
        result = machine.run()
    except (IndexError, KeyError, ValueError, struct.error, TypeError) as error:
        if isinstance(error, CorruptArchiveError | UnsafePickleError):
            raise
        raise CorruptArchiveError(
            f"{name}: the pickle is damaged ({type(error).__name__}: {error!s:.120}). {ADVICE}"
        ) from error
    if type(result) is not dict:
        raise CorruptArchiveError(f"{name}: holds a {type(result).__name__} instead of a dictionary. {ADVICE}")
    return {as_text(key): value.value if isinstance(value, PickledArray) else value for key, value in result.items()}
