"""Read the CIFAR-100 archive (python version) as the hostile input it may be.

The archive is read as a stream: nothing is ever extracted to disk, only the three members that matter are kept, and the
sum of everything unpacked is bounded, so a bomb ends in an error and not in a full disk or memory. The pickles are read
by `scones.dataset.safe_pickle`.

Format (https://www.cs.toronto.edu/~kriz/cifar.html): ``cifar-100-python.tar.gz`` with
``cifar-100-python/{train,test,meta}``; ``data`` is uint8 (N, 3072): 1024 red, 1024 green, 1024 blue, row by row.
"""

from __future__ import annotations

import difflib
import gzip
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from scones.dataset import safe_pickle
from scones.dataset.errors import ArchiveNotFoundError, CorruptArchiveError, UnknownClassError, UnsafeArchiveError

ARCHIVE_NAME = "cifar-100-python.tar.gz"
IMAGE_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_FOLDER = "cifar-100-python"
_MEMBERS = ("train", "test", "meta")
# The real archive unpacks to 187 MB.
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
_MAX_MEMBERS = 100
_ADVICE = "Take the archive from its official source and check its md5."


@dataclass(frozen=True)
class CifarSplit:
    """Images of one member: ``images`` uint8 (N, 3, 32, 32), ``labels`` int64 (N,) fine label ids, ``names`` N
    file names.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class CifarArchive:
    """Both splits and the class names; the position of a name is its fine label id."""

    train: CifarSplit
    test: CifarSplit
    class_names: list[str]


class _BoundedReader:
    """Stops a decompression bomb: raises once more than ``limit`` bytes have been unpacked."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(block)
        if self._left < 0:
            raise UnsafeArchiveError(
                f"The archive unpacks to more than {self._limit:,} bytes, CIFAR-100 to 187 million. "
                f"Reading was stopped. {_ADVICE}"
            )
        return block


def _check_member(member: tarfile.TarInfo) -> None:
    if member.issym() or member.islnk():
        raise UnsafeArchiveError(f"The archive member {member.name!r} is a link to {member.linkname!r}. {_ADVICE}")
    if not (member.isreg() or member.isdir()):
        raise UnsafeArchiveError(f"The archive member {member.name!r} is a device or another special file. {_ADVICE}")
    parts = member.name.replace("\\", "/").split("/")
    if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in member.name:
        raise UnsafeArchiveError(
            f"The archive member {member.name!r} points outside the archive's folder. Nothing was written. {_ADVICE}"
        )


def _read_members(stream: IO[bytes], limit: int) -> dict[str, bytearray]:
    found: dict[str, bytearray] = {}
    bounded = cast(Any, _BoundedReader(cast(IO[bytes], gzip.GzipFile(fileobj=stream)), limit))
    with tarfile.open(fileobj=bounded, mode="r|", bufsize=1 << 18) as archive:
        for count, member in enumerate(archive):
            if count >= _MAX_MEMBERS:
                raise UnsafeArchiveError(f"The archive has more than {_MAX_MEMBERS} members, CIFAR-100 five. {_ADVICE}")
            _check_member(member)
            folder, _, name = member.name.removeprefix("./").partition("/")
            if folder != _FOLDER or name not in _MEMBERS or not member.isreg():
                continue
            if name in found:
                raise UnsafeArchiveError(f"The archive holds {member.name!r} twice. {_ADVICE}")
            if member.size > limit:
                raise UnsafeArchiveError(f"The archive member {member.name!r} claims {member.size:,} bytes. {_ADVICE}")
            found[name] = _read_all(cast(IO[bytes], archive.extractfile(member)), member)
    return found


def _read_all(source: IO[bytes], member: tarfile.TarInfo) -> bytearray:
    # Grown as bytes really arrive: the size in a header is only a claim.
    content = bytearray()
    while block := source.read(1 << 20):
        content += block
    if len(content) != member.size:
        raise CorruptArchiveError(f"The archive ends inside {member.name!r}. Download it again. {_ADVICE}")
    return content


def read_archive(source: Path | IO[bytes], max_unpacked_bytes: int = MAX_UNPACKED_BYTES) -> CifarArchive:
    """Both splits of a CIFAR-100 archive (path, or a binary stream at its start).

    Raises ArchiveNotFoundError, CorruptArchiveError, UnsafeArchiveError or UnsafePickleError, each saying what was
    found and what to do. Memory: the unpacked pickles once, no copies.
    """
    if isinstance(source, Path):
        try:
            stream = source.open("rb")
        except OSError as error:
            raise ArchiveNotFoundError(
                f"There is no readable archive at {source} ({error.strerror}). "
                "Set CIFAR100_ARCHIVE to a file or URL that exists."
            ) from error
        with stream:
            return read_archive(stream, max_unpacked_bytes)
    try:
        members = _read_members(source, max_unpacked_bytes)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        if isinstance(error, UnsafeArchiveError | CorruptArchiveError):
            raise
        raise CorruptArchiveError(
            f"The archive cannot be read ({type(error).__name__}: {error}): it is damaged, incomplete or not a tar.gz. "
            f"Download it again. {_ADVICE}"
        ) from error
    missing = [f"{_FOLDER}/{name}" for name in _MEMBERS if name not in members]
    if missing:
        raise CorruptArchiveError(
            f"The archive lacks {', '.join(missing)}: it is not CIFAR-100 (python version). {_ADVICE}"
        )
    class_names = _class_names(safe_pickle.loads(members.pop("meta"), "meta"))
    splits = {
        name: _split(safe_pickle.loads(members.pop(name), name), name, len(class_names)) for name in ("train", "test")
    }
    return CifarArchive(splits["train"], splits["test"], class_names)


def _names(value: Any) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(item, bytes | str) for item in value):
        return None
    # By way of bytes, as a pickle's text may hold what no text can (lone surrogates).
    raw = (item.encode("utf-8", "replace") if isinstance(item, str) else item for item in value)
    return [item.decode("utf-8", "replace") for item in raw]


def _class_names(meta: dict[str, Any]) -> list[str]:
    names = _names(meta.get("fine_label_names"))
    if not names or len(set(names)) != len(names):
        raise CorruptArchiveError(f"meta: fine_label_names is missing, empty or has doubles. {_ADVICE}")
    return names


def _split(content: dict[str, Any], member: str, class_count: int) -> CifarSplit:
    data, labels, names = content.get("data"), content.get("fine_labels"), _names(content.get("filenames"))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        found = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise CorruptArchiveError(f"{member}: data is {found}, not an array of (images, {_PIXELS}). {_ADVICE}")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < class_count for label in labels):
        raise CorruptArchiveError(f"{member}: fine_labels is not a list of class ids below {class_count}. {_ADVICE}")
    if names is None:
        raise CorruptArchiveError(f"{member}: filenames is not a list of names. {_ADVICE}")
    if not len(data) == len(labels) == len(names):
        raise CorruptArchiveError(
            f"{member}: {len(data)} images, {len(labels)} labels and {len(names)} file names do not belong "
            f"together. {_ADVICE}"
        )
    return CifarSplit(data.reshape(-1, *IMAGE_SHAPE), np.asarray(labels, dtype=np.int64), names)


def class_ids(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Fine label ids of ``classes``, in their order. Raises UnknownClassError, listing the closest names."""
    if len(classes) < 2:
        raise UnknownClassError(f"At least two classes are needed, got {list(classes)}.")
    doubles = sorted({name for name in classes if list(classes).count(name) > 1})
    if doubles:
        raise UnknownClassError(f"The class {doubles[0]!r} is asked for twice.")
    known = {name: index for index, name in enumerate(class_names)}
    problems = []
    for name in classes:
        if name not in known:
            normal = name.strip().lower().replace(" ", "_").replace("-", "_")
            close = difflib.get_close_matches(normal, class_names, n=3, cutoff=0.5)
            problems.append(f"{name!r} (did you mean {', '.join(close)}?)" if close else f"{name!r}")
    if problems:
        raise UnknownClassError(
            f"CIFAR-100 has no class {'; '.join(problems)}. Its {len(class_names)} classes: {', '.join(class_names)}."
        )
    return [known[name] for name in classes]
