"""Read the members that matter from a CIFAR-100 archive as a stream: the process that `scones.dataset.unpack` starts.

A hostile archive may do what it likes to this process: it has limits on memory and processor time. It starts for every
archive, so it imports little.
"""

from __future__ import annotations

import gzip
import resource
import sys
import tarfile
import zlib

from scones.dataset.errors import BadInputError, CorruptArchiveError, UnsafeArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

FOLDER = "cifar-100-python"
MEMBERS = ("train", "test", "meta")
# The real archive unpacks to 187 MB.
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
ADVICE = "Take the archive from its official source and check its md5."
_MAX_MEMBERS = 100
_MAX_EXTENSION = 2048
# An honest archive takes 250 MB.
_MEMORY_BYTES = MAX_UNPACKED_BYTES + 512 * 1024 * 1024


class _BoundedReader:
    """Stops a decompression bomb: raises once more than ``limit`` bytes have been unpacked."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(block)
        if self._left < 0:
            raise UnsafeArchiveError(
                f"The archive unpacks to more than {self._limit:,} bytes, CIFAR-100 to 187 million. "
                f"Reading was stopped. {ADVICE}"
            )
        return block


class _Header(tarfile.TarInfo):
    """A header whose extensions are small: tarfile's work on them grows with the square of their length."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        # Not `frombuf`, which newer Pythons no longer call.
        extends = self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if extends and self.size > _MAX_EXTENSION:
            raise UnsafeArchiveError(f"The archive has an extended header of {self.size:,} bytes. {ADVICE}")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise UnsafeArchiveError(f"The archive member {self.name!r:.200} is sparse. {ADVICE}")
        return super()._proc_member(tar)  # type: ignore[misc]


def _check_member(member: tarfile.TarInfo) -> None:
    if member.issparse():
        raise UnsafeArchiveError(f"The archive member {member.name!r:.200} is sparse. {ADVICE}")
    if member.issym() or member.islnk():
        raise UnsafeArchiveError(f"The archive member {member.name!r} is a link to {member.linkname!r}. {ADVICE}")
    if not (member.isreg() or member.isdir()):
        raise UnsafeArchiveError(f"The archive member {member.name!r} is a device or another special file. {ADVICE}")
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in member.name:
        raise UnsafeArchiveError(
            f"The archive member {member.name!r} points outside the archive's folder. Nothing was written. {ADVICE}"
        )


def read_members(stream: IO[bytes], limit: int = MAX_UNPACKED_BYTES) -> dict[str, bytearray]:
    """The members that matter, by name.

    Nothing is extracted to disk, and the sum of everything unpacked is bounded, so a bomb ends in an error and not in
    a full disk or memory.

    Raises:
        UnsafeArchiveError: it would unpack to too much, or holds what no such archive holds.
        CorruptArchiveError: it is damaged, or lacks a member.
    """
    try:
        return _members(stream, limit)
    except (UnsafeArchiveError, CorruptArchiveError):
        raise
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError) as error:
        raise CorruptArchiveError(
            f"The archive cannot be read ({type(error).__name__}: {error!s:.200}): it is damaged, incomplete or not a "
            f"tar.gz. Download it again. {ADVICE}"
        ) from error


def _members(stream: IO[bytes], limit: int) -> dict[str, bytearray]:
    found: dict[str, bytearray] = {}
    bounded: Any = _BoundedReader(gzip.GzipFile(fileobj=stream), limit)
    with tarfile.open(fileobj=bounded, mode="r|", bufsize=1 << 18, tarinfo=_Header) as archive:
        for count, member in enumerate(archive):
            if count >= _MAX_MEMBERS:
                raise UnsafeArchiveError(f"The archive has more than {_MAX_MEMBERS} members, CIFAR-100 five. {ADVICE}")
            _check_member(member)
            folder, _, name = member.name.removeprefix("./").partition("/")
            if folder != FOLDER or name not in MEMBERS or not member.isreg():
                continue
            if name in found:
                raise UnsafeArchiveError(f"The archive holds {member.name!r} twice. {ADVICE}")
            if member.size > limit:
                raise UnsafeArchiveError(f"The archive member {member.name!r} claims {member.size:,} bytes. {ADVICE}")
            found[name] = _read_all(archive.extractfile(member), member)
    return found


def _read_all(source: Any, member: tarfile.TarInfo) -> bytearray:
    # Grown as bytes really arrive: the size in a header is only a claim.
    content = bytearray()
    while block := source.read(1 << 20):
        content += block
    if len(content) != member.size:
        raise CorruptArchiveError(f"The archive ends inside {member.name!r}. Download it again. {ADVICE}")
    return content


def main(path: str, folder: str, limit: str, cpu_seconds: str) -> int:
    """Write the members into ``folder``, or the name of an error and its message to standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        with open(path, "rb") as stream:
            for name, content in read_members(stream, int(limit)).items():
                with open(f"{folder}/{name}", "wb") as out:
                    out.write(content)
        return 0
    except MemoryError:
        refused: BadInputError = UnsafeArchiveError(f"The archive takes too much memory. {ADVICE}")
    except BadInputError as error:
        refused = error
    sys.stdout.buffer.write(f"{type(refused).__name__}\n{refused}".encode("utf-8", "replace"))
    return 1
