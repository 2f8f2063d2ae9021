"""Stage the training images: archive in, dataset in S3 out.

The dataset lands under `scones.aws.layout.dataset`:

    test/<file>.png, test.lst             always: people, the batch and the evaluation read these
    train.lst, validation.lst             always
    recordio/{train,validation}/...rec    when RecordIO trains (one file per channel, as AWS asks)
    {train,validation}/<file>.png         when PNGs train
    label_map.json, baseline/*.json, manifest.json (after all of these), then datasets/current.json

The version depends on the images, labels and classes alone. Staging again what is there uploads nothing; what was
broken off half-way is completed; asking for the other training form adds it to the same dataset.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from scones.aws import layout
from scones.aws.store import JSON, ObjectStore
from scones.dataset import cifar
from scones.dataset.accepted import take_accepted_images
from scones.dataset.archive import get_archive
from scones.dataset.build import Dataset, Split, build_dataset, manifest
from scones.dataset.cifar_classes import FINE_NAMES
from scones.dataset.errors import BadInputError
from scones.dataset.png import encode_pngs
from scones.dataset.recordio import pack_image
from scones.dataset.upload import Uploader, Written
from scones.images.statistics import baseline_statistics
from scones.monitoring.drift import suggest_constraints
from scones.settings import Settings
from scones.training.data import ManifestFile, StagedDataset

log = logging.getLogger(__name__)
INPUT_KINDS = ("recordio", "png")
_ANEW = "it is written anew"
UPLOAD_THREADS = 8


@dataclass(frozen=True)
class StagingRequest:
    """What a run asks for.

    Attributes:
        classes: CIFAR-100 fine class names; the position in this list is the class index.
        validation_share: share of the training images held out for validation, of each class, in (0, 0.5].
        seed: of the split and the order of the training images (and of the drawn sample).
        input_kind: "recordio" or "png": the form that is staged for training.
        mini_batch_size: fewer training images than this are refused, as the algorithm would fail on them.
    """

    classes: tuple[str, ...]
    validation_share: float = 0.2
    seed: int = 0
    input_kind: str = "recordio"
    mini_batch_size: int = 32


def stage(store: ObjectStore, request: StagingRequest, settings: Settings) -> StagedDataset:
    """Stage CIFAR-100 for the image-classification algorithm and return where everything is.

    Args:
        store: the project's bucket, its client fit for `UPLOAD_THREADS`.
        request: what to stage.
        settings: archive, mirrors and cache folder.

    Raises:
        BadInputError: anything about the input that a retry does not change (unknown class, corrupt or hostile
            archive, failed data check): fail the task at once.
        DownloadError: the archive could not be fetched; a later try continues the download.
    """
    if request.input_kind not in INPUT_KINDS:
        raise BadInputError(f"input_kind is {request.input_kind!r}; choose one of {', '.join(INPUT_KINDS)}.")
    if not settings.cifar100_archive:
        cifar.class_ids(request.classes, FINE_NAMES)  # a misspelt class is no reason to download anything
    found = get_archive(store, request.classes, settings=settings, seed=request.seed)
    content = cifar.read_archive(found.path)
    dataset = build_dataset(
        content,
        request.classes,
        validation_share=request.validation_share,
        seed=request.seed,
        mini_batch_size=request.mini_batch_size,
        accepted=take_accepted_images(store, request.classes),
    )
    log.info("\n%s", dataset.checks.table())
    dataset.checks.raise_if_fatal()
    uploaded = _write(store, dataset, found.source(), request.input_kind)
    return _result(store, dataset, found.source(), request.input_kind, uploaded)


def _write(store: ObjectStore, dataset: Dataset, source: dict[str, str], input_kind: str) -> int:
    """Upload what is missing; the number of objects uploaded (0: everything was there)."""
    prefix, manifest_key = layout.dataset(dataset.version), layout.manifest(dataset.version)
    existing = {item["Key"]: item for item in store.objects(prefix)}
    old = store.read_usable(manifest_key, _ANEW) if manifest_key in existing else {}
    known = {item["key"]: item for item in old.get("files", [])}
    uploaded = 0
    if all(
        key in known and prefix + key in existing and existing[prefix + key]["Size"] == known[key]["bytes"]
        for key in _planned(dataset, input_kind)
    ):
        log.info("The dataset is in %s already, unchanged: nothing is uploaded", store.uri(prefix))
    else:
        files: list[ManifestFile] = []
        with Uploader(store, existing, UPLOAD_THREADS) as uploader:
            for key, split, label, written in _contents(uploader, prefix, dataset, input_kind):
                files.append(
                    {"key": key, "split": split, "label": label, "sha256": written.sha256, "bytes": written.bytes}
                )
        written_keys = {item["key"] for item in files}
        files += [item for key, item in known.items() if key not in written_keys and prefix + key in existing]
        created_at = old.get("created_at") or datetime.now(UTC).isoformat(timespec="seconds")
        store.write_json(manifest_key, manifest(dataset, old.get("source") or source, files, created_at))
        uploaded = uploader.uploaded + 1
        log.info("Uploaded %d objects to %s, %d were there", uploaded, store.uri(prefix), uploader.unchanged)
    pointer = {"dataset_version": dataset.version, "manifest_key": manifest_key}
    if store.read_usable(layout.CURRENT_DATASET, _ANEW) != pointer:
        store.write_json(layout.CURRENT_DATASET, pointer)
    return uploaded


def _planned(dataset: Dataset, input_kind: str) -> Iterator[str]:
    """Keys, below the dataset's prefix, of everything that is to be there except the manifest."""
    yield from ("label_map.json", "baseline/statistics.json", "baseline/constraints.json")
    for split, part in dataset.splits.items():
        yield f"{split}.lst"
        if split == "test" or input_kind == "png":
            yield from (f"{split}/{name}" for name in part.names)
        else:
            yield _record_key(split)


def _record_key(split: str) -> str:
    return f"recordio/{split}/{split}-00000.rec"


def _contents(
    uploader: Uploader, prefix: str, dataset: Dataset, input_kind: str
) -> Iterator[tuple[str, str, int, Written]]:
    """Write every planned object; yields key, split ("" for none), label (-1 for none) and what was written."""
    for split, part in dataset.splits.items():
        if split == "test" or input_kind == "png":
            for name, label, png in zip(part.names, part.labels.tolist(), _pngs(part), strict=True):
                yield f"{split}/{name}", split, label, uploader.put(f"{prefix}{split}/{name}", png, "image/png")
        else:
            key = _record_key(split)
            written = uploader.put_stream(prefix + key, partial(_records, part), "application/x-recordio")
            yield key, split, -1, written
        key = f"{split}.lst"
        yield key, split, -1, uploader.put(prefix + key, part.lst().encode(), "text/tab-separated-values")
    baseline = baseline_statistics(*dataset.baseline_sample(), dataset.classes)
    documents = {
        "label_map.json": dataset.label_map,
        "baseline/statistics.json": baseline,
        "baseline/constraints.json": suggest_constraints(baseline),
    }
    for key, document in documents.items():
        body = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
        yield key, "", -1, uploader.put(prefix + key, body, JSON)


def _pngs(part: Split) -> Iterator[bytes]:
    return (png for batch in part.batches() for png in encode_pngs(batch))


def _records(part: Split) -> Iterator[bytes]:
    for label, index, png in zip(part.labels.tolist(), part.indices.tolist(), _pngs(part), strict=True):
        yield pack_image(label, index, png)


def _result(
    store: ObjectStore, dataset: Dataset, source: dict[str, str], input_kind: str, uploaded: int
) -> StagedDataset:
    base = store.uri(layout.dataset(dataset.version))
    pngs = input_kind == "png"
    return {
        "dataset_version": dataset.version,
        "bucket": store.bucket,
        "prefix": layout.dataset(dataset.version),
        "manifest_uri": f"{base}manifest.json",
        "baseline_uri": f"{base}baseline/",
        "train_uri": f"{base}train/" if pngs else None,
        "validation_uri": f"{base}validation/" if pngs else None,
        "recordio_train_uri": None if pngs else f"{base}recordio/train/",
        "recordio_validation_uri": None if pngs else f"{base}recordio/validation/",
        "test_uri": f"{base}test/",
        "train_lst_uri": f"{base}train.lst",
        "validation_lst_uri": f"{base}validation.lst",
        "classes": dataset.classes,
        "counts": {split: len(part) for split, part in dataset.splits.items()},
        "image_shape": ",".join(str(side) for side in dataset.splits["train"].source.shape[1:]),
        "source": source,
        "unchanged": uploaded == 0,
        "uploaded": uploaded,
    }
