"""What a training reads: the staged dataset as it travels between tasks, from the dataset wing that makes it."""

from __future__ import annotations

from typing import TypedDict


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
