"""Look at the selected images before anything is paid for: counts, balance, duplicates, leaks, images without
content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scones.dataset.errors import DataCheckError

# Beyond this the small class is as good as absent; below, the quality gate judges the model and not a guess here.
MAX_IMBALANCE = 200.0
_MAX_BAD_SHARE = 0.05
_MIN_PER_CLASS = {"train": 2, "validation": 1, "test": 1}
OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``advice`` says what to do when the level is not "ok"."""

    name: str
    level: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class CheckReport:
    """All checks, and the images per split and class that they looked at."""

    counts: dict[str, dict[str, int]]
    checks: list[Check] = field(default_factory=list)

    @property
    def errors(self) -> list[Check]:
        return [check for check in self.checks if check.level == ERROR]

    def table(self) -> str:
        """Both tables as text, for the task log."""
        classes = list(next(iter(self.counts.values()), {}))
        rows = [["class", *self.counts]]
        rows += [[name, *(str(split.get(name, 0)) for split in self.counts.values())] for name in classes]
        rows.append(["all", *(str(sum(split.values())) for split in self.counts.values())])
        checks = [["check", "result", "found"]] + [
            [check.name, check.level.upper(), check.found] for check in self.checks
        ]
        advice = [f"  {check.name}: {check.advice}" for check in self.checks if check.advice and check.level != OK]
        return "\n".join(["Images", *_aligned(rows, right=True), "", "Data checks", *_aligned(checks), *advice])

    def raise_if_fatal(self) -> None:
        """Raise DataCheckError naming every fatal finding and what to do about it."""
        if self.errors:
            found = " ".join(f"{check.name}: {check.found}. {check.advice}" for check in self.errors)
            raise DataCheckError(f"The images cannot be used. {found}")


def _aligned(rows: list[list[str]], right: bool = False) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if right and column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def pixel_keys(source: np.ndarray, rows: np.ndarray) -> list[bytes]:
    """A key per image ``source[row]``, equal exactly when the pixels are."""
    return [hashlib.sha256(source[row].tobytes()).digest() for row in rows.tolist()]


def constant_images(source: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which images ``source[row]`` have the same value in all pixels: a failed camera or a failed conversion."""
    axes = tuple(range(1, source.ndim))
    chunks = (source[chunk] for chunk in np.array_split(rows, len(rows) // 4096 + 1))
    return np.concatenate([chunk.max(axis=axes) == chunk.min(axis=axes) for chunk in chunks])


@dataclass(frozen=True)
class Exclusions:
    """Which training images are left out, and why. The test set is never changed."""

    keep: np.ndarray
    leaked: int
    conflicting: int
    constant: int
    duplicates: int


def exclude_from_training(
    source: np.ndarray, rows: np.ndarray, labels: np.ndarray, test_source: np.ndarray, test_rows: np.ndarray
) -> Exclusions:
    """Choose which of the training images ``source[rows]`` to keep.

    Left out: images that are also in the test set (the reported accuracy would be a lie), images that occur with two
    labels, constant images, and all but the first of equal images with one label (a copy could land on both sides
    of the validation split).
    """
    keys, test_keys = pixel_keys(source, rows), set(pixel_keys(test_source, test_rows))
    leaked = np.fromiter((key in test_keys for key in keys), dtype=bool, count=len(keys))
    constant = constant_images(source, rows)
    label_of: dict[bytes, int] = {}
    conflicts: set[bytes] = set()
    repeated = np.zeros(len(keys), dtype=bool)
    for position, (key, label) in enumerate(zip(keys, labels.tolist(), strict=True)):
        if key in label_of:
            repeated[position] = True
            if label_of[key] != label:
                conflicts.add(key)
        else:
            label_of[key] = label
    conflicting = np.fromiter((key in conflicts for key in keys), dtype=bool, count=len(keys))
    duplicates = repeated & ~conflicting
    keep = ~(leaked | constant | conflicting | duplicates)
    return Exclusions(keep, int(leaked.sum()), int(conflicting.sum()), int(constant.sum()), int(duplicates.sum()))


def _graded(name: str, count: int, of: int, what: str, advice: str) -> Check:
    if not count:
        return Check(name, OK, "none")
    level = ERROR if count > _MAX_BAD_SHARE * of else WARNING
    return Check(name, level, f"{count} of {of} training images are {what}, left out", advice)


def _enough(counts: dict[str, dict[str, int]], mini_batch_size: int) -> list[Check]:
    """Whether there are images of every class, and enough for a mini-batch."""
    short = [
        f"{name} has {number} {split} image{'s' * (number != 1)}, needs {_MIN_PER_CLASS[split]}"
        for split, classes in counts.items()
        for name, number in classes.items()
        if number < _MIN_PER_CLASS[split]
    ]
    checks = [
        Check(
            "images per class",
            ERROR if short else OK,
            "; ".join(short) or "every class is in every split",
            "Choose classes the archive has images of, or another archive or validation share.",
        )
    ]
    for split in ("train", "validation"):
        total = sum(counts[split].values())
        if split == "train" or total < mini_batch_size:
            # AWS's algorithm fails on fewer training images than one mini-batch; a short validation set it pads.
            level = (ERROR if split == "train" else WARNING) if total < mini_batch_size else OK
            checks.append(
                Check(
                    f"{split} images vs mini-batch",
                    level,
                    f"{total} {split} images, mini_batch_size {mini_batch_size}",
                    f"Lower mini_batch_size to at most {max(total, 1)}, or give more images.",
                )
            )
    return checks


def _balance(train: dict[str, int]) -> Check:
    numbers = [number for number in train.values() if number]
    ratio = max(numbers) / min(numbers) if numbers else 1.0
    return Check(
        "balance",
        WARNING if ratio > 2 and ratio <= MAX_IMBALANCE else ERROR if ratio > MAX_IMBALANCE else OK,
        f"largest class is {ratio:.1f} times the smallest",
        "Give more images of the small class, or leave it out.",
    )


def _test_set(images: np.ndarray) -> Check:
    everything = np.arange(len(images))
    blank = int(constant_images(images, everything).sum())
    equal = len(images) - len(set(pixel_keys(images, everything)))
    odd = [text for number, text in ((blank, f"{blank} of one single colour"), (equal, f"{equal} copies")) if number]
    level = ERROR if max(blank, equal) > _MAX_BAD_SHARE * len(images) else WARNING
    return Check(
        "test images",
        level if odd else OK,
        ", ".join(odd) or "all different",
        "The test set is used as it is: correct its source.",
    )


def check_dataset(
    counts: dict[str, dict[str, int]],
    exclusions: Exclusions,
    test_images: np.ndarray,
    image_shape: Sequence[int],
    mini_batch_size: int,
) -> CheckReport:
    """All checks over a split dataset. ``counts``: images per split ("train", "validation", "test") and class name."""
    total = len(exclusions.keep)
    left_out = (
        ("train/test leaks", exclusions.leaked, "in the test set too", "Remove them from the source."),
        ("contradicting labels", exclusions.conflicting, "there with two labels", "Correct the labels."),
        ("duplicates", exclusions.duplicates, "copies of another", "Remove the copies from the source."),
        ("constant images", exclusions.constant, "of one single colour", "Check how they were made."),
    )
    checks = [
        *_enough(counts, mini_batch_size),
        _balance(counts["train"]),
        Check("size", OK, "x".join(map(str, image_shape)) + " (channels, height, width) for every image"),
        *(_graded(name, count, total, what, advice) for name, count, what, advice in left_out),
        _test_set(test_images),
    ]
    return CheckReport(counts, checks)
