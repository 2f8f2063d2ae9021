"""How an object becomes requests, and their answers one object again: SplitType, BatchStrategy, AssembleWith."""

from __future__ import annotations

from collections.abc import Iterator

MEGABYTE = 1 << 20


class RecordTooLargeError(Exception):
    """A record does not fit into MaxPayloadInMB."""


def payloads(body: bytes, *, split: str, strategy: str, limit_mb: int) -> Iterator[bytes]:
    """The request bodies for one object.

    Not split, the object is one request. Split into lines, it is one for each line (SingleRecord), or as many lines as
    fit into `limit_mb` (MultiRecord). A limit of 0 is none.

    Raises:
        RecordTooLargeError: an object that is not split, or a line, does not fit into `limit_mb`.
    """
    limit = limit_mb * MEGABYTE if limit_mb else None
    if split == "None":
        yield _fitting(body, limit)
        return
    batch: list[bytes] = []
    size = 0
    for line in body.splitlines(keepends=True):
        if not line.strip(b"\r\n"):
            continue
        _fitting(line, limit)
        if strategy == "SingleRecord":
            yield line.rstrip(b"\r\n")
            continue
        if batch and limit is not None and size + len(line) > limit:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield b"".join(batch)


def assemble(answers: list[bytes], assemble_with: str) -> bytes:
    """The answers as one object: put together as they are, or each ended by a newline."""
    if assemble_with == "None":
        return b"".join(answers)
    return b"".join(answer if answer.endswith(b"\n") else answer + b"\n" for answer in answers)


def _fitting(record: bytes, limit: int | None) -> bytes:
    if limit is not None and len(record) > limit:
        raise RecordTooLargeError(
            f"a record of {len(record)} bytes is larger than MaxPayloadInMB ({limit // MEGABYTE})"
        )
    return record
