"""Staging against the notebook way, on the same archive, the same MiniStack, one right after the other.

The notebook way is what the published notebooks of this project do: extract the archive, unpickle it, write every image
with matplotlib's ``imsave``, then upload one file after the other.
"""

from __future__ import annotations

import logging
import pickle
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import SHARED_ARCHIVE, Measurement
from benchmarks.platforms import ministack

BUCKET = "staging-bench"
TWO_CLASSES = ("bicycle", "motorcycle")


@contextmanager
def _s3() -> Iterator[Any]:
    """An S3 client of a MiniStack of its own, ended afterwards."""
    import boto3
    from botocore.config import Config

    with ministack() as settings:
        session = boto3.Session("test", "test", region_name=settings.region)
        config = Config(max_pool_connections=20, signature_version="s3v4")
        client = session.client("s3", endpoint_url=settings.aws_url, config=config)
        client.create_bucket(Bucket=BUCKET)
        yield client


def notebook_way(s3: Any, archive: Path, classes: tuple[str, ...], prefix: str, folder: Path) -> int:
    """Stage as the notebooks do; the number of images staged."""
    import numpy as np
    from matplotlib import pyplot

    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    content = {
        name: pickle.loads((folder / "cifar-100-python" / name).read_bytes(), encoding="bytes")
        for name in ("train", "test", "meta")
    }
    names = [name.decode() for name in content["meta"][b"fine_label_names"]]
    ids = {names.index(name): index for index, name in enumerate(classes)}
    files: list[tuple[str, Path]] = []
    for split in ("train", "test"):
        part = content[split]
        (folder / split).mkdir()
        lines = []
        for row, label in enumerate(part[b"fine_labels"]):
            if label not in ids:
                continue
            image = np.dstack(part[b"data"][row].reshape(3, 32, 32))
            name = f"{row}_{part[b'filenames'][row].decode()}"
            pyplot.imsave(folder / split / name, image)
            files.append((f"{prefix}/{split}/{name}", folder / split / name))
            lines.append(f"{row}\t{ids[label]}\t{name}\n")
        (folder / f"{split}.lst").write_text("".join(lines))
    images = len(files)
    files += [(f"{prefix}/{split}.lst", folder / f"{split}.lst") for split in ("train", "test")]
    for key, path in files:
        with path.open("rb") as body:
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    return images


def our_way(s3: Any, archive: Path, classes: tuple[str, ...], input_kind: str, seed: int) -> dict[str, Any]:
    from scones.aws.store import ObjectStore
    from scones.dataset.staging import StagingRequest, stage
    from scones.settings import Settings

    request = StagingRequest(classes, seed=seed, input_kind=input_kind)
    return dict(stage(ObjectStore(BUCKET, client=s3), request, Settings(cifar100_archive=str(archive))))


def _clock(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


class _PeakMemory:
    """Most memory this process had within the block, above what it had before, in MB."""

    def __enter__(self) -> _PeakMemory:
        import psutil

        self._process, self._stop = psutil.Process(), threading.Event()
        self.before = self.peak = self._process.memory_info().rss / 1e6
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, self._process.memory_info().rss / 1e6)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def grown(self) -> float:
        return self.peak - self.before


def _warm(s3: Any, archive: Path) -> None:
    """Imports and first connections are paid once per worker, not per staging: both ways are measured without them."""
    import matplotlib.pyplot  # noqa: F401
    import scipy.stats  # noqa: F401

    our_way(s3, archive, TWO_CLASSES, "recordio", 999)


def staging_1k() -> list[Measurement]:
    """1,000 training images (and the archive's test images, on both sides); the median of three alternating runs."""
    from scones.dataset.sample import write_sample_archive

    logging.getLogger("scones").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="scones-bench-") as name, _s3() as s3:
        folder = Path(name)
        real = SHARED_ARCHIVE.exists()
        archive = SHARED_ARCHIVE if real else write_sample_archive(folder / "sample.tar.gz", TWO_CLASSES)
        _warm(s3, archive)
        seconds: dict[str, list[float]] = {"notebook": [], "recordio": [], "png": []}
        images = 0
        for turn in range(3):
            took, images = _clock(notebook_way, s3, archive, TWO_CLASSES, f"notebook-{turn}", folder / str(turn))
            seconds["notebook"].append(took)
            for form in ("recordio", "png"):
                # Another seed is another split, so another dataset: nothing is found there already.
                took, staged = _clock(our_way, s3, archive, TWO_CLASSES, form, 10 * turn + (form == "png"))
                assert not staged["unchanged"]
                assert sum(staged["counts"].values()) == images
                seconds[form].append(took)
    median = {way: sorted(taken)[1] for way, taken in seconds.items()}
    beside = {
        "images (train and test)": images,
        "archive": "real images" if real else "drawn sample",
        "notebook way, s": median["notebook"],
        "RecordIO, s": median["recordio"],
        "single PNGs, s": median["png"],
        "all runs, s": {way: [round(value, 2) for value in taken] for way, taken in seconds.items()},
    }
    recordio, png = median["notebook"] / median["recordio"], median["notebook"] / median["png"]
    return [
        Measurement("staging-speedup-1k", recordio, "x", ">= 8", recordio >= 8, beside),
        Measurement("staging-speedup-1k-png", png, "x", ">= 1.5", png >= 1.5, beside),
    ]


def _large_archive(path: Path) -> tuple[str, ...]:
    """50,000 training images of all 100 classes and 1,000 test images, photographs' statistics by drawing."""
    from scones.dataset.cifar_classes import FINE_NAMES
    from scones.dataset.sample import write_sample_archive

    write_sample_archive(path, FINE_NAMES, train_per_class=500, test_per_class=10)
    return FINE_NAMES


def staging_50k() -> list[Measurement]:
    """50,000 training images: time of both ways, and how much memory ours needs beside a twentieth of the images."""
    from scones.dataset.sample import write_sample_archive

    logging.getLogger("scones").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="scones-bench-") as name, _s3() as s3:
        folder = Path(name)
        small = write_sample_archive(folder / "small.tar.gz", TWO_CLASSES, train_per_class=1250)
        large = folder / "large.tar.gz"
        classes = _large_archive(large)
        _warm(s3, small)
        with _PeakMemory() as small_memory:
            our_way(s3, small, TWO_CLASSES, "recordio", 1)
        with _PeakMemory() as memory:
            ours, staged = _clock(our_way, s3, large, classes, "recordio", 1)
        theirs, images = _clock(notebook_way, s3, large, classes, "notebook", folder / "notebook")
    assert sum(staged["counts"].values()) == images
    pixels = images * 3072 / 1e6
    ratio, extra = theirs / ours, memory.grown - pixels
    beside = {
        "images (train and test)": images,
        "notebook way, s": theirs,
        "RecordIO, s": ours,
        "peak memory above start, MB": memory.grown,
        "of which the archive's own pixels, MB": pixels,
        "peak memory at 2,500 images, MB": small_memory.grown,
    }
    return [
        Measurement("staging-speedup-50k", ratio, "x", ">= 10", ratio >= 10, beside),
        Measurement("staging-memory-50k", extra, "MB", "<= 150 beyond the pixels", extra <= 150, beside),
    ]


BENCHMARKS: dict[str, Callable[[], list[Measurement]]] = {
    "staging-speedup-1k": staging_1k,
    "staging-speedup-1k-png": staging_1k,
    "staging-speedup-50k": staging_50k,
    "staging-memory-50k": staging_50k,
}
