"""`train`: read the channels, learn in passes, write the model, in the log lines of the built-in algorithm."""

import json
import logging
import shutil
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sagemaker_local.algorithms.image_classification import calibration
from sagemaker_local.algorithms.image_classification.channels import MODEL_TYPE, Channel, open_channel
from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.fit import CHUNK, Fitted, Trainer
from sagemaker_local.algorithms.image_classification.hyperparameters import Hyperparameters, read_hyperparameters
from sagemaker_local.algorithms.image_classification.images import CANVAS, Seen, Stored, decode_image, look
from sagemaker_local.algorithms.image_classification.model import PARAMETERS, SHAPES, Model
from sagemaker_local.algorithms.image_classification.network import Network
from sagemaker_local.algorithms.image_classification.paths import ContainerPaths
from sagemaker_local.algorithms.image_classification.pictures import Geometry
from sagemaker_local.algorithms.image_classification.rows import Rows
from sagemaker_local.algorithms.image_classification.scattering import Array
from sagemaker_local.algorithms.image_classification.weights import NAME

log = logging.getLogger("image_classification")

REPORT = "training-report.json"

# More passes change nothing that can be measured (docs/algorithm.md, learning curve); the log says so when asked for.
MOST_EPOCHS = 2

_AT_ONCE, _THREADS = 16, 2


def main() -> int:
    """Train under $SM_ML_ROOT; 0 on success, 1 with one line in `output/failure`."""
    _log_as_the_built_in()
    paths = ContainerPaths.from_environment()
    try:
        train(paths)
    except AlgorithmError as error:
        return _fail(paths, f"ClientError: {error}")
    except MemoryError:
        return _fail(paths, "ClientError: Out of memory; use a machine with more, or fewer or smaller images")
    except Exception as error:
        log.exception("Training ended unexpectedly")
        return _fail(paths, f"AlgorithmError: {type(error).__name__}: {error}")
    return 0


def _log_as_the_built_in() -> None:
    handler = logging.StreamHandler(sys.stdout)
    line = f"[%(asctime)s %(levelname)s {threading.get_ident()}] %(message)s"
    handler.setFormatter(logging.Formatter(line, datefmt="%m/%d/%Y %H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def _fail(paths: ContainerPaths, reason: str) -> int:
    line = " ".join(reason.split())[:1024]  # SageMaker shows the first 1024 characters
    log.error("%s", line)
    paths.failure.parent.mkdir(parents=True, exist_ok=True)
    paths.failure.write_text(line + "\n", encoding="utf-8")
    return 1


def train(paths: ContainerPaths) -> None:
    """The whole job.

    Raises:
        AlgorithmError: hyperparameters, channels or images that cannot be used.
    """
    started = time.monotonic()
    raw = paths.configuration("hyperparameters")
    log.info("Reading provided configuration from input/config/hyperparameters.json: %s", raw)
    chosen = read_hyperparameters(raw)
    log.info("Final configuration: %s", chosen.values)
    for name, reason in chosen.without_effect.items():
        log.warning("Hyperparameter %s has no effect here: %s", name, reason)
    channels = paths.configuration("inputdataconfig")
    hosts = paths.configuration("resourceconfig").get("hosts") or []
    if len(hosts) > 1:
        log.warning("The job has %d hosts; the local algorithm trains on one", len(hosts))
    earlier = _earlier_model(paths, channels, chosen)
    with tempfile.TemporaryDirectory(prefix="image-classification-") as folder:
        scratch = Path(folder)
        geometry = Geometry(chosen.image_shape[1], chosen.image_shape[2], chosen.resize)
        network = None
        if chosen.use_pretrained_model:
            network = Network(chosen.image_shape)
            log.info("Pretrained network: %s, which sees the images at %d x %d", NAME, network.side, network.side)
        load = partial(_load, paths, channels, chosen, geometry, scratch)
        training = load("train", network)
        _check_training(training.labels, chosen)
        validation = load("validation", network or (earlier.network if earlier else None))
        job = _Job(paths, chosen, geometry, network, training, validation, scratch)
        _learn(job, earlier, started)
    log.info("Training finished in %.1f s", time.monotonic() - started)


def _earlier_model(paths: ContainerPaths, channels: dict[str, Any], chosen: Hyperparameters) -> Model | None:
    """The model to go on from, where the job has a channel `model`."""
    if "model" not in channels:
        return None
    given = str(channels["model"].get("ContentType") or MODEL_TYPE).split(";")[0].strip()
    if given != MODEL_TYPE:
        raise AlgorithmError(f"The channel 'model' has content type {given!r}; use {MODEL_TYPE}")
    folder = paths.channel("model")
    packed = folder / "model.tar.gz"
    with tempfile.TemporaryDirectory() as unpacked:
        if packed.is_file():
            import tarfile

            try:
                with tarfile.open(packed, "r:gz") as archive:
                    for member in archive:
                        # Only what a model consists of, and by these names: the archive is somebody else's.
                        name = member.name.removeprefix("./")
                        if name in (PARAMETERS, SHAPES) and (source := archive.extractfile(member)):
                            with (Path(unpacked) / name).open("wb") as file:
                                shutil.copyfileobj(source, file)
            except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
                raise AlgorithmError(f"The channel 'model': model.tar.gz cannot be unpacked: {error}") from error
            folder = Path(unpacked)
        try:
            model = Model.load(folder)
        except AlgorithmError as error:
            raise AlgorithmError(f"The channel 'model': {error}") from error
    if model.num_classes != chosen.num_classes or model.image_shape != chosen.image_shape:
        raise AlgorithmError(
            f"The channel 'model' holds a model of {model.num_classes} classes and image_shape {model.image_shape};"
            f" this job has {chosen.num_classes} and {chosen.image_shape}: both must agree to train on from it"
        )
    return model


class _Examples(NamedTuple):
    images: Stored  # in files, so that memory does not grow with them
    labels: Array


class _Job(NamedTuple):
    paths: ContainerPaths
    chosen: Hyperparameters
    geometry: Geometry
    network: Network | None
    training: _Examples
    validation: _Examples
    scratch: Path


def _load(
    paths: ContainerPaths, channels: dict[str, Any], chosen: Hyperparameters, geometry: Geometry,
    scratch: Path, name: str, network: Network | None,
) -> _Examples:  # fmt: skip
    channel: Channel = open_channel(paths, channels, name, chosen.num_classes)

    def see(part: list[tuple[bytes, str]]) -> Seen:
        return look([decode_image(content, geometry, place) for content, place in part], network)

    canvases = Rows(scratch / f"{name}.canvases", (CANVAS, CANVAS, 3), np.uint8)
    features: Rows | None = None
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(channel), _AT_ONCE * _THREADS):
                group = range(start, min(start + _AT_ONCE * _THREADS, len(channel)))
                contents = [(channel.content(index), channel.describe(index)) for index in group]
                for seen in pool.map(see, (contents[at : at + _AT_ONCE] for at in range(0, len(contents), _AT_ONCE))):
                    canvases.append(seen.canvases)
                    if seen.network is not None:
                        features = features or Rows(scratch / f"{name}.network", seen.network.shape[1:], np.float32)
                        features.append(seen.network)
    finally:
        channel.close()
    labels = np.array(channel.labels, dtype=np.intp)
    log.info(
        "Read %d %s images: %s per class", len(labels), name, np.bincount(labels, minlength=chosen.num_classes).tolist()
    )
    return _Examples(Stored(canvases, features), labels)


def _check_training(labels: Array, chosen: Hyperparameters) -> None:
    if len(labels) < chosen.mini_batch_size:
        raise AlgorithmError("The number of input images must be bigger or equal to the mini_batch_size.")
    if len(labels) != chosen.num_training_samples:
        log.warning(
            "num_training_samples is %d but the channel has %d images", chosen.num_training_samples, len(labels)
        )
    counts = np.bincount(labels, minlength=chosen.num_classes)
    if (counts > 0).sum() < 2:
        raise AlgorithmError(
            f"All {len(labels)} training images are of class {int(counts.argmax())}; at least 2 are needed"
        )
    if (counts < 2).any():
        scarce = ", ".join(str(label) for label in np.flatnonzero(counts < 2)[:20])
        raise AlgorithmError(f"Each class needs at least 2 training images; too few of class {scarce}")


@dataclass(frozen=True)
class _Pass:
    """A pass over the training images: the model after it, and how good that is."""

    model: Model
    fitted: Fitted
    on_validation: Array  # (images, classes) probabilities
    figures: dict[str, Any]
    loss: float  # over all images not trained on: a handful of validation images more or less right is chance


def _learn(job: _Job, earlier: Model | None, started: float) -> None:
    chosen, training, validation = job.chosen, job.training, job.validation
    before = None
    if earlier is not None:
        before = calibration.report(_evaluate(earlier, validation.images), validation.labels)
        log.info("Validation accuracy of the model in the channel 'model': %.6f", before["accuracy"])
    decay = max(chosen.weight_decay, 1e-8) / 1e-4
    trainer = Trainer(*training, chosen.num_classes, job.scratch, decay=decay)
    epochs = min(chosen.epochs, MOST_EPOCHS)
    if epochs < chosen.epochs:
        log.info("epochs is %d; the model has converged after %d passes, no more are made", chosen.epochs, epochs)
    history: list[dict[str, Any]] = []
    best: _Pass | None = None
    for epoch in range(epochs):
        made = _pass(epoch, trainer, job)
        history.append(made.figures)
        if best is None or made.loss < best.loss:
            best = made
            log.info("Storing the best model with validation accuracy: %.6f", made.figures["validation"]["accuracy"])
        if _stop_early(chosen, [entry["validation"]["accuracy"] for entry in history]):
            log.info("Epoch[%d] Early stopping: validation accuracy has not improved", epoch)
            break
    assert best is not None
    _write(job.paths.model, best.model, job.scratch)
    figures = best.figures
    report = {
        "best_epoch": figures["epoch"],
        "metrics": {
            "train:accuracy": figures["train"]["accuracy"],
            "validation:accuracy": figures["validation"]["accuracy"],
        },
        "earlier_model_validation": before,
        "train": figures["train"],
        "cross_validation": figures["cross_validation"],
        "validation": figures["validation"],
        "calibration": {
            "cross_validation": calibration.reliability(best.fitted.held_out, training.labels),
            "validation": calibration.reliability(best.on_validation, validation.labels),
        },
        "epochs": history,
        "ridge_strengths": best.fitted.strengths,
        "network": NAME if job.network else None,
        "training_images": np.bincount(training.labels, minlength=chosen.num_classes).tolist(),
        "seconds": time.monotonic() - started,
        "without_effect": chosen.without_effect,
    }
    (job.paths.model / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _pass(epoch: int, trainer: Trainer, job: _Job) -> _Pass:
    """See the training images once more and fit; logs what the built-in algorithm logs of an epoch."""
    begun = time.monotonic()
    trainer.add_pass()
    fitted = trainer.fit()
    model = Model(fitted.parameters, job.geometry, job.chosen.image_shape, job.network)
    _log_accuracy(epoch, "Train", job.chosen, fitted.seen, trainer.labels)
    log.info("Epoch[%d] Time cost=%.3f", epoch, time.monotonic() - begun)
    images, labels = job.validation
    on_validation = _evaluate(model, images)
    _log_accuracy(epoch, "Validation", job.chosen, on_validation, labels)
    figures = {
        "epoch": epoch,
        "train": calibration.report(fitted.seen, trainer.labels),
        "cross_validation": calibration.report(fitted.held_out, trainer.labels),
        "validation": calibration.report(on_validation, labels),
        "seconds": time.monotonic() - begun,
    }
    loss = calibration.log_loss(
        np.concatenate([fitted.held_out, on_validation]), np.concatenate([trainer.labels, labels])
    )
    return _Pass(model, fitted, on_validation, figures, loss)


def _log_accuracy(epoch: int, name: str, chosen: Hyperparameters, probabilities: Array, labels: Array) -> None:
    log.info("Epoch[%d] %s-accuracy=%.6f", epoch, name, calibration.accuracy(probabilities, labels))
    if chosen.top_k:
        top = calibration.top_k_accuracy(probabilities, labels, chosen.top_k)
        log.info("Epoch[%d] %s-top_k_accuracy_%d=%.6f", epoch, name, chosen.top_k, top)


def _evaluate(model: Model, images: Stored) -> Array:
    """Probabilities (images, classes), a chunk in each thread."""
    count = len(images.canvases)
    rows = [np.arange(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return np.concatenate(list(pool.map(lambda part: model.probabilities(images.part(part)), rows)))


def _stop_early(chosen: Hyperparameters, accuracies: list[float]) -> bool:
    if not chosen.early_stopping or len(accuracies) < chosen.early_stopping_min_epochs:
        return False
    if len(accuracies) <= chosen.early_stopping_patience:
        return False
    before = max(accuracies[: -chosen.early_stopping_patience])
    recent = max(accuracies[-chosen.early_stopping_patience :])
    return recent <= before + chosen.early_stopping_tolerance


def _write(folder: Path, model: Model, scratch: Path) -> None:
    """Write aside first: a job stopped in the middle leaves no half model."""
    aside = scratch / "model"
    model.save(aside)
    folder.mkdir(parents=True, exist_ok=True)
    for file in aside.iterdir():
        shutil.move(str(file), folder / file.name)
