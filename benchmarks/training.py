"""The local training algorithm on the real images: accuracy and calibration; and beside it what else there is.

Everything is measured on the 1000 bicycles and motorcycles of CIFAR-100's *training* set, in cross-validation: each
image is predicted by a model that has not seen it in any way. The archive comes from CIFAR100_ARCHIVE, or from
SCONES_SHARED_DATA, or from ../shared/data.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import SHARED_ARCHIVE, Measurement

CLASSES = ("bicycle", "motorcycle")
FOLDS = 10
THRESHOLD = 0.93
PUBLISHED = {"published_notebooks_accuracy": "0.80 to 0.875", "published_notebooks_billed_gpu_s": "383 to 582"}
CURVE = (100, 200, 400)


def archive_path() -> Path:
    """The real archive.

    Raises:
        FileNotFoundError: nowhere to be found; says where it was looked for.
    """
    for path in (Path(os.environ.get("CIFAR100_ARCHIVE", "")), SHARED_ARCHIVE):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no CIFAR-100 archive: set CIFAR100_ARCHIVE to cifar-100-python.tar.gz (looked for {SHARED_ARCHIVE} too)"
    )


@functools.cache
def real_images() -> tuple[Any, Any]:
    """Training canvases uint8 (N, 32, 32, 3) and labels.

    Comes first in each benchmark: BLAS may use one thread from here on, as in `train` and `serve`.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")

    from scones.dataset.cifar import class_ids, read_archive

    archive = read_archive(archive_path())
    ids = class_ids(CLASSES, archive.class_names)
    rows = np.flatnonzero(np.isin(archive.train.labels, ids))
    canvases = np.ascontiguousarray(archive.train.images[rows].transpose(0, 2, 3, 1))
    return canvases, np.array([ids.index(label) for label in archive.train.labels[rows]])


@functools.cache
def network() -> Any:
    """The pretrained network, as `use_pretrained_model=1` shows it pictures of 32 x 32."""
    from sagemaker_local.algorithms.image_classification.network import Network

    return Network((3, 32, 32))


@functools.cache
def seen() -> Any:
    """The training images as both heads take them."""
    canvases, _ = real_images()
    import numpy as np

    from sagemaker_local.algorithms.image_classification.images import Stored

    features = [network()(canvases[start : start + 8]) for start in range(0, len(canvases), 8)]
    return Stored(canvases, np.concatenate(features))


def trained(images: Any, labels: Any) -> Any:
    """A model trained as the `train` command does, without reading files."""
    from sagemaker_local.algorithms.image_classification.fit import Trainer
    from sagemaker_local.algorithms.image_classification.model import Model
    from sagemaker_local.algorithms.image_classification.pictures import Geometry
    from sagemaker_local.algorithms.image_classification.train import MOST_EPOCHS

    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(images, labels, int(labels.max()) + 1, Path(scratch), seed=0)
        for _ in range(MOST_EPOCHS):
            trainer.add_pass()
        fitted = trainer.fit()
    pretrained = network() if images.network is not None else None
    return Model(fitted.parameters, Geometry(32, 32), (3, 32, 32), pretrained)


@functools.cache
def cross_validated(pretrained: bool = True, count: int | None = None) -> tuple[Any, Any]:
    """Out-of-fold probabilities of all training images, each from a model trained without it; and their labels.

    Args:
        pretrained: with the network.
        count: train on so many of the other images only.
    """
    images, labels = seen(), real_images()[1]
    import numpy as np

    from sagemaker_local.algorithms.image_classification.heads import stratified_folds
    from sagemaker_local.algorithms.image_classification.images import Stored

    if not pretrained:
        images = Stored(images.canvases, None)
    folds = stratified_folds(labels, FOLDS, np.random.default_rng(0))
    result = np.zeros((len(labels), len(CLASSES)))
    for fold in range(FOLDS):
        others = [np.flatnonzero((folds != fold) & (labels == label)) for label in range(len(CLASSES))]
        if count:
            generator = np.random.default_rng((fold, count))
            others = [generator.permutation(rows)[: count // len(CLASSES)] for rows in others]
        picked = np.sort(np.concatenate(others))
        model = trained(Stored(*images.part(picked)), labels[picked])
        held = np.flatnonzero(folds == fold)
        result[held] = model.probabilities(images.part(held))
    return result, labels


def learning_curve() -> list[Measurement]:
    """Accuracy, log loss and calibration error by the number of training images, on the folds of `cross_validated`."""
    labels = real_images()[1]
    from sagemaker_local.algorithms.image_classification import calibration

    results = {count: calibration.report(*cross_validated(count=count)) for count in CURVE}
    results[len(labels) * (FOLDS - 1) // FOLDS] = calibration.report(*cross_validated())
    beside = {f"{name}_{count}_images": row[name] for count, row in results.items() for name in row if name != "images"}
    losses = [row["log_loss"] for row in results.values()]
    worse = float(sum(later >= earlier for earlier, later in itertools.pairwise(losses)))
    goal = "= 0 (steps up in images that do not lower the log loss)"
    return [Measurement("training-learning-curve", worse, "steps", goal, worse == 0, beside)]


@functools.cache
def hog_svm() -> dict[str, float]:
    """HOG and an RBF support vector machine with Platt scaling, on the same folds."""
    canvases, labels = real_images()
    import numpy as np
    from skimage.color import rgb2gray
    from skimage.feature import hog
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from sagemaker_local.algorithms.image_classification import calibration
    from sagemaker_local.algorithms.image_classification.heads import stratified_folds

    started = time.monotonic()
    features = np.array([hog(rgb2gray(image), pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in canvases])
    extraction = time.monotonic() - started
    folds = stratified_folds(labels, FOLDS, np.random.default_rng(0))
    result = np.zeros((len(labels), len(CLASSES)))
    started = time.monotonic()
    for fold in range(FOLDS):
        machine = make_pipeline(StandardScaler(), SVC(C=3.0))
        chosen = folds != fold
        machine.fit(features[chosen], labels[chosen])
        margins = machine.decision_function(features)
        # Platt scaling on margins of the training images, as the usual recipe has it.
        blend, shift, _ = calibration.fit_calibration([np.stack([-margins, margins], axis=1)[chosen]], labels[chosen])
        scores = blend[0] * np.stack([-margins, margins], axis=1) + shift
        result[~chosen] = np.exp(calibration.log_softmax(scores))[~chosen]
    figures = calibration.report(result, labels)
    return {f"hog_svm_{name}": value for name, value in figures.items() if name != "images"} | {
        "hog_svm_seconds": extraction + (time.monotonic() - started) / FOLDS
    }


def accuracy() -> list[Measurement]:
    """Cross-validated accuracy with the network and without."""
    from sagemaker_local.algorithms.image_classification import calibration

    probabilities, labels = cross_validated()
    value = calibration.accuracy(probabilities, labels)
    beside = {
        "without_network": calibration.accuracy(*cross_validated(pretrained=False)),
        "majority_class": float((labels == 0).mean()),
        "hog_svm_accuracy": hog_svm()["hog_svm_accuracy"],
        **PUBLISHED,
    }
    return [Measurement("training-cv-accuracy", value, "share", ">= 0.96", value >= 0.96, beside)]


def loss() -> list[Measurement]:
    """Cross-validated log loss and calibration error, with the network and without."""
    from sagemaker_local.algorithms.image_classification import calibration

    figures, without = (calibration.report(*cross_validated(pretrained)) for pretrained in (True, False))
    value, error = figures["log_loss"], figures["expected_calibration_error"]
    hog = hog_svm()
    return [
        Measurement(
            "training-cv-log-loss", value, "nats", "<= 0.105", value <= 0.105,
            {"without_network": without["log_loss"], "hog_svm_log_loss": hog["hog_svm_log_loss"]},
        ),
        Measurement(
            "training-cv-calibration-error", error, "share", "<= 0.015", error <= 0.015,
            {
                "without_network": without["expected_calibration_error"],
                "hog_svm_calibration_error": hog["hog_svm_expected_calibration_error"],
            },
        ),
    ]  # fmt: skip


def pass_share() -> list[Measurement]:
    """How many images never seen pass the threshold that the project starts with, and how many of those are right."""
    beside: dict[str, Any] = {}
    for name, pretrained in (("", True), ("without_network_", False)):
        probabilities, labels = cross_validated(pretrained)
        passes = probabilities.max(axis=1) >= THRESHOLD
        beside[f"{name}share"] = float(passes.mean())
        beside[f"{name}right"] = float((probabilities.argmax(axis=1) == labels)[passes].mean())
    share, right = beside.pop("share"), beside.pop("right")
    return [
        Measurement("batch-pass-share", share, "share", ">= 0.85", share >= 0.85, beside),
        Measurement("batch-pass-precision", right, "share", ">= 0.985", right >= 0.985, {}),
    ]


BENCHMARKS = {
    "training-cv-accuracy": accuracy,
    "training-cv-log-loss": loss,
    "training-learning-curve": learning_curve,
    "batch-pass-share": pass_share,
}
