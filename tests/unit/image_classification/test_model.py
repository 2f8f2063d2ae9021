"""The model itself: features, calibration, determinism, what the artifact holds, and real images never seen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagemaker_local.algorithms.image_classification import calibration
from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.features import Features
from sagemaker_local.algorithms.image_classification.fit import Fitted, Settings, Trainer
from sagemaker_local.algorithms.image_classification.heads import RidgeSums, stratified_folds
from sagemaker_local.algorithms.image_classification.images import Stored, look
from sagemaker_local.algorithms.image_classification.model import PARAMETERS, SHAPES, Model
from sagemaker_local.algorithms.image_classification.network import Network
from sagemaker_local.algorithms.image_classification.pictures import Geometry
from sagemaker_local.algorithms.image_classification.rows import Readable, Rows
from sagemaker_local.algorithms.image_classification.scattering import Scattering, _morlet, windows


def blobs(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy canvases whose class is the period of a grating, in any direction."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    y, x = np.mgrid[:32, :32]
    angles = generator.uniform(0, np.pi, count)[:, None, None]
    frequencies = (0.3 * 1.8**labels)[:, None, None]
    waves = np.sin(frequencies * (x * np.cos(angles) + y * np.sin(angles)))
    pixels = 128 + 50 * waves[..., None] + generator.normal(0, 60, (count, 32, 32, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


QUICK = Settings(components=96, linear_strengths=(0.3,), network_strengths=(0.3,))


def fit(
    canvases: Readable, labels: np.ndarray, folder: Path, *, network: Readable | None = None, seed: int = 0,
    passes: int = 1, threads: int = 1, settings: Settings = QUICK,
) -> Fitted:  # fmt: skip
    images = Stored(canvases, network)
    trainer = Trainer(images, labels, int(labels.max()) + 1, folder, seed=seed, threads=threads, settings=settings)
    for _ in range(passes):
        trainer.add_pass()
    return trainer.fit()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(*blobs(90, 3, 0), tmp_path_factory.mktemp("scratch"))


def model_of(fitted: Fitted) -> Model:
    return Model(fitted.parameters, Geometry(32, 32), (3, 32, 32), None)


def test_each_feature_has_that_of_the_mirrored_image_beside_it() -> None:
    canvases, _ = blobs(4, 4, 1)
    features = Features()
    plain, mirrored = features(canvases), features(canvases[:, :, ::-1])
    assert plain.shape == (4, 2, features.size)
    error = np.abs(plain[:, ::-1] - mirrored).max() / np.abs(plain).max()
    changed = np.abs(plain - mirrored).max() / np.abs(plain).max()
    assert error < 0.02 < changed


def test_scattering_is_the_average_of_wavelet_moduli() -> None:
    """Against the definition, filter by filter on all pixels: what the folded, blocked transforms must come to."""
    canvas = np.random.default_rng(0).normal(size=(1, 32, 32)).astype(np.float32)
    padded = np.pad(canvas[0], 4, "reflect").astype(np.float64)

    def modulus(signal: np.ndarray, scale: int, angle: int) -> np.ndarray:
        filter_ = _morlet(40, scale, np.pi * angle / 6, 4 / 6)
        result: np.ndarray = np.abs(np.fft.ifft2(np.fft.fft2(signal) * filter_))
        return result

    wanted = [padded.ravel() @ windows(40, 4, 1, 4, 32)]
    for scale in range(3):
        step = 2**scale
        average = windows(40 // step, 4, step, 4, 32)
        for angle in range(6):
            wanted.append(modulus(padded, scale, angle)[::step, ::step].ravel() @ average)
        for first in range(scale):
            for outer in range(6):
                below = modulus(padded, first, outer)
                wanted += [modulus(below, scale, inner)[::step, ::step].ravel() @ average for inner in range(6)]
    scattering = Scattering(32, scales=3, angles=6, grid=4, pad=4)
    given = scattering(canvas).reshape(scattering.channels, 16)
    # First order is exact; second order works on every 2nd or 4th pixel of the moduli, whose aliases are small.
    error = np.abs(given - np.array(wanted)).max(axis=1) / np.abs(wanted).max()
    assert error[[0, *range(1, 13), *range(49, 55)]].max() < 1e-5
    assert error.max() < 0.01


def test_features_do_not_depend_on_the_batch() -> None:
    canvases, _ = blobs(19, 3, 2)
    features = Features()
    assert np.allclose(features(canvases)[17], features(canvases[17:18])[0], rtol=1e-4, atol=1e-5)


def test_ridge_without_a_fold_is_ridge_on_the_other_folds() -> None:
    generator = np.random.default_rng(0)
    rows, targets, folds = generator.normal(size=(40, 6)), generator.normal(size=(40, 2)), np.arange(40) % 4
    sums = RidgeSums(4, 6, 2)
    sums.add(rows[:15], targets[:15], folds[:15])
    sums.add(rows[15:], targets[15:], folds[15:])
    kept = folds != 2
    wanted = np.linalg.solve(rows[kept].T @ rows[kept] + 0.5 * np.eye(6), rows[kept].T @ targets[kept])
    assert np.allclose(sums.solve(0.5, without=2), wanted)


def test_folds_hold_every_class_evenly() -> None:
    labels = np.array([0] * 23 + [1] * 7 + [2] * 10)
    folds = stratified_folds(labels, 5, np.random.default_rng(0))
    assert np.bincount(folds).tolist() == [8] * 5
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_calibration_recovers_known_probabilities() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 1, (20_000, 3))
    true = np.exp(calibration.log_softmax(2.5 * scores + np.array([0.4, 0.0, -0.4])))
    labels = (true.cumsum(axis=1) > generator.random((len(true), 1))).argmax(axis=1)
    blend, shift, loss = calibration.fit_calibration([scores, np.zeros_like(scores)], labels)
    assert blend[0] == pytest.approx(2.5, rel=0.05)
    assert shift - shift.mean() == pytest.approx([0.4, 0.0, -0.4], abs=0.05)
    given = np.exp(calibration.log_softmax(blend[0] * scores + shift))
    assert loss == pytest.approx(calibration.log_loss(given, labels), abs=1e-3)
    assert calibration.expected_calibration_error(given, labels) < 0.01


def test_calibration_stays_finite_when_the_classes_separate() -> None:
    labels = np.arange(100) % 2
    scores = np.eye(2)[labels]
    blend, shift, loss = calibration.fit_calibration([scores], labels)
    assert np.isfinite([*blend, *shift, loss]).all()


def test_metrics_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.55, 0.4, 0.05], [0.6, 0.3, 0.1]])
    labels = np.array([0, 2, 1, 0])
    assert calibration.accuracy(probabilities, labels) == 0.75
    assert calibration.top_k_accuracy(probabilities, labels, 2) == 1.0
    assert calibration.log_loss(probabilities, labels) == pytest.approx(-np.log([0.9, 0.5, 0.4, 0.6]).mean())
    # Bins .5-.6 (0.5 right, 0.55 wrong), .6-.7 (0.6 right), .9-1 (0.9 right).
    assert calibration.expected_calibration_error(probabilities, labels) == pytest.approx((0.05 + 0.4 + 0.1) / 4)
    assert [row["images"] for row in calibration.reliability(probabilities, labels)] == [2, 1, 1]


def test_it_learns_and_its_probabilities_are_probabilities(trained: Fitted) -> None:
    canvases, labels = blobs(60, 3, 7)
    probabilities = model_of(trained).judge(canvases)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert calibration.accuracy(probabilities, labels) >= 0.85  # guessing gives 0.33


def test_held_out_probabilities_are_not_those_of_the_training_images(tmp_path: Path) -> None:
    canvases, _ = blobs(80, 2, 3)
    labels = np.random.default_rng(0).integers(0, 2, 80)  # nothing to learn
    fitted = fit(canvases, labels, tmp_path)
    assert calibration.accuracy(fitted.held_out, labels) < 0.7
    assert calibration.log_loss(fitted.held_out, labels) > 0.6


def test_the_same_seed_gives_the_same_model_whatever_the_threads_and_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagemaker_local.algorithms.image_classification.fit.CHUNK", 16)
    canvases, labels = blobs(60, 2, 0)  # more than one chunk for each thread
    network = np.random.default_rng(1).normal(size=(60, 7)).astype(np.float32)
    rows, seen = Rows(tmp_path / "canvases", canvases.shape[1:], np.uint8), Rows(tmp_path / "seen", (7,), np.float32)
    rows.append(canvases)
    seen.append(network)
    sources: list[tuple[int, int, Readable, Readable]] = [
        (5, 1, canvases, network), (5, 2, rows, seen), (6, 1, canvases, network),
    ]  # fmt: skip
    fitted = []
    for number, (seed, threads, source, known) in enumerate(sources):
        folder = tmp_path / str(number)
        folder.mkdir()
        fitted.append(fit(source, labels, folder, network=known, seed=seed, passes=2, threads=threads))
    first, second, other = (vars(one.parameters) for one in fitted)
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name
    assert np.array_equal(fitted[0].held_out, fitted[1].held_out)
    assert not np.array_equal(first["linear"], other["linear"])


def test_what_the_network_sees_is_a_head_of_its_own(tmp_path: Path) -> None:
    """Canvases that say nothing, and numbers of which two say it all, far from zero and of odd sizes."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    canvases = generator.integers(0, 256, (120, 32, 32, 3)).astype(np.uint8)
    network = generator.normal(size=(120, 6)).astype(np.float32) * [1, 50, 0.01, 1, 1, 1] + [9, -300, 0, 1, 2, 3]
    network[:, 3:5] += 6 * np.eye(3)[labels][:, :2]
    fitted = fit(canvases, labels, tmp_path, network=network.astype(np.float32))
    assert set(fitted.strengths) == {"linear", "network"}
    assert fitted.parameters.blend[1] > fitted.parameters.blend[0]
    assert calibration.accuracy(fitted.held_out, labels) >= 0.95
    model = Model(fitted.parameters, Geometry(32, 32), (3, 32, 32), lambda pictures: network[: len(pictures)])  # type: ignore[arg-type]
    assert np.allclose(model.judge(canvases), fitted.seen, atol=1e-3)
    assert model_of(fit(canvases, labels, tmp_path)).parameters.network.shape == (0, 3)


def test_the_network_sees_detail_that_a_canvas_loses(tmp_path: Path) -> None:
    """Photographs of 160 pixels, woven upright or aslant in threads of three pixels: at 32 pixels all are plain."""
    generator = np.random.default_rng(0)
    labels = np.arange(100) % 2
    y, x = np.mgrid[:160, :160]
    weave = [np.sin((x + y) * 2.2) + np.sin((x - y) * 2.2), np.sin(x * 3.1) + np.sin(y * 3.1)]
    grounds = generator.integers(60, 190, (100, 5, 5, 3)).repeat(32, axis=1).repeat(32, axis=2)
    noise = generator.normal(0, 8, (100, 160, 160, 3))
    pictures = np.stack([ground + 25 * weave[label][..., None] for ground, label in zip(grounds, labels, strict=True)])
    pictures = np.clip(pictures + noise, 0, 255).astype(np.uint8)
    seen = look(pictures, Network((3, 160, 160)))
    train, unseen = np.arange(60), np.arange(60, 100)
    for network, low, high in ((None, 0.2, 0.8), (seen.network, 0.95, 1.0)):
        known = None if network is None else network[train]
        fitted = fit(seen.canvases[train], labels[train], tmp_path, network=known)
        eye = None if network is None else Network((3, 160, 160))
        model = Model(fitted.parameters, Geometry(160, 160), (3, 160, 160), eye)
        assert low <= calibration.accuracy(model.judge(pictures[unseen]), labels[unseen]) <= high


@pytest.mark.parametrize("sample", [60, 120])
def test_images_beyond_the_sample_are_learned_too(sample: int, tmp_path: Path) -> None:
    """No room is left for moved images where the still ones fill the sample."""
    canvases, labels = blobs(120, 3, 0)
    fitted = fit(canvases, labels, tmp_path, passes=2, settings=replace(QUICK, sample=sample, components=60))
    unseen, truth = blobs(120, 3, 7)
    assert calibration.accuracy(model_of(fitted).judge(unseen), truth) >= 0.85  # guessing gives 0.33


def test_a_class_without_images_keeps_a_small_probability(tmp_path: Path) -> None:
    canvases, labels = blobs(60, 2, 0)
    probabilities = model_of(fit(canvases, labels * 2, tmp_path)).judge(canvases)
    assert probabilities.shape == (60, 3)
    assert probabilities[:, 1].mean() < 0.1


def test_ten_classes_together(tmp_path: Path) -> None:
    from scones.dataset.sample import draw_images

    names = (
        "bicycle",
        "bus",
        "motorcycle",
        "pickup_truck",
        "train",
        "lawn_mower",
        "rocket",
        "streetcar",
        "tank",
        "tractor",
    )
    generator = np.random.default_rng(0)
    drawn = [draw_images(name, 40, generator) for name in names]
    canvases = np.concatenate([images[:32] for images in drawn])
    fitted = fit(canvases, np.repeat(np.arange(10), 32), tmp_path)
    probabilities = model_of(fitted).judge(np.concatenate([images[32:] for images in drawn]))
    assert probabilities.shape == (80, 10)
    assert calibration.accuracy(probabilities, np.repeat(np.arange(10), 8)) >= 0.5


def test_the_artifact_reads_back_the_same_and_holds_no_pickle(trained: Fitted, tmp_path: Path) -> None:
    model = model_of(trained)
    model.save(tmp_path)
    again = Model.load(tmp_path)
    canvases, _ = blobs(10, 3, 4)
    assert np.array_equal(again.judge(canvases), model.judge(canvases))
    assert again.image_shape == (3, 32, 32)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PARAMETERS, SHAPES]
    shapes = json.loads((tmp_path / SHAPES).read_text())
    assert (shapes["num_classes"], shapes["data_shape"]) == (3, [3, 32, 32])


def test_a_broken_artifact_is_named(trained: Fitted, tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match=f"the model artifact lacks {SHAPES}"):
        Model.load(tmp_path)
    model_of(trained).save(tmp_path)
    whole = (tmp_path / PARAMETERS).read_bytes()
    (tmp_path / PARAMETERS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AlgorithmError, match="the model artifact cannot be read"):
        Model.load(tmp_path)
    with (tmp_path / PARAMETERS).open("wb") as handle:  # an array of objects would need pickle
        np.savez(handle, knee=np.array([{"a": 1}], dtype=object))
    with pytest.raises(AlgorithmError, match="the model artifact cannot be read"):
        Model.load(tmp_path)
    (tmp_path / SHAPES).write_text('{"format": "mxnet"}')
    with pytest.raises(AlgorithmError, match="another algorithm's"):
        Model.load(tmp_path)


def test_real_images_never_seen_are_told_apart(shared_data: Path, tmp_path: Path) -> None:
    """500 bicycles and 500 motorcycles of the training set: 4/5 train, 1/5 is held out; the test set is not read."""
    from scones.dataset.cifar import class_ids, read_archive

    archive = read_archive(shared_data / "cifar-100-python.tar.gz")
    ids = class_ids(("bicycle", "motorcycle"), archive.class_names)
    rows = np.flatnonzero(np.isin(archive.train.labels, ids))
    canvases = np.ascontiguousarray(archive.train.images[rows].transpose(0, 2, 3, 1))
    labels = (archive.train.labels[rows] == ids[1]).astype(int)
    held = stratified_folds(labels, 5, np.random.default_rng(0)) == 0
    settings = replace(QUICK, components=800, sample=800)
    fitted = fit(canvases[~held], labels[~held], tmp_path, settings=settings)
    probabilities = model_of(fitted).judge(canvases[held])
    assert calibration.accuracy(probabilities, labels[held]) >= 0.88
    assert calibration.log_loss(probabilities, labels[held]) <= 0.28
    assert calibration.accuracy(fitted.held_out, labels[~held]) >= 0.88
