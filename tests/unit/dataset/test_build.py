"""Selection, cleaning, split, names, lists, version: deterministic, and never touching the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scones.dataset.build import (
    AcceptedImage,
    build_dataset,
    manifest,
    safe_names,
    stratified_split,
)
from scones.dataset.checks import CheckReport
from scones.dataset.cifar import CifarArchive, CifarSplit, read_archive
from scones.dataset.cifar_classes import FINE_NAMES
from scones.dataset.errors import BadInputError, DataCheckError, UnknownClassError
from scones.dataset.sample_shapes import VEHICLES

CLASSES = ["bicycle", "motorcycle"]


def split(per_class: int, seed: int, ids: tuple[int, ...] = (8, 48, 13)) -> CifarSplit:
    rng = np.random.default_rng(seed)
    count = per_class * len(ids)
    labels = rng.permutation(np.repeat(ids, per_class))
    pixels = rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    return CifarSplit(pixels, labels.astype(np.int64), [f"image_{seed}_{number:04d}.png" for number in range(count)])


def archive(train: int = 50, test: int = 10) -> CifarArchive:
    return CifarArchive(split(train, 1), split(test, 2), list(FINE_NAMES))


class TestBuild:
    def test_counts_labels_and_pixels(self) -> None:
        source = archive()
        dataset = build_dataset(source, CLASSES, validation_share=0.2, seed=3)
        assert dataset.counts == {
            "train": {"bicycle": 40, "motorcycle": 40},
            "validation": {"bicycle": 10, "motorcycle": 10},
            "test": {"bicycle": 10, "motorcycle": 10},
        }
        assert dataset.label_map == {"0": "bicycle", "1": "motorcycle"}
        for name, part in dataset.splits.items():
            original = source.test if name == "test" else source.train
            for row, label in zip(part.rows.tolist(), part.labels.tolist(), strict=True):
                assert original.labels[row] == (8, 48)[label]
            np.testing.assert_array_equal(
                np.concatenate(list(part.batches(7))), original.images[part.rows].transpose(0, 2, 3, 1)
            )

    def test_splits_do_not_overlap_and_names_are_unique(self) -> None:
        dataset = build_dataset(archive(), CLASSES)
        train, validation = (set(dataset.splits[name].rows.tolist()) for name in ("train", "validation"))
        assert not train & validation
        names = [name for part in dataset.splits.values() for name in part.names]
        indices = [index for part in dataset.splits.values() for index in part.indices.tolist()]
        assert len(set(names)) == len(names)
        assert len(set(indices)) == len(indices)

    def test_the_lst_has_the_algorithms_format(self) -> None:
        dataset = build_dataset(archive(), CLASSES)
        for part in dataset.splits.values():
            lines = part.lst().split("\n")
            assert lines.pop() == ""
            for line, index, label, name in zip(lines, part.indices, part.labels, part.names, strict=True):
                assert line == f"{index}\t{label}\t{name}"

    def test_the_order_mixes_the_classes(self) -> None:
        grouped = archive()
        order = np.argsort(grouped.train.labels, kind="stable")
        sorted_train = CifarSplit(grouped.train.images[order], grouped.train.labels[order], grouped.train.names)
        labels = (
            build_dataset(CifarArchive(sorted_train, grouped.test, grouped.class_names), CLASSES).splits["train"].labels
        )
        assert 0.2 < labels[:20].mean() < 0.8

    def test_same_input_same_version(self) -> None:
        first, second = build_dataset(archive(), CLASSES, seed=5), build_dataset(archive(), CLASSES, seed=5)
        assert first.version == second.version
        assert first.version.startswith("ds-")
        assert len(first.version) == 15
        assert first.splits["train"].lst() == second.splits["train"].lst()

    def test_what_changes_the_version(self) -> None:
        base = build_dataset(archive(), CLASSES).version
        changed = archive()
        changed.test.images[int(np.flatnonzero(changed.test.labels == 8)[0]), 0, 0, 0] ^= 1
        other_class = archive()
        other_class.test.images[int(np.flatnonzero(other_class.test.labels == 13)[0]), 0, 0, 0] ^= 1
        versions = {
            "pixel": build_dataset(changed, CLASSES).version,
            "seed": build_dataset(archive(), CLASSES, seed=1).version,
            "share": build_dataset(archive(), CLASSES, validation_share=0.3).version,
            "order of classes": build_dataset(archive(), CLASSES[::-1]).version,
            "classes": build_dataset(archive(), ["bicycle", "bus"]).version,
        }
        assert len({base, *versions.values()}) == 6, versions
        assert build_dataset(other_class, CLASSES).version == base

    def test_bad_parameters(self) -> None:
        with pytest.raises(UnknownClassError, match="bicicle"):
            build_dataset(archive(), ["bicicle", "bus"])
        for share in (0, 0.51, -1):
            with pytest.raises(BadInputError, match="validation_share"):
                build_dataset(archive(), CLASSES, validation_share=share)

    def test_the_real_images(self, shared_data: Path) -> None:
        dataset = build_dataset(read_archive(shared_data / "cifar-100-python.tar.gz"), CLASSES)
        assert {name: len(part) for name, part in dataset.splits.items()} == {
            "train": 800,
            "validation": 200,
            "test": 100,
        }
        assert [check.level for check in dataset.checks.checks] == ["ok"] * len(dataset.checks.checks)
        images, labels = dataset.baseline_sample()
        assert images.shape == (800, 32, 32, 3)
        assert labels.shape == (800,)

    def test_the_ten_vehicle_classes_of_the_real_images(self, shared_data: Path) -> None:
        dataset = build_dataset(read_archive(shared_data / "cifar-100-python.tar.gz"), sorted(VEHICLES))
        dataset.checks.raise_if_fatal()
        assert all(count > 0 for split in dataset.counts.values() for count in split.values())

    def test_manifest(self) -> None:
        dataset = build_dataset(archive(), CLASSES)
        files: Any = [{"key": "b", "split": "test", "label": 0}, {"key": "a", "split": "", "label": -1}]
        document = manifest(dataset, {"kind": "sample"}, files, "2026-01-01T00:00:00+00:00")
        assert [item["key"] for item in document["files"]] == ["a", "b"]
        assert document["image_shape"] == [3, 32, 32]
        assert {"train/test leaks", "balance"} <= {check["name"] for check in document["checks"]}
        assert document["dataset_version"] == dataset.version


class TestChecks:
    def found(self, source: CifarArchive, name: str, mini_batch_size: int = 32) -> tuple[str, str]:
        report = build_dataset(source, CLASSES, mini_batch_size=mini_batch_size).checks
        check = next(check for check in report.checks if check.name == name)
        assert check.found in report.table()
        return check.level, check.found

    def test_a_leak_is_left_out_of_training_only(self) -> None:
        source = archive()
        leaked = np.flatnonzero(source.test.labels == 8)[0]
        copy = np.flatnonzero(source.train.labels == 8)[3]
        source.train.images[copy] = source.test.images[leaked]
        assert self.found(source, "train/test leaks") == (
            "warning", "1 of 100 training images are in the test set too, left out",
        )  # fmt: skip
        dataset = build_dataset(source, CLASSES)
        assert len(dataset.splits["test"]) == 20
        assert copy not in np.concatenate([dataset.splits[name].rows for name in ("train", "validation")])

    def test_copies_constants_and_contradictions(self) -> None:
        source = archive()
        bicycles, motorcycles = np.flatnonzero(source.train.labels == 8), np.flatnonzero(source.train.labels == 48)
        source.train.images[bicycles[1]] = source.train.images[bicycles[0]]
        source.train.images[bicycles[2]] = 77
        source.train.images[motorcycles[0]] = source.train.images[bicycles[3]]
        assert self.found(source, "duplicates")[1].startswith("1 of 100 training images are copies")
        assert self.found(source, "constant images")[1].startswith("1 of 100")
        assert self.found(source, "contradicting labels")[1].startswith("2 of 100")
        rows = set(
            np.concatenate(
                [build_dataset(source, CLASSES).splits[name].rows for name in ("train", "validation")]
            ).tolist()
        )
        assert bicycles[0] in rows
        assert not rows & {bicycles[1], bicycles[2], bicycles[3], motorcycles[0]}

    def test_many_bad_images_are_fatal(self) -> None:
        source = archive()
        source.train.images[np.flatnonzero(source.train.labels == 8)[:6]] = 5
        report = build_dataset(source, CLASSES).checks
        with pytest.raises(DataCheckError, match=r"constant images: .*Check how they were made"):
            report.raise_if_fatal()

    def test_fewer_images_than_a_mini_batch(self) -> None:
        report = build_dataset(archive(), CLASSES, mini_batch_size=200).checks
        with pytest.raises(
            DataCheckError, match=r"80 train images, mini_batch_size 200. Lower mini_batch_size to at most 80"
        ):
            report.raise_if_fatal()

    def test_few_validation_images_warn(self) -> None:
        assert self.found(archive(), "validation images vs mini-batch")[0] == "warning"

    def test_a_class_without_images(self) -> None:
        source = CifarArchive(split(50, 1, (8, 13)), split(10, 2), list(FINE_NAMES))
        with pytest.raises(DataCheckError, match="motorcycle has 0 train images"):
            build_dataset(source, CLASSES).checks.raise_if_fatal()

    def test_no_test_images(self) -> None:
        source = CifarArchive(split(50, 1), split(10, 2, (13,)), list(FINE_NAMES))
        with pytest.raises(DataCheckError, match="bicycle has 0 test images"):
            build_dataset(source, CLASSES).checks.raise_if_fatal()

    def test_an_unbalanced_set(self) -> None:
        both = split(600, 1, (8, 48))

        def report(motorcycles: int) -> CheckReport:
            kept = np.concatenate([np.flatnonzero(both.labels == 8), np.flatnonzero(both.labels == 48)[:motorcycles]])
            few = CifarSplit(both.images[kept], both.labels[kept], [both.names[row] for row in kept])
            return build_dataset(CifarArchive(few, split(10, 2), list(FINE_NAMES)), CLASSES).checks

        with pytest.raises(DataCheckError, match=r"largest class is 240\.0 times the smallest. Give more images"):
            report(3).raise_if_fatal()
        report(4).raise_if_fatal()
        assert next(check.level for check in report(4).checks if check.name == "balance") == "warning"

    def test_copies_in_the_test_set_are_said(self) -> None:
        source = archive()
        bicycles = np.flatnonzero(source.test.labels == 8)
        source.test.images[bicycles[1]] = source.test.images[bicycles[0]]
        assert self.found(source, "test images") == ("warning", "1 copies")


class TestAccepted:
    def image(self, value: int, label: str = "bicycle", key: str = "batches/1/photo.png") -> AcceptedImage:
        pixels = np.full((3, 32, 32), value, dtype=np.uint8)
        pixels[0, 0, 0] = value ^ 1
        return AcceptedImage(pixels, label, key)

    def test_are_added_to_training(self) -> None:
        plain = build_dataset(archive(), CLASSES)
        dataset = build_dataset(archive(), CLASSES, accepted=[self.image(3), self.image(4, "motorcycle")])
        assert sum(dataset.counts["train"].values()) + sum(dataset.counts["validation"].values()) == 102
        assert dataset.version != plain.version
        assert dataset.splits["test"].lst() == plain.splits["test"].lst()
        names = dataset.splits["train"].names + dataset.splits["validation"].names
        assert "accepted_photo.png" in names

    def test_a_test_image_never_trains(self) -> None:
        source = archive()
        row = int(np.flatnonzero(source.test.labels == 8)[0])
        leak = AcceptedImage(source.test.images[row], "bicycle", "datasets/ds/test/a.png")
        dataset = build_dataset(source, CLASSES, accepted=[leak])
        assert dataset.version == build_dataset(source, CLASSES).version
        assert any(check.name == "train/test leaks" and check.level == "warning" for check in dataset.checks.checks)


@settings(deadline=None)
@given(st.lists(st.text(max_size=200), max_size=20))
def test_names_are_safe_whatever_the_archive_says(names: list[str]) -> None:
    taken: set[str] = set()
    safe = safe_names(names, list(range(len(names))), taken)
    assert len(set(safe)) == len(names) == len(taken)
    for name in safe:
        assert name.endswith(".png")
        assert not set(name) & set('/\\\t\n\r\0 "')
        assert ".." not in name.split("/")
        assert len(name) < 200


def test_ordinary_names_stay() -> None:
    assert safe_names(["bike_s_000682.png", "minibike.jpg"], [1, 2], set()) == ["bike_s_000682.png", "minibike.png"]


@given(st.lists(st.integers(0, 3), min_size=8, max_size=200), st.floats(0.05, 0.5), st.integers(0, 5))
def test_the_split_is_stratified(labels: list[int], share: float, seed: int) -> None:
    array = np.asarray(labels)
    train, validation = stratified_split(array, share, seed)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(labels)))
    for label in set(labels):
        members, held = int((array == label).sum()), int((array[validation] == label).sum())
        assert held == min(max(round(members * share), 1), members - 1)
