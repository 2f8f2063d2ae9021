"""Stage the training images: archive in, dataset in S3 out.

    stage_images(bucket=..., classes=[...], ...) -> dict (goes to XCom)

The dataset lands under ``datasets/<dataset_version>/``:

    test/<file>.png, test.lst             always: people, the batch and the evaluation read these
    train.lst, validation.lst             always
    recordio/{train,validation}/...rec    when ``training_input`` is "recordio" (one file per channel, as AWS asks)
    {train,validation}/<file>.png         when ``training_input`` is "png", or ``stage_train_pngs`` is set
    label_map.json, baseline/*.json, manifest.json (after all of these), then datasets/current.json

The version depends on the images, labels and classes alone. Staging again what is there uploads nothing; what was
broken off half-way is completed; asking for the other training form adds it to the same dataset.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scones.defaults import AWS_CONN_ID
from scones.settings import Settings

if TYPE_CHECKING:
    from scones.dataset.build import AcceptedImage, Dataset

log = logging.getLogger(__name__)
TRAINING_INPUTS = ("recordio", "png")
ACCEPTED_KEY = "labels/accepted.csv"
CURRENT_KEY = "datasets/current.json"
UPLOAD_THREADS = 8


def s3_client(aws_conn_id: str = AWS_CONN_ID, threads: int = UPLOAD_THREADS) -> Any:
    """A boto3 S3 client of the Airflow connection, with a connection for each thread and retries with backoff."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    config = Config(
        max_pool_connections=threads + 2,
        retries={"mode": "standard", "max_attempts": 6},
        signature_version="s3v4",
    )
    return S3Hook(aws_conn_id=aws_conn_id, config=config).get_conn()


def stage_images(
    *,
    bucket: str,
    classes: Sequence[str],
    validation_share: float = 0.2,
    seed: int = 0,
    training_input: str = "recordio",
    stage_train_pngs: bool = False,
    mini_batch_size: int = 32,
    allow_sample: bool = True,
    use_accepted_labels: bool = True,
    threads: int = UPLOAD_THREADS,
    settings: Settings | None = None,
    s3: Any = None,
    aws_conn_id: str = AWS_CONN_ID,
) -> dict[str, Any]:
    """Stage CIFAR-100 for the image-classification algorithm and return where everything is.

    :param bucket: S3 bucket to write to.
    :param classes: CIFAR-100 fine class names; the position in this list is the class index.
    :param validation_share: share of the training images held out for validation, of each class, in (0, 0.5].
    :param seed: of the split and the order of the training images (and of the drawn sample).
    :param training_input: "recordio" or "png": the form that is staged for training.
    :param stage_train_pngs: also stage the training images as PNGs when RecordIO trains.
    :param mini_batch_size: fewer training images than this are refused, as the algorithm would fail on them.
    :param allow_sample: draw images when the official archive cannot be had and no other was named.
    :param use_accepted_labels: add the images of ``labels/accepted.csv`` to the training images.
    :param settings: archive, mirrors and cache folder; from the environment by default.
    :param s3: boto3 S3 client; of ``aws_conn_id`` by default.
    :return: ``dataset_version, bucket, prefix, manifest_uri, train_uri, validation_uri`` (None where no training
        PNGs are staged), ``test_uri, train_lst_uri, validation_lst_uri, test_lst_uri, recordio_train_uri,
        recordio_validation_uri`` (None where RecordIO is not staged), ``label_map_uri, baseline_uri,
        training_input, classes, num_classes, counts`` ({"train": n, "validation": n, "test": n}), ``image_shape``
        ("3,32,32"), ``source`` ({"kind": "official|archive| sample", "uri", "md5"}), ``unchanged`` (nothing had to
        be written), ``uploaded`` (objects written). URIs of folders end in "/".
    :raises BadInputError: anything about the input that a retry does not change (unknown class, corrupt or hostile
        archive, failed data check): fail the task at once.
    :raises DownloadError: the archive could not be fetched; a later try continues the download.
    """
    from scones.dataset import cifar
    from scones.dataset.archive import get_archive
    from scones.dataset.build import build_dataset
    from scones.dataset.cifar_classes import FINE_NAMES
    from scones.dataset.errors import BadInputError

    if training_input not in TRAINING_INPUTS:
        raise BadInputError(f"training_input is {training_input!r}; choose one of {', '.join(TRAINING_INPUTS)}.")
    settings = settings or Settings.from_environ()
    if not settings.cifar100_archive:
        cifar.class_ids(classes, FINE_NAMES)  # a misspelt class is no reason to download anything
    s3 = s3 or s3_client(aws_conn_id, threads)
    found = get_archive(s3, bucket, classes, settings=settings, allow_sample=allow_sample, seed=seed)
    content = cifar.read_archive(found.path)
    accepted = read_accepted_images(s3, bucket, classes) if use_accepted_labels else []
    dataset = build_dataset(
        content,
        classes,
        validation_share=validation_share,
        seed=seed,
        mini_batch_size=mini_batch_size,
        accepted=accepted,
    )
    log.info("\n%s", dataset.checks.table())
    dataset.checks.raise_if_fatal()
    forms = {"recordio": training_input == "recordio", "png": training_input == "png" or stage_train_pngs}
    uploaded = _write(s3, bucket, dataset, found.source(), forms, threads)
    return _result(bucket, dataset, found.source(), forms, training_input, uploaded)


def read_accepted_images(s3: Any, bucket: str, classes: Sequence[str]) -> list[AcceptedImage]:
    """The images people labelled (``labels/accepted.csv``: key,label), at the dataset's size.

    A row whose image is gone or unreadable is left out with a warning: one bad label must not stop the training.
    """
    from botocore.exceptions import ClientError

    from scones.dataset.build import AcceptedImage, parse_accepted_labels
    from scones.dataset.cifar import IMAGE_SHAPE
    from scones.dataset.errors import ImageDecodeError
    from scones.dataset.png import MAX_IMAGE_BYTES, decode_rgb, resize_rgb

    def fetch(key: str, limit: int) -> bytes | None:
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read(limit + 1))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise

    table = fetch(ACCEPTED_KEY, MAX_IMAGE_BYTES)
    if table is None:
        return []
    rows, problems = parse_accepted_labels(table, classes)
    images = []
    for key, label in rows:
        body = fetch(key, MAX_IMAGE_BYTES)
        if body is None:
            problems.append(f"s3://{bucket}/{key} does not exist any more")
            continue
        try:
            pixels = resize_rgb(decode_rgb(body, key), *IMAGE_SHAPE[1:])
        except ImageDecodeError as error:
            problems.append(str(error))
            continue
        images.append(AcceptedImage(pixels.transpose(2, 0, 1), label, key))
    for problem in problems:
        log.warning("Accepted label left out: %s", problem)
    log.info("%d accepted labels are added to the training images", len(images))
    return images


def _write(s3: Any, bucket: str, dataset: Dataset, source: dict[str, str], forms: dict[str, bool], threads: int) -> int:
    """Upload what is missing; the number of objects uploaded (0: everything was there)."""
    from scones.dataset.build import manifest
    from scones.dataset.upload import Uploader, list_objects

    prefix = f"datasets/{dataset.version}/"
    existing = list_objects(s3, bucket, prefix)
    old = _json(s3, bucket, f"{prefix}manifest.json") if f"{prefix}manifest.json" in existing else None
    known = {item["key"]: item for item in (old or {}).get("files", [])}
    current = _json(s3, bucket, CURRENT_KEY)
    pointer = {"dataset_version": dataset.version, "manifest_key": f"{prefix}manifest.json"}
    complete = all(
        key in known and prefix + key in existing and existing[prefix + key].bytes == known[key]["bytes"]
        for key in _planned(dataset, forms)
    )
    uploaded = 0
    if complete:
        log.info(
            "The dataset %s is in s3://%s/%s already, unchanged: nothing is uploaded", dataset.version, bucket, prefix
        )
    else:
        files: list[dict[str, Any]] = []
        with Uploader(s3, bucket, existing, threads) as uploader:
            for key, split, label, written in _contents(uploader, prefix, dataset, forms):
                files.append(
                    {"key": key, "split": split, "label": label, "sha256": written.sha256, "bytes": written.bytes}
                )
        written_keys = {item["key"] for item in files}
        files += [item for key, item in known.items() if key not in written_keys and prefix + key in existing]
        created_at = (old or {}).get("created_at") or datetime.now(UTC).isoformat(timespec="seconds")
        document = manifest(dataset, (old or {}).get("source") or source, files, created_at)
        _put_json(s3, bucket, f"{prefix}manifest.json", document)
        uploaded = uploader.uploaded + 1
        log.info("Uploaded %d objects to s3://%s/%s, %d were there", uploaded, bucket, prefix, uploader.unchanged)
    if current != pointer:
        _put_json(s3, bucket, CURRENT_KEY, pointer)
    return uploaded


def _planned(dataset: Dataset, forms: dict[str, bool]) -> Iterator[str]:
    """Keys, below the dataset's prefix, of everything that is to be there except the manifest."""
    yield from ("label_map.json", "baseline/statistics.json", "baseline/constraints.json")
    for split, part in dataset.splits.items():
        yield f"{split}.lst"
        if split == "test" or forms["png"]:
            yield from (f"{split}/{name}" for name in part.names)
        if split != "test" and forms["recordio"]:
            yield f"recordio/{split}/{split}-00000.rec"


def _contents(
    uploader: Any, prefix: str, dataset: Dataset, forms: dict[str, bool]
) -> Iterator[tuple[str, str, int, Any]]:
    """Write every planned object; yields key, split ("" for none), label (-1 for none) and what was written."""
    from scones.dataset.png import encode_pngs
    from scones.dataset.recordio import pack_image
    from scones.images.statistics import baseline_statistics
    from scones.monitoring.drift import suggest_constraints

    for split, part in dataset.splits.items():
        if split == "test" or forms["png"]:
            pngs = (png for batch in part.batches() for png in encode_pngs(batch))
            for name, label, png in zip(part.names, part.labels.tolist(), pngs, strict=True):
                yield f"{split}/{name}", split, label, uploader.put(f"{prefix}{split}/{name}", png, "image/png")
        if split != "test" and forms["recordio"]:

            def records(part: Any = part) -> Iterator[bytes]:
                pngs = (png for batch in part.batches() for png in encode_pngs(batch))
                for label, index, png in zip(part.labels.tolist(), part.indices.tolist(), pngs, strict=True):
                    yield pack_image(label, index, png)

            key = f"recordio/{split}/{split}-00000.rec"
            yield key, split, -1, uploader.put_stream(prefix + key, records, "application/x-recordio")
        key = f"{split}.lst"
        yield key, split, -1, uploader.put(prefix + key, part.lst().encode(), "text/tab-separated-values")
    baseline = baseline_statistics(*dataset.baseline_sample(), dataset.classes)
    documents = {
        "label_map.json": dataset.label_map,
        "baseline/statistics.json": baseline,
        "baseline/constraints.json": suggest_constraints(baseline),
    }
    for key, document in documents.items():
        yield key, "", -1, uploader.put(prefix + key, _dumps(document), "application/json")


def _dumps(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _put_json(s3: Any, bucket: str, key: str, document: Any) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=_dumps(document), ContentType="application/json")


def _json(s3: Any, bucket: str, key: str) -> dict[str, Any] | None:
    """A JSON object from S3; None when it is absent or unreadable (it is then written anew)."""
    from botocore.exceptions import ClientError

    try:
        document = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
    except ValueError:
        log.warning("s3://%s/%s is not JSON: it is written anew", bucket, key)
        return None
    return document if isinstance(document, dict) else None


def _result(
    bucket: str, dataset: Dataset, source: dict[str, str], forms: dict[str, bool], training_input: str, uploaded: int
) -> dict[str, Any]:
    prefix = f"datasets/{dataset.version}"
    base = f"s3://{bucket}/{prefix}"
    return {
        "dataset_version": dataset.version,
        "bucket": bucket,
        "prefix": prefix,
        "manifest_uri": f"{base}/manifest.json",
        "train_uri": f"{base}/train/" if forms["png"] else None,
        "validation_uri": f"{base}/validation/" if forms["png"] else None,
        "test_uri": f"{base}/test/",
        "train_lst_uri": f"{base}/train.lst",
        "validation_lst_uri": f"{base}/validation.lst",
        "test_lst_uri": f"{base}/test.lst",
        "recordio_train_uri": f"{base}/recordio/train/" if forms["recordio"] else None,
        "recordio_validation_uri": f"{base}/recordio/validation/" if forms["recordio"] else None,
        "label_map_uri": f"{base}/label_map.json",
        "baseline_uri": f"{base}/baseline/",
        "training_input": training_input,
        "classes": dataset.classes,
        "num_classes": len(dataset.classes),
        "counts": {split: len(part) for split, part in dataset.splits.items()},
        "image_shape": ",".join(str(side) for side in dataset.splits["train"].source.shape[1:]),
        "source": source,
        "unchanged": uploaded == 0,
        "uploaded": uploaded,
    }
