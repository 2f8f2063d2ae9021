"""From an archive to a dataset: chosen classes, a validation split, file names, `.lst` files, one version and a
manifest.

Everything here is deterministic: the same archive, classes, seed, share and accepted labels give the same version,
names and order, whenever and wherever it runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from scones.dataset import cifar
from scones.dataset.checks import CheckReport, check_dataset, exclude_from_training
from scones.dataset.errors import BadInputError
from scones.training.data import Manifest, ManifestFile

# Raised when what is written for the same images changes, so that an old dataset is not taken for the new form.
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
BASELINE_IMAGES = 5_000
_MAX_NAME = 120
_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Split:
    """Some images of one source array: ``source`` uint8 (M, 3, H, W) is shared, ``rows`` picks N of it in order.

    ``labels`` int (N,) are positions in the class list, ``names`` N file names unique within the dataset, ``indices``
    N unique numbers (first column of the `.lst`).
    """

    source: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    names: list[str]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int = 1024) -> Iterator[np.ndarray]:
        """The images as uint8 (n, H, W, 3), some at a time: the whole set is never copied."""
        for first in range(0, len(self.rows), size):
            yield np.ascontiguousarray(self.source[self.rows[first : first + size]].transpose(0, 2, 3, 1))

    def take(self, positions: np.ndarray) -> Split:
        names = [self.names[position] for position in positions.tolist()]
        return Split(self.source, self.rows[positions], self.labels[positions], names, self.indices[positions])

    def lst(self) -> str:
        """The `.lst` file: index, class, path relative to the channel; tabs, LF, no header."""
        rows = zip(self.indices.tolist(), self.labels.tolist(), self.names, strict=True)
        return "".join(f"{index}\t{label}\t{name}\n" for index, label, name in rows)


@dataclass(frozen=True)
class AcceptedImage:
    """An image a person labelled: pixels uint8 (3, H, W) at the dataset's size, its class name and S3 key."""

    pixels: np.ndarray
    label: str
    key: str


@dataclass(frozen=True)
class Dataset:
    """A dataset ready to be written. ``version`` depends on content alone."""

    version: str
    classes: list[str]
    seed: int
    validation_share: float
    splits: dict[str, Split]
    checks: CheckReport

    @property
    def label_map(self) -> dict[str, str]:
        return {str(index): name for index, name in enumerate(self.classes)}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        return self.checks.counts

    def baseline_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """At most `BASELINE_IMAGES` training images, evenly spread: uint8 (n, H, W, 3) and their labels (n,)."""
        train = self.splits["train"]
        step = np.linspace(0, len(train) - 1, min(len(train), BASELINE_IMAGES)).round().astype(np.int64)
        sample = train.take(step)
        return np.concatenate(list(sample.batches())), sample.labels


def safe_names(names: Sequence[str], indices: Sequence[int], taken: set[str]) -> list[str]:
    """File names fit for S3 keys and `.lst` lines, ending in ``.png`` and unique; ``taken`` is added to.

    An archive's file names are input like any other: no folder, no tab, no control character survives.
    """
    result = []
    for name, index in zip(names, indices, strict=True):
        stem = _UNSAFE_NAME.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1]).strip("._")
        stem = re.sub(r"(?i)\.(png|jpe?g)$", "", stem)[:_MAX_NAME] or "image"
        candidate = f"{stem}.png"
        if candidate in taken:
            candidate = f"{stem}-{index}.png"
        while candidate in taken:
            candidate = f"{candidate[:-4]}_.png"
        taken.add(candidate)
        result.append(candidate)
    return result


def stratified_split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions for training and validation, both ascending: of each class, ``share`` (rounded, at least one where the
    class has two images) goes to validation."""
    rng = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        chosen.append(rng.permutation(members)[:count])
    validation = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    mask = np.ones(len(labels), dtype=bool)
    mask[validation] = False
    return np.flatnonzero(mask), validation


def _select(part: cifar.CifarSplit, ids: Sequence[int], offset: int, taken: set[str]) -> Split:
    position = np.full(max(*ids, int(part.labels.max(initial=0))) + 1, -1)
    position[list(ids)] = np.arange(len(ids))
    labels = position[part.labels] if len(part.labels) else part.labels
    rows = np.flatnonzero(labels >= 0)
    names = safe_names([part.names[row] for row in rows.tolist()], (rows + offset).tolist(), taken)
    return Split(part.images, rows, labels[rows], names, rows + offset)


def _with_accepted(
    train: Split, accepted: Sequence[AcceptedImage], classes: Sequence[str], offset: int, taken: set[str]
) -> Split:
    """``train`` and the accepted images after it. Only then is the pixel block copied."""
    if not accepted:
        return train
    indices = np.arange(offset, offset + len(accepted))
    names = safe_names([f"accepted_{image.key.rsplit('/', 1)[-1]}" for image in accepted], indices.tolist(), taken)
    return Split(
        np.concatenate([train.source[train.rows], np.stack([image.pixels for image in accepted])]),
        np.arange(len(train) + len(accepted)),
        np.concatenate([train.labels, [classes.index(image.label) for image in accepted]]).astype(np.int64),
        train.names + names,
        np.concatenate([train.indices, indices]),
    )


def _version(classes: Sequence[str], splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    head = {"format": FORMAT_VERSION, "classes": list(classes), "shape": splits["train"].source.shape[1:]}
    digest.update(json.dumps(head, sort_keys=True).encode())
    for name in SPLITS:
        split = splits[name]
        digest.update(f"\n{name} {len(split)}\n{split.lst()}".encode())
        for row in split.rows.tolist():
            digest.update(split.source[row])
    return f"ds-{digest.hexdigest()[:12]}"


def build_dataset(
    archive: cifar.CifarArchive,
    classes: Sequence[str],
    *,
    validation_share: float = 0.2,
    seed: int = 0,
    mini_batch_size: int = 32,
    accepted: Sequence[AcceptedImage] = (),
) -> Dataset:
    """Choose, clean, split and check. The test set is the archive's own and is not touched.

    Order: training and validation rows are shuffled by ``seed`` once, so that every mini-batch mixes the classes.
    Fatal findings are no errors here: call ``checks.raise_if_fatal()`` after showing ``checks.table()``.

    Raises:
        UnknownClassError: the archive has no such class.
        BadInputError: the share lies outside (0, 0.5].
    """
    if not 0 < validation_share <= 0.5:
        raise BadInputError(f"validation_share is {validation_share}; choose more than 0 and at most 0.5.")
    ids = cifar.class_ids(classes, archive.class_names)
    names = list(classes)
    taken: set[str] = set()
    # Test names first: they are the ones that stay whatever is trained on.
    test = _select(archive.test, ids, len(archive.train.labels), taken)
    whole = _select(archive.train, ids, 0, taken)
    whole = _with_accepted(whole, accepted, names, len(archive.train.labels) + len(archive.test.labels), taken)
    exclusions = exclude_from_training(whole.source, whole.rows, whole.labels, test.source, test.rows)
    whole = whole.take(np.flatnonzero(exclusions.keep))
    train_positions, validation_positions = stratified_split(whole.labels, validation_share, seed)
    rng = np.random.default_rng(seed)
    splits = {
        "train": whole.take(rng.permutation(train_positions)),
        "validation": whole.take(rng.permutation(validation_positions)),
        "test": test,
    }
    counts = {
        split: {name: int((part.labels == index).sum()) for index, name in enumerate(names)}
        for split, part in splits.items()
    }
    checks = check_dataset(counts, exclusions, test.source[test.rows], whole.source.shape[1:], mini_batch_size)
    return Dataset(_version(names, splits), names, seed, validation_share, splits, checks)


def manifest(dataset: Dataset, source: dict[str, str], files: Sequence[ManifestFile], created_at: str) -> Manifest:
    """The manifest of a dataset with these files."""
    return {
        "dataset_version": dataset.version,
        "created_at": created_at,
        "source": source,
        "classes": dataset.classes,
        "label_map": dataset.label_map,
        "image_shape": [int(side) for side in dataset.splits["train"].source.shape[1:]],
        "seed": dataset.seed,
        "validation_share": dataset.validation_share,
        "counts": dataset.counts,
        "checks": [asdict(check) for check in dataset.checks.checks],
        "files": sorted(files, key=lambda item: item["key"]),
    }
