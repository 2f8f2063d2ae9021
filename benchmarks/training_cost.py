"""What the local training algorithm costs: seconds of a job, size of the model, a prediction, growth with images."""

from __future__ import annotations

import functools
import http.client
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Measurement
from benchmarks.training import PUBLISHED, hog_svm, real_images
from embedded.settings import free_port

COMMAND = [sys.executable, "-m", "sagemaker_local.algorithms.image_classification"]
GROWTH = (5_000, 50_000)


@functools.cache
def trained_job(pretrained: bool = True, count: int = 1000) -> dict[str, Any]:
    """One training job in its own process, as the service starts it; and what it left.

    `seconds`, `processor_seconds`, `peak_memory_mb`, `report`, `archive_mb`, and `files`, the model's by name.

    Raises:
        RuntimeError: the job failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_job(root, count, pretrained)
        log = root / "log"
        started = time.monotonic()
        with log.open("wb") as output:
            job = subprocess.Popen(
                [*COMMAND, "train"], env={**os.environ, "SM_ML_ROOT": str(root)}, stdout=output, stderr=output, cwd=ROOT
            )
            _, status, used = os.wait4(job.pid, 0)
        elapsed = time.monotonic() - started
        job.returncode = os.waitstatus_to_exitcode(status)
        if job.returncode:
            raise RuntimeError(f"the training job failed: {log.read_text()[-2000:]}")
        packed = root / "model.tar.gz"
        with tarfile.open(packed, "w:gz") as archive:
            for file in (root / "model").iterdir():
                archive.add(file, file.name)
        return {
            "seconds": elapsed,
            "processor_seconds": used.ru_utime + used.ru_stime,
            "peak_memory_mb": used.ru_maxrss * 1024 / 1e6,
            "report": json.loads((root / "model" / "training-report.json").read_text()),
            "archive_mb": packed.stat().st_size / 1e6,
            "files": {file.name: file.read_bytes() for file in (root / "model").iterdir()},
        }


def _write_job(root: Path, count: int, pretrained: bool) -> None:
    """The container's input folder: `count` images in `train`, of the first 1000 every fifth in `validation` too.

    Beyond the real images they come again, with noise.
    """
    import numpy as np
    from PIL import Image

    canvases, labels = real_images()
    generator = np.random.default_rng(0)
    for name, rows in (("train", range(count)), ("validation", range(0, 1000, 5))):
        folder, listing = root / "input" / "data" / name, root / "input" / "data" / f"{name}_lst"
        folder.mkdir(parents=True)
        listing.mkdir(parents=True)
        lines = []
        for row in rows:
            pixels = canvases[row % len(canvases)].astype(np.int16)
            if row >= len(canvases):
                pixels += generator.integers(-12, 13, pixels.shape, dtype=np.int16)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{row}.png", compress_level=1)
            lines.append(f"{row}\t{labels[row % len(labels)]}\t{row}.png\n")
        (listing / f"{name}.lst").write_text("".join(lines))
    config = root / "input" / "config"
    config.mkdir(parents=True)
    values = {
        "num_classes": "2", "num_training_samples": str(count), "image_shape": "3,32,32",
        "use_pretrained_model": str(int(pretrained)),
    }  # fmt: skip
    (config / "hyperparameters.json").write_text(json.dumps(values))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    channels = ("train", "validation", "train_lst", "validation_lst")
    (config / "inputdataconfig.json").write_text(
        json.dumps({name: {"ContentType": "application/x-image"} for name in channels})
    )


def seconds() -> list[Measurement]:
    """Wall time of one job of 1000 images, start-up, decoding and validation included; and the model's size."""
    job, without = trained_job(), trained_job(pretrained=False)
    value, size = job["seconds"], job["archive_mb"]
    beside = {
        "processor_seconds": job["processor_seconds"],
        "without_network_seconds": without["seconds"],
        "without_network_processor_seconds": without["processor_seconds"],
        "epochs": len(job["report"]["epochs"]),
        "load_average": os.getloadavg()[0],
        "hog_svm_seconds": hog_svm()["hog_svm_seconds"],
        **PUBLISHED,
    }
    return [
        Measurement("training-seconds", value, "s", "<= 30", value <= 30, beside),
        Measurement("training-model-size", size, "MB", "<= 25", size <= 25, {}),
    ]


def prediction() -> list[Measurement]:
    """One PNG's prediction: in the process, over HTTP from `serve`, and how soon `serve` answers its first /ping."""
    with_network, without = _prediction(True), _prediction(False)
    load = {"load_average": os.getloadavg()[0]}
    return [
        Measurement(
            f"training-{name}", with_network[name], unit, f"<= {goal}", with_network[name] <= goal,
            {"without_network": without[name], **load, **({"p95_ms": with_network[tail]} if tail else {})},
        )
        for name, unit, goal, tail in (
            ("prediction-p50", "ms", 10, "prediction-p95"),
            ("http-p50", "ms", 11, "http-p95"),
            ("first-ping", "s", 1.5, None),
        )
    ]  # fmt: skip


def _prediction(pretrained: bool) -> dict[str, float]:
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
    Image.fromarray(real_images()[0][0]).save(buffer, "PNG")
    body = buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        for name, content in trained_job(pretrained)["files"].items():
            (Path(folder) / "model" / name).write_bytes(content)
        model = Model.load(Path(folder) / "model")
        latency, tail = timed(lambda: model.predict(body))
        port = free_port()
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
    return {
        "prediction-p50": latency, "prediction-p95": tail, "http-p50": over_http, "http-p95": http_tail,
        "first-ping": ready,
    }  # fmt: skip


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
    low, high = GROWTH
    grown = {count: trained_job(count=count) for count in GROWTH}
    beside = {
        f"{name}_{count}_images": grown[count][name]
        for count in GROWTH
        for name in ("seconds", "processor_seconds", "peak_memory_mb")
    }
    time_growth = grown[high]["processor_seconds"] / grown[low]["processor_seconds"] / (high / low)
    memory_growth = grown[high]["peak_memory_mb"] / grown[low]["peak_memory_mb"]
    return [
        Measurement("training-growth", time_growth, "x", "<= 1.1 (1 is linear)", time_growth <= 1.1, beside),
        Measurement("training-memory-growth", memory_growth, "x", "<= 1.15", memory_growth <= 1.15, {}),
    ]


BENCHMARKS = {
    "training-seconds": seconds,
    "training-prediction-p50": prediction,
    "training-growth": growth,
}
