"""Read the CIFAR-100 archive (python version) as the hostile input it may be.

The tar is read by `scones.dataset.tar`, the pickles by `scones.dataset.safe_pickle`.

Format (https://www.cs.toronto.edu/~kriz/cifar.html): ``cifar-100-python.tar.gz`` with
``cifar-100-python/{train,test,meta}``; ``data`` is uint8 (N, 3072): 1024 red, 1024 green, 1024 blue, row by row.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from scones.dataset import safe_pickle
from scones.dataset.errors import CorruptArchiveError, UnknownClassError
from scones.dataset.tar import ADVICE, FOLDER, MAX_UNPACKED_BYTES, MEMBERS, read_members
from scones.dataset.unpack import unpack

IMAGE_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


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


def read_archive(source: Path | IO[bytes], max_unpacked_bytes: int = MAX_UNPACKED_BYTES) -> CifarArchive:
    """Both splits of a CIFAR-100 archive: a path, unpacked in a process of its own; or a binary stream at its start.

    Memory: the unpacked pickles once, no copies.

    Raises:
        ArchiveNotFoundError: there is no such file.
        CorruptArchiveError: it is damaged, or no CIFAR-100 archive.
        UnsafeArchiveError: it would unpack to too much, or is built as no honest one is.
        UnsafePickleError: a pickle in it asks for code.
    """
    members: dict[str, Any] = {}
    if isinstance(source, Path):
        members.update(unpack(source, max_unpacked_bytes))
    else:
        members.update(read_members(source, max_unpacked_bytes))
    missing = [f"{FOLDER}/{name}" for name in MEMBERS if name not in members]
    if missing:
        raise CorruptArchiveError(
            f"The archive lacks {', '.join(missing)}: it is not CIFAR-100 (python version). {ADVICE}"
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
        raise CorruptArchiveError(f"meta: fine_label_names is missing, empty or has duplicates. {ADVICE}")
    return names


def _split(content: dict[str, Any], member: str, class_count: int) -> CifarSplit:
    data, labels, names = content.get("data"), content.get("fine_labels"), _names(content.get("filenames"))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        found = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise CorruptArchiveError(f"{member}: data is {found}, not an array of (images, {_PIXELS}). {ADVICE}")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < class_count for label in labels):
        raise CorruptArchiveError(f"{member}: fine_labels is not a list of class ids below {class_count}. {ADVICE}")
    if names is None:
        raise CorruptArchiveError(f"{member}: filenames is not a list of names. {ADVICE}")
    if not len(data) == len(labels) == len(names):
        raise CorruptArchiveError(
            f"{member}: {len(data)} images, {len(labels)} labels and {len(names)} file names do not belong "
            f"together. {ADVICE}"
        )
    return CifarSplit(data.reshape(-1, *IMAGE_SHAPE), np.asarray(labels, dtype=np.int64), names)


def class_ids(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Fine label ids of ``classes``, in their order.

    Raises:
        UnknownClassError: one is unknown; the message lists the closest names.
    """
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
