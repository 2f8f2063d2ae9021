"""The reject queue: images the model was not sure of, and the labels people gave them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ACCEPTED_KEY = "labels/accepted.csv"
ACCEPTED_COLUMNS = ("key", "label")
REJECTED_COLUMNS = ("key", "label", "guess", "confidence", "inference_id", "execution_arn")


class UnknownLabelError(ValueError):
    """A label names no class of the dataset."""


def rejected_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rejected row as a line of rejected.csv; ``label`` is empty where it is to be filled in."""
    return {
        "key": row["key"],
        "label": row.get("label_class") or "",
        "guess": row.get("predicted_class") or row.get("predicted_index"),
        "confidence": row.get("confidence"),
        "inference_id": row.get("inference_id"),
        "execution_arn": row.get("execution_arn"),
    }


def check_labels(labels: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
    """Return ``{key: class name}``; empty labels (not decided yet) are left out, an index becomes its name.

    Raises:
        UnknownLabelError: a label is no class; names the image.
    """
    checked = {}
    for key, label in labels.items():
        text = str(label).strip()
        if not text:
            continue
        if text.isdigit() and int(text) < len(classes):
            text = classes[int(text)]
        if text not in classes:
            raise UnknownLabelError(f"{key!r} is labelled {text!r}; the classes are {', '.join(classes)}.")
        checked[key] = text
    return checked


def read_accepted(text: str) -> dict[str, str]:
    """Read accepted.csv: ``{key: class name}``; an empty text holds none."""
    return read_labelled(text) if text.strip() else {}


def merge_accepted(text: str, accepted: Mapping[str, str]) -> str:
    """Return accepted.csv with ``accepted`` added; a later label of the same image replaces the earlier one."""
    merged = {**read_accepted(text), **accepted}
    return _csv(ACCEPTED_COLUMNS, ({"key": key, "label": label} for key, label in sorted(merged.items())))


def read_labelled(text: str) -> dict[str, str]:
    """Read a rejected.csv that was filled in (any CSV with key and label): ``{key: label}``."""
    reader = csv.DictReader(io.StringIO(text))
    missing = {"key", "label"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"The CSV has no column {' and '.join(sorted(missing))}: its header is {reader.fieldnames}.")
    return {row["key"]: row["label"] or "" for row in reader}


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
