"""The reject queue: images the model was not sure of, and the labels people gave them."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scones.batch.inputs import BatchInputError, csv_line, open_text, parse_label, read_table, text_lines
from scones.batch.items import Row
from scones.batch.store import BatchStore

log = logging.getLogger(__name__)

ACCEPTED_COLUMNS = ("key", "label")
REJECTED_HEADER = csv_line(("key", "label", "guess", "confidence", "inference_id", "execution_arn", "origin"))


def rejected_line(row: Row) -> str:
    """Return a rejected row as a line of rejected.csv; ``label`` is empty where it is to be filled in."""
    guess = row["predicted_class"] or row["predicted_index"]
    rest = (row["confidence"], row["inference_id"], row["execution_arn"], row["origin"])
    return csv_line((row["key"], row["label_class"], guess, *rest))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line of rejected.csv: the image, what the model took it for, how sure it was, which answer that was, and the
    test image behind it."""

    key: str
    guess: str
    confidence: float | None
    inference_id: str = ""
    origin: str = ""


def read_rejected(content: bytes, name: str) -> Iterator[Rejected]:
    """Yield the lines of a rejected.csv; a damaged one costs itself and what follows it in this file."""
    try:
        lines = text_lines(open_text(io.BytesIO(content), name), name)
        for _, row in read_table(lines, name, ["key"]):
            if row["key"]:
                said = (row.get("guess", ""), _finite(row.get("confidence", "")))
                yield Rejected(row["key"], *said, row.get("inference_id", ""), row.get("origin", ""))
    except BatchInputError as error:
        log.warning("Some rejected images are not shown: %s", error)


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check_labels(labels: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
    """Return ``{key: class name}``; empty labels (not decided yet) are left out, an index becomes its name.

    Raises:
        BatchInputError: a label is no class; names the image.
    """
    found = {key: parse_label(label, repr(key), classes) for key, label in labels.items()}
    return {key: classes[index] for key, index in found.items() if index is not None}


def read_labelled(content: bytes, name: str = "The file") -> dict[str, str]:
    """Read a rejected.csv that was filled in (any CSV with key and label): ``{key: label}``.

    Raises:
        BatchInputError: it cannot be read, or gives an image two labels; names the line.
    """
    lines = text_lines(open_text(io.BytesIO(content), name), name)
    labels: dict[str, str] = {}
    for where, row in read_table(lines, name, ACCEPTED_COLUMNS):
        key, label = row["key"], row.get("label", "").strip()
        if not key and label:
            raise BatchInputError(f"{where} has a label and no key.")
        if label and labels.get(key) not in (None, "", label):
            raise BatchInputError(f"{where}: {key!r} is labelled {label!r}, and {labels[key]!r} in a line before.")
        if key:
            labels[key] = label or labels.get(key, "")
    return labels


def read_accepted(content: bytes | None) -> dict[str, str]:
    """Read accepted.csv: ``{key: class name}``; an absent or empty file holds none."""
    return read_labelled(content, "labels/accepted.csv") if content and content.strip() else {}


def merge_accepted(content: bytes | None, accepted: Mapping[str, str]) -> bytes:
    """Return accepted.csv with ``accepted`` added; a later label of the same image replaces the earlier one."""
    return _csv({**read_accepted(content), **accepted}.items())


def new_labels(accepted: bytes | None, taken: bytes | None, classes: Sequence[str]) -> int:
    """Return how many labels of these classes no training has taken; a label that was changed is a new one.

    Raises:
        BatchInputError: one of the two files cannot be read.
    """
    before = read_accepted(taken)
    return sum(label in classes and before.get(key) != label for key, label in read_accepted(accepted).items())


def _csv(labels: Iterable[tuple[str, str]]) -> bytes:
    return "".join([csv_line(ACCEPTED_COLUMNS), *map(csv_line, sorted(labels))]).encode()


def accept_labels(labels: Mapping[str, str], store: BatchStore, classes: Sequence[str]) -> int:
    """Add labels that people gave to rejected images: the next staging takes them as extra training images.

    Two people who accept labels at once both keep theirs.

    Args:
        labels: S3 key -> class name or index; empty values are left out. A later label replaces an earlier one.
        classes: class names in the label order of the model that rejected the images.

    Returns:
        How many labels were taken.

    Raises:
        BatchInputError: a label is no class; nothing is written.
        ConflictError: others kept changing the file at the same time.
    """
    accepted = check_labels(labels, classes)
    if accepted:
        store.change_accepted_labels(lambda content: merge_accepted(content, accepted))
    return len(accepted)


def withdraw_labels(keys: Iterable[str], store: BatchStore) -> None:
    """Take labels of images back: the next staging knows nothing of them."""
    gone = frozenset(keys)

    def without(content: bytes | None) -> bytes:
        return _csv((key, label) for key, label in read_accepted(content).items() if key not in gone)

    store.change_accepted_labels(without)


def accept_labelled_csv(content: bytes, store: BatchStore, classes: Sequence[str]) -> int:
    """Add the labels of a filled-in rejected.csv; see :func:`accept_labels`."""
    return accept_labels(read_labelled(content), store, classes)
