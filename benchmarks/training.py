"""The local training algorithm on the real images: accuracy, calibration, time, size; and beside it what else there is.

Everything is measured on the 1000 bicycles and motorcycles of CIFAR-100's *training* set, in cross-validation: each
image is predicted by a model that has not seen it in any way. The archive comes from CIFAR100_ARCHIVE, or from
SCONES_SHARED_DATA, or from ../shared/data.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "sagemaker_local.algorithms.image_classification"]
CLASSES = ("bicycle", "motorcycle")
FOLDS = 10
PUBLISHED = {"published_notebooks_accuracy": "0.80 to 0.875", "published_notebooks_billed_gpu_s": "383 to 582"}
CURVE = (100, 200, 400)
GROWTH = (5_000, 50_000)
MOST_SECONDS = 900


def archive_path() -> Path:
    """The real archive.

    Raises:
        FileNotFoundError: nowhere to be found; says where it was looked for.
    """
    given = os.environ.get("CIFAR100_ARCHIVE", "")
    shared = Path(os.environ.get("SCONES_SHARED_DATA") or ROOT.parent / "shared" / "data")
    for path in (Path(given) if given else shared, shared / "cifar-100-python.tar.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no CIFAR-100 archive: set CIFAR100_ARCHIVE to cifar-100-python.tar.gz (looked in {shared} too)"
    )


@functools.cache
def real_images() -> tuple[Any, Any, Any, Any]:
    """Training canvases uint8 (N, 32, 32, 3) and labels, test canvases and labels.

    Comes first in each benchmark: BLAS may use one thread from here on, as in `train` and `serve`.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")

    sys.path.insert(0, str(ROOT / "plugins"))
    from scones.core.cifar import class_ids, read_archive

    archive = read_archive(archive_path())
    ids = class_ids(CLASSES, archive.class_names)
    result = []
    for split in (archive.train, archive.test):
        rows = np.flatnonzero(np.isin(split.labels, ids))
        result += [
            np.ascontiguousarray(split.images[rows].transpose(0, 2, 3, 1)),
            np.array([ids.index(label) for label in split.labels[rows]]),
        ]
    return result[0], result[1], result[2], result[3]


def trained(
    canvases: Any, labels: Any, epochs: int | None = None, settings: Any = None, seed: int = 0
) -> tuple[Any, Any]:
    """A model trained as the `train` command does, without reading files; and the trainer's last fit."""
    from sagemaker_local.algorithms.image_classification.fit import Trainer
    from sagemaker_local.algorithms.image_classification.images import Geometry
    from sagemaker_local.algorithms.image_classification.model import Model
    from sagemaker_local.algorithms.image_classification.train import MOST_EPOCHS

    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(canvases, labels, int(labels.max()) + 1, Path(scratch), seed=seed, settings=settings)
        for _ in range(epochs or MOST_EPOCHS):
            trainer.add_pass()
        fitted = trainer.fit()
    return Model(fitted.parameters, Geometry(32, 32), (3, 32, 32)), fitted


@functools.cache
def cross_validated(seed: int = 0, epochs: int | None = None, settings: Any = None) -> tuple[Any, Any]:
    """Out-of-fold probabilities of all training images, each from a model trained without it; and their labels."""
    canvases, labels, _, _ = real_images()
    import numpy as np

    from sagemaker_local.algorithms.image_classification.heads import stratified_folds

    folds = stratified_folds(labels, FOLDS, np.random.default_rng(seed))
    result = np.zeros((len(labels), len(CLASSES)))
    for fold in range(FOLDS):
        model, _ = trained(canvases[folds != fold], labels[folds != fold], epochs, settings, seed)
        result[folds == fold] = model.probabilities(canvases[folds == fold])
    return result, labels


def learning_curve() -> list[Measurement]:
    """Accuracy, log loss and calibration error by the number of training images, on the folds of `cross_validated`."""
    canvases, labels, _, _ = real_images()
    import numpy as np

    from sagemaker_local.algorithms.image_classification import calibration
    from sagemaker_local.algorithms.image_classification.heads import stratified_folds

    folds = stratified_folds(labels, FOLDS, np.random.default_rng(0))
    results = {}
    for count in CURVE:
        result = np.zeros((len(labels), len(CLASSES)))
        for fold in range(FOLDS):
            generator = np.random.default_rng((fold, count))
            others = [np.flatnonzero((folds != fold) & (labels == label)) for label in range(len(CLASSES))]
            picked = np.sort(np.concatenate([generator.permutation(rows)[: count // len(CLASSES)] for rows in others]))
            model, _ = trained(canvases[picked], labels[picked])
            result[folds == fold] = model.probabilities(canvases[folds == fold])
        results[count] = calibration.report(result, labels)
    results[len(labels) * (FOLDS - 1) // FOLDS] = calibration.report(*cross_validated())
    beside = {f"{name}_{count}_images": row[name] for count, row in results.items() for name in row if name != "images"}
    losses = [row["log_loss"] for row in results.values()]
    worse = float(sum(later >= earlier for earlier, later in itertools.pairwise(losses)))
    goal = "= 0 (steps up in images that do not lower the log loss)"
    return [Measurement("training-learning-curve", worse, "steps", goal, worse == 0, beside)]


@functools.cache
def hog_svm() -> dict[str, float]:
    """HOG and an RBF support vector machine with Platt scaling, on the same folds."""
    canvases, labels, _, _ = real_images()
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
    """Cross-validated accuracy; the test images are looked at once, for the record, and decide nothing."""
    canvases, train_labels, test, test_labels = real_images()
    from sagemaker_local.algorithms.image_classification import calibration

    probabilities, labels = cross_validated()
    value = calibration.accuracy(probabilities, labels)
    model, _ = trained(canvases, train_labels)
    on_test = calibration.report(model.probabilities(test), test_labels)
    beside = {
        "majority_class": float((labels == 0).mean()),
        **{name: figure for name, figure in hog_svm().items() if name == "hog_svm_accuracy"},
        **{f"test_{name}": figure for name, figure in on_test.items()},
        **PUBLISHED,
    }
    return [Measurement("training-cv-accuracy", value, "share", ">= 0.93", value >= 0.93, beside)]


def loss() -> list[Measurement]:
    """Cross-validated log loss and calibration error."""
    probabilities, labels = cross_validated()
    from sagemaker_local.algorithms.image_classification import calibration

    value = calibration.log_loss(probabilities, labels)
    error = calibration.expected_calibration_error(probabilities, labels)
    hog = hog_svm()
    return [
        Measurement(
            "training-cv-log-loss", value, "nats", "<= 0.19", value <= 0.19,
            {"hog_svm_log_loss": hog["hog_svm_log_loss"]},
        ),
        Measurement(
            "training-cv-calibration-error", error, "share", "<= 0.02", error <= 0.02,
            {"hog_svm_calibration_error": hog["hog_svm_expected_calibration_error"]},
        ),
    ]  # fmt: skip


@functools.cache
def trained_job() -> dict[str, Any]:
    """One training of 1000 images in its own process, as the service starts it; and what it left.

    `seconds`, `processor_seconds`, `report`, `archive_mb`, and `files`, the model's by name.
    """
    import json
    import tarfile

    canvases, labels, _, _ = real_images()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_job(root, canvases, labels)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        done = subprocess.run(
            [*COMMAND, "train"], env={**os.environ, "SM_ML_ROOT": str(root)}, capture_output=True, text=True, cwd=ROOT
        )
        elapsed = time.monotonic() - started
        if done.returncode:
            raise RuntimeError(f"the training job failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        packed = root / "model.tar.gz"
        with tarfile.open(packed, "w:gz") as archive:
            for file in (root / "model").iterdir():
                archive.add(file, file.name)
        return {
            "seconds": elapsed,
            "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "report": json.loads((root / "model" / "training-report.json").read_text()),
            "archive_mb": packed.stat().st_size / 1e6,
            "files": {file.name: file.read_bytes() for file in (root / "model").iterdir()},
        }


def seconds() -> list[Measurement]:
    """Wall time of one job of 1000 images, start-up, decoding and validation included; and the model's size."""
    job = trained_job()
    value, size = job["seconds"], job["archive_mb"]
    beside = {
        "processor_seconds": job["processor_seconds"],
        "epochs": len(job["report"]["epochs"]),
        "load_average": os.getloadavg()[0],
        "hog_svm_seconds": hog_svm()["hog_svm_seconds"],
        **PUBLISHED,
    }
    return [
        Measurement("training-seconds", value, "s", "< 15", value < 15, beside),
        Measurement("training-model-size", size, "MB", "< 10", size < 10, {}),
    ]


def prediction() -> list[Measurement]:
    """One PNG's prediction: in the process, over HTTP from `serve`, and how soon `serve` answers its first /ping."""
    import http.client
    import socket

    canvases = real_images()[0]
    import numpy as np
    from PIL import Image

    from sagemaker_local.algorithms.image_classification.model import Model

    def timed(ask: Any, count: int = 500) -> tuple[float, float]:
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            ask()
            times.append((time.perf_counter() - begun) * 1e3)
        return float(np.median(times)), float(np.percentile(times, 95))

    buffer = io.BytesIO()
    Image.fromarray(canvases[0]).save(buffer, "PNG")
    body = buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        for name, content in trained_job()["files"].items():
            (Path(folder) / "model" / name).write_bytes(content)
        model = Model.load(Path(folder) / "model")
        latency, tail = timed(lambda: model.predict(body))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {**os.environ, "SM_ML_ROOT": folder, "SAGEMAKER_BIND_TO_PORT": str(port)}
        started = time.monotonic()
        server = subprocess.Popen([*COMMAND, "serve"], env=environment, stdout=subprocess.DEVNULL, cwd=ROOT)
        try:
            connection = _first_ping(port, started + 30)
            ready = time.monotonic() - started

            def invoke() -> None:
                connection.request("POST", "/invocations", body, {"Content-Type": "image/png"})
                answer = connection.getresponse()
                if answer.status != http.HTTPStatus.OK:
                    raise RuntimeError(f"the model server answered {answer.status}: {answer.read()!r}")
                answer.read()

            over_http, http_tail = timed(invoke)
            connection.close()
        finally:
            server.terminate()
            server.wait()
    load = {"load_average": os.getloadavg()[0]}
    return [
        Measurement("training-prediction-p50", latency, "ms", "< 2", latency < 2, {"p95_ms": tail, **load}),
        Measurement("training-http-p50", over_http, "ms", "< 2.5", over_http < 2.5, {"p95_ms": http_tail, **load}),
        Measurement("training-first-ping", ready, "s", "< 1.5", ready < 1.5, load),
    ]


def _first_ping(port: int, until: float) -> Any:
    """A connection on which /ping was answered."""
    import http.client

    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/ping")
            connection.getresponse().read()
            return connection
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.005)


def growth() -> list[Measurement]:
    """Processor time and peak memory of training on 50,000 images against 5,000, each in a process of its own."""
    canvases, labels, _, _ = real_images()
    grown = {count: _scaled(canvases, labels, count) for count in GROWTH}
    beside: dict[str, Any] = {}
    for count, (elapsed, processor, memory) in grown.items():
        beside[f"seconds_{count}_images"] = elapsed
        beside[f"processor_seconds_{count}_images"] = processor
        beside[f"peak_memory_mb_{count}_images"] = memory
    low, high = GROWTH
    time_growth = (grown[high][1] / grown[low][1]) / (high / low)
    memory_growth = grown[high][2] / grown[low][2]
    return [
        Measurement("training-growth", time_growth, "x", "<= 1.1 (1 is linear)", time_growth <= 1.1, beside),
        Measurement("training-memory-growth", memory_growth, "x", "<= 1.15", memory_growth <= 1.15, {}),
    ]


def _write_job(root: Path, canvases: Any, labels: Any) -> None:
    """The container's input folder: all images in `train`, every fifth of them in `validation` too."""
    import json

    from PIL import Image

    for name, rows in (("train", range(len(labels))), ("validation", range(0, len(labels), 5))):
        folder, listing = root / "input" / "data" / name, root / "input" / "data" / f"{name}_lst"
        folder.mkdir(parents=True)
        listing.mkdir(parents=True)
        for row in rows:
            Image.fromarray(canvases[row]).save(folder / f"{row}.png")
        (listing / f"{name}.lst").write_text("".join(f"{row}\t{labels[row]}\t{row}.png\n" for row in rows))
    config = root / "input" / "config"
    config.mkdir(parents=True)
    values = {"num_classes": "2", "num_training_samples": str(len(labels)), "image_shape": "3,32,32"}
    (config / "hyperparameters.json").write_text(json.dumps(values))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    channels = ("train", "validation", "train_lst", "validation_lst")
    (config / "inputdataconfig.json").write_text(
        json.dumps({name: {"ContentType": "application/x-image"} for name in channels})
    )


_GROWN = """
import resource, sys, tempfile, time
from pathlib import Path
from sagemaker_local.algorithms.image_classification.threads import limit_threads
limit_threads()
import numpy as np
from benchmarks.training import trained
from sagemaker_local.algorithms.image_classification.rows import Rows
real, labels, count = np.load(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3])
generator = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder:
    canvases = Rows(Path(folder) / "canvases", real.shape[1:], np.uint8)
    for start in range(0, count, 500):
        rows = np.arange(start, min(start + 500, count)) % len(real)
        noise = generator.integers(-12, 13, (len(rows), *real.shape[1:]), dtype=np.int16)
        canvases.append(np.clip(real[rows] + noise, 0, 255).astype(np.uint8))
    before = time.process_time()
    started = time.monotonic()
    trained(canvases, labels[np.arange(count) % len(real)])
    elapsed, processor = time.monotonic() - started, time.process_time() - before
print(elapsed, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def _scaled(canvases: Any, labels: Any, count: int) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of training on `count` images: the real ones with noise, in a process.

    Raises:
        subprocess.TimeoutExpired: after MOST_SECONDS.
    """
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "canvases.npy", Path(folder) / "labels.npy"]
        np.save(files[0], canvases)
        np.save(files[1], labels)
        done = subprocess.run(
            [sys.executable, "-c", _GROWN, *map(str, files), str(count)],
            check=True, capture_output=True, text=True, cwd=ROOT, timeout=MOST_SECONDS,
        )  # fmt: skip
    elapsed, processor, memory = (float(word) for word in done.stdout.split())
    return elapsed, processor, memory


BENCHMARKS = {
    "training-cv-accuracy": accuracy,
    "training-cv-log-loss": loss,
    "training-learning-curve": learning_curve,
    "training-seconds": seconds,
    "training-prediction-p50": prediction,
    "training-growth": growth,
}
