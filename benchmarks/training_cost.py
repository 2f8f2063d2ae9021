"""What the local training algorithm costs: seconds of a job, size of the model, a prediction, growth with images."""

from __future__ import annotations

import functools
import http.client
import io
import json
import os
import resource
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement
from benchmarks.training import PUBLISHED, ROOT, hog_svm, real_images

COMMAND = [sys.executable, "-m", "sagemaker_local.algorithms.image_classification"]
GROWTH = (5_000, 50_000)
MOST_SECONDS = 900


@functools.cache
def trained_job() -> dict[str, Any]:
    """One training of 1000 images in its own process, as the service starts it; and what it left.

    `seconds`, `processor_seconds`, `report`, `archive_mb`, and `files`, the model's by name.
    """
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
    "training-seconds": seconds,
    "training-prediction-p50": prediction,
    "training-growth": growth,
}
