"""What travels between the tasks of a training run, as JSON: the dataset, the job's result, the model.

The dataset is made by the wing `dataset`; its form stands here, because training reads it and lies below.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class StagedDataset(TypedDict):
    """A dataset version in S3. URIs of folders end in "/".

    Members:
        dataset_version: "ds-..." of its content.
        bucket, prefix: where it lies; ``prefix`` ends in "/".
        manifest_uri, baseline_uri: its manifest, and the folder of its statistics.
        train_uri, validation_uri: folders of training PNGs; None unless PNGs train.
        recordio_train_uri, recordio_validation_uri: folders of RecordIO files; None unless RecordIO trains.
        test_uri: folder of the test PNGs.
        train_lst_uri, validation_lst_uri: lists of the training images.
        classes: class names in label order.
        counts: images per split ("train", "validation", "test").
        image_shape: "channels,height,width".
        source: ``{"kind": "official" | "archive" | "sample", "uri", "md5"}``.
        unchanged, uploaded: whether nothing had to be written; objects written.
    """

    dataset_version: str
    bucket: str
    prefix: str
    manifest_uri: str
    baseline_uri: str
    train_uri: str | None
    validation_uri: str | None
    recordio_train_uri: str | None
    recordio_validation_uri: str | None
    test_uri: str
    train_lst_uri: str
    validation_lst_uri: str
    classes: list[str]
    counts: dict[str, int]
    image_shape: str
    source: dict[str, str]
    unchanged: bool
    uploaded: int


class ManifestFile(TypedDict):
    """An object of a dataset: key below the dataset's prefix, split ("" for none), class index (-1 for none), bytes."""

    key: str
    split: str
    label: int
    sha256: str
    bytes: int


class Manifest(TypedDict):
    """What a dataset version holds, as its ``manifest.json``.

    Members:
        dataset_version, created_at: "ds-..." and when it was staged.
        source: as in `StagedDataset`.
        classes, label_map: class names in label order; ``{"0": name, ...}``.
        image_shape: channels, height, width.
        seed, validation_share: of the split.
        counts: images per split and class name.
        checks: what was looked at before it was staged.
        files: every object but the manifest, by key.
    """

    dataset_version: str
    created_at: str
    source: dict[str, str]
    classes: list[str]
    label_map: dict[str, str]
    image_shape: list[int]
    seed: int
    validation_share: float
    counts: dict[str, dict[str, int]]
    checks: list[dict[str, Any]]
    files: list[ManifestFile]


def test_images(manifest: Manifest) -> list[ManifestFile]:
    """Return the test images of a dataset; the split's other files, such as test.lst, are none."""
    return [one for one in manifest.get("files", []) if one["split"] == "test" and one["key"].startswith("test/")]


class TrainingResult(TypedDict):
    """A completed training job.

    Members:
        job_name, job_arn: the job.
        model_artifacts, image: address of its ``model.tar.gz``, and the training image.
        instance_type, instance_count: its machines.
        training_seconds, billable_seconds: of work; and summed over the instances, less what spot machines saved.
        metrics: the last value of each, by SageMaker's names ("validation:accuracy").
        hyperparameters: as sent.
        fingerprint: hash of what decides the model.
        reused: whether an earlier run's job did the same work.
        tuning_job, tuned_jobs: the tuning job whose best job this is, and how many it ran; the seconds are of all.
    """

    job_name: str
    job_arn: str
    model_artifacts: str
    image: str
    instance_type: str
    instance_count: int
    training_seconds: float
    billable_seconds: float
    metrics: dict[str, float]
    hyperparameters: dict[str, str]
    fingerprint: str
    reused: bool
    tuning_job: NotRequired[str]
    tuned_jobs: NotRequired[int]


class Model(TypedDict):
    """A SageMaker model of a training job: its name and content, and the folder of its answers to the test images."""

    model_name: str
    image: str
    model_data_url: str
    job_name: str
    answers_uri: str


class Champion(Model):
    """The model that the endpoint serves, with its class names in label order ([]: nobody knows them)."""

    classes: list[str]


class Candidate(Model):
    """A new model, and the one it is measured against; None when the endpoint serves nothing or this very model."""

    champion: Champion | None
