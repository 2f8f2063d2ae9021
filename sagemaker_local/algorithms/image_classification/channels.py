"""The training job's channels: which images there are, with which label, in either of the built-in's two formats."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.paths import ContainerPaths
from sagemaker_local.algorithms.image_classification.pictures import MOST_BYTES
from sagemaker_local.algorithms.image_classification.recordio import RecordFile

IMAGE_TYPES = ("application/x-image", "image/png", "image/jpeg")
RECORD_TYPE = "application/x-recordio"
MODEL_TYPE = "application/x-sagemaker-model"


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image: a file, or a record inside a RecordIO file."""

    path: Path
    label: int
    offset: int | None = None


class Channel:
    """The images of one channel, in the order of the .lst or of the records."""

    def __init__(self, name: str, root: Path, examples: list[Example]) -> None:
        self.name = name
        self.root = root
        self.examples = examples
        self._records: dict[Path, RecordFile] = {}

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> list[int]:
        return [example.label for example in self.examples]

    def describe(self, index: int) -> str:
        """What an error message calls this image."""
        example = self.examples[index]
        name = f"{self.name}/{example.path.relative_to(self.root).as_posix()}"
        return name if example.offset is None else f"record at byte {example.offset} of {name}"

    def content(self, index: int) -> bytes:
        """Encoded bytes of one image.

        Raises:
            AlgorithmError: the file cannot be read or is absurdly large.
        """
        example = self.examples[index]
        try:
            if example.offset is None:
                if example.path.stat().st_size > MOST_BYTES:
                    raise AlgorithmError(
                        f"{self.describe(index)} has more than {MOST_BYTES} bytes; no image is that large"
                    )
                return example.path.read_bytes()
            if example.path not in self._records:
                self._records[example.path] = RecordFile(example.path)
            return self._records[example.path].read(example.offset)[2]
        except OSError as error:
            raise AlgorithmError(f"{self.describe(index)} cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        for record in self._records.values():
            record.close()
        self._records.clear()


def open_channel(paths: ContainerPaths, configuration: dict[str, Any], name: str, num_classes: int) -> Channel:
    """The `train` or `validation` channel, with its labels.

    Image files (`application/x-image`) take their labels from the channel `<name>_lst`; RecordIO carries its own.

    Raises:
        AlgorithmError: a channel is missing, empty or of another content type, or one of its labels or rows is wrong.
    """
    if name not in configuration:
        raise AlgorithmError(f"The channel '{name}' is missing; the job has {_names(configuration)}")
    root = paths.channel(name)
    if not root.is_dir():
        raise AlgorithmError(f"The channel '{name}' has no data: its S3 prefix holds nothing")
    if configuration[name].get("TrainingInputMode", "File") != "File":
        raise AlgorithmError(f"The channel '{name}' asks for input mode Pipe; the local algorithm reads File mode")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if not files:
        raise AlgorithmError(f"The channel '{name}' has no data: its S3 prefix holds nothing")
    content_type = _content_type(configuration[name], files, name)
    if content_type == RECORD_TYPE:
        return Channel(name, root, list(_records(files, name, num_classes)))
    listing = f"{name}_lst"
    if listing not in configuration:
        raise AlgorithmError(f"The channel '{listing}' is missing: {content_type} needs a .lst file with the classes")
    lists = [path for path in sorted(paths.channel(listing).rglob("*")) if path.is_file()]
    if len(lists) != 1:
        raise AlgorithmError(f"The channel '{listing}' must hold exactly one .lst file; it holds {len(lists)}")
    return Channel(name, root, read_list(lists[0], root, name, num_classes))


def _names(configuration: dict[str, Any]) -> str:
    return ", ".join(sorted(configuration)) or "none"


def _content_type(settings: dict[str, Any], files: list[Path], name: str) -> str:
    given = str(settings.get("ContentType") or "").split(";")[0].strip().lower()
    if not given:  # S3 prefixes given without a content type: the files tell
        return RECORD_TYPE if all(path.suffix == ".rec" for path in files) else IMAGE_TYPES[0]
    if given != RECORD_TYPE and given not in IMAGE_TYPES:
        raise AlgorithmError(
            f"The channel '{name}' has content type {given!r}; use application/x-image with a .lst channel,"
            " or application/x-recordio"
        )
    return given


def _label(value: float, num_classes: int, where: str) -> int:
    if not math.isfinite(value) or value != int(value) or not 0 <= value < num_classes:
        raise AlgorithmError(f"{where} has the class {value:g}; classes are whole numbers from 0 to {num_classes - 1}")
    return int(value)


def _records(files: Iterable[Path], name: str, num_classes: int) -> Iterable[Example]:
    found = [path for path in files if path.suffix == ".rec"]
    if not found:
        raise AlgorithmError(f"The channel '{name}' has content type {RECORD_TYPE} but holds no .rec file")
    for path in found:
        with RecordFile(path) as record:
            for offset in record.offsets():
                label, _, _ = record.read(offset)
                where = f"the record at byte {offset} of {name}/{path.name}"
                yield Example(path, _label(label, num_classes, where), offset)


def read_list(path: Path, root: Path, name: str, num_classes: int) -> list[Example]:
    """The rows of a .lst file: index, class, path below `root`, separated by tabs.

    Raises:
        AlgorithmError: naming the line: not three columns, a repeated index, a class out of range, a path that leaves
            the channel or names no file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise AlgorithmError(f"{path.name} cannot be read as text: {error}") from error
    base = root.resolve()
    seen: set[int] = set()
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number} of {path.name}"
        columns = line.split("\t")
        if len(columns) != 3:
            raise AlgorithmError(f"{where} has {len(columns)} tab-separated columns; it must be index, class, path")
        try:
            index, value = int(float(columns[0])), float(columns[1])
        except (ValueError, OverflowError):
            raise AlgorithmError(f"{where}: index and class must be numbers, not {line[:60]!r}") from None
        if index in seen:
            raise AlgorithmError(f"{where} repeats the index {index}; each image needs its own")
        seen.add(index)
        relative = PurePosixPath(columns[2].strip())
        file = root / relative
        if relative.is_absolute() or ".." in relative.parts or not file.resolve().is_relative_to(base):
            raise AlgorithmError(f"{where} points outside the channel '{name}': {str(relative)[:120]!r}")
        if not file.is_file():
            raise AlgorithmError(f"{where} names {str(relative)[:120]!r}, which is not in the channel '{name}'")
        examples.append(Example(file, _label(value, num_classes, where), None))
    if not examples:
        raise AlgorithmError(f"{path.name} lists no image")
    return examples
