"""The drawn sample: the archive format, the same for the same seed, varied, and learnable."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest

from scones.dataset.cifar import read_archive
from scones.dataset.cifar_classes import FINE_NAMES
from scones.dataset.errors import UnknownClassError
from scones.dataset.sample import draw_images, write_sample_archive
from scones.dataset.sample_shapes import VEHICLES, distance, parts_of


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_the_archive_has_the_real_ones_form(tmp_path: Path) -> None:
    path = write_sample_archive(
        tmp_path / "new" / "a.tar.gz", ["motorcycle", "bicycle"], train_per_class=20, test_per_class=5
    )
    with tarfile.open(path) as tar:
        assert sorted(tar.getnames()) == [f"cifar-100-python/{name}" for name in ("meta", "test", "train")]
    archive = read_archive(path)
    assert archive.class_names == list(FINE_NAMES)
    assert sorted(archive.train.labels.tolist()) == [8] * 20 + [48] * 20
    assert sorted(archive.test.labels.tolist()) == [8] * 5 + [48] * 5
    assert len(set(archive.train.names + archive.test.names)) == 50
    for name, label in zip(archive.train.names, archive.train.labels.tolist(), strict=True):
        assert FINE_NAMES[label] in name
    assert 0 < archive.train.labels[:20].tolist().count(8) < 20
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.tar.gz"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (
        md5(
            write_sample_archive(
                tmp_path / f"{number}.tar.gz", ["bus", "tank"], seed=seed, train_per_class=4, test_per_class=2
            )
        )
        for number, seed in enumerate((1, 1, 2))
    )
    assert first == second != other


def test_a_class_is_drawn_the_same_whatever_it_is_drawn_with(tmp_path: Path) -> None:
    pairs = [["bus", "tank"], ["train", "bus"]]
    archives = [
        read_archive(write_sample_archive(tmp_path / f"{n}.tar.gz", pair, train_per_class=3, test_per_class=2))
        for n, pair in enumerate(pairs)
    ]
    buses = [
        sorted(
            archive.train.images[archive.train.labels == FINE_NAMES.index("bus")].tobytes()[n * 3072 : n * 3072 + 3072]
            for n in range(3)
        )
        for archive in archives
    ]
    assert buses[0] == buses[1]


@pytest.mark.parametrize("name", FINE_NAMES)
def test_every_class_can_be_drawn_and_varies(name: str) -> None:
    images = draw_images(name, 4, np.random.default_rng(0))
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 4
    assert images.std() > 20


def test_no_two_classes_look_the_same() -> None:
    assert len({tuple(parts_of(name)) for name in FINE_NAMES}) == 100
    assert len(VEHICLES) == 10


def test_unknown_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownClassError, match="did you mean bicycle"):
        write_sample_archive(tmp_path / "a.tar.gz", ["bicycl", "bus"])
    assert list(tmp_path.iterdir()) == []


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="star"):
        distance("star", [np.zeros((1, 1, 1))] * 2, np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))


def test_a_plain_model_learns_it_but_not_perfectly() -> None:
    from skimage.feature import hog
    from sklearn.linear_model import RidgeClassifier

    rng = np.random.default_rng(7)
    images = np.concatenate([draw_images(name, 250, rng) for name in ("bicycle", "motorcycle")])
    features = np.array(
        [hog(image, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=2) for image in images]
    )
    labels = np.repeat([0, 1], 250)
    train = np.arange(500) % 5 > 0
    score = RidgeClassifier(alpha=1.0).fit(features[train], labels[train]).score(features[~train], labels[~train])
    assert 0.6 < score < 0.95  # far above chance, and not a toy
