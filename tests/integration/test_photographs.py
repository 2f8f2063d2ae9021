"""A batch of photographs as a camera makes them, of 3 to 5 MB, in each of the three fan-outs."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import pytest

from embedded.processes import marked_processes
from tests.support.running_platform import RunningPlatform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

_log = logging.getLogger(__name__)

SIDE = 3456  # 12 megapixels
DRAWN = 12


def photographs(originals: list[bytes]) -> list[bytes]:
    """JPEGs of 12 megapixels that show the originals, under a camera's grain."""
    import numpy as np
    from PIL import Image

    grain = np.random.default_rng(7).integers(-12, 13, (SIDE, SIDE, 1), dtype=np.int16)
    drawn = []
    for number, original in enumerate(originals):
        small = Image.open(io.BytesIO(original)).convert("RGB")
        large = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
        picture = np.clip(large + np.roll(grain, 97 * number, axis=0), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=89 + number % 4)
        drawn.append(buffer.getvalue())
    return drawn


@contextmanager
def watched_memory(platform: RunningPlatform) -> Iterator[dict[str, float]]:
    """MB of private memory of all the platform's processes, as it was before and at its highest."""
    found: dict[str, float] = {}
    ended = threading.Event()

    def used() -> float:
        total = 0
        for process in marked_processes(platform.settings.run_dir):
            with suppress(psutil.Error):
                total += process.memory_full_info().uss
        return total / 1e6

    def watch() -> None:
        while not ended.wait(0.5):
            found["peak"] = max(found["peak"], used())

    found["before"] = found["peak"] = used()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


@pytest.fixture(scope="module")
def stored(trained_platform: RunningPlatform) -> dict[str, str]:
    """200 photographs under photos/: key of each, and the key of the small original that it shows."""
    platform = trained_platform
    s3, bucket = platform.client("s3"), platform.outputs["BucketName"]
    originals = platform.copy_test_images("originals/", DRAWN)
    pictures = photographs([s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in originals])
    sizes = [len(picture) for picture in pictures]
    assert min(sizes) >= 3_000_000
    assert max(sizes) <= 5_000_000
    keys = {f"photos/{'first' if n < 40 else 'rest'}/IMG {n:04d}.JPG": n % DRAWN for n in range(200)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=pictures[keys[key]]), keys))
    return {key: originals[number] for key, number in keys.items()}


@pytest.fixture(scope="module")
def right(trained_platform: RunningPlatform) -> dict[str, str]:
    """What the model says of the originals."""
    summary = trained_platform.run("batch_inference", {"prefix": "originals/", "threshold": 0})
    return {row["key"]: row["predicted_class"] for row in trained_platform.rows(summary["batch_id"])}


@pytest.mark.parametrize(
    ("fan_out", "prefix", "count"),
    [("executions", "photos/", 200), ("distributed_map", "photos/first/", 40), ("express", "photos/first/", 40)],
)
def test_photographs_are_scored_as_what_they_show(
    trained_platform: RunningPlatform,
    stored: dict[str, str],
    right: dict[str, str],
    fan_out: str,
    prefix: str,
    count: int,
) -> None:
    conf = {"prefix": prefix, "threshold": 0, "fan_out": fan_out}
    with watched_memory(trained_platform) as memory:
        began = time.monotonic()
        summary = trained_platform.run("batch_inference", conf, timeout_s=900)
        took = time.monotonic() - began
    _log.info("%s: %d in %.1f s, memory in MB %s", fan_out, count, took, memory)
    rows = trained_platform.rows(summary["batch_id"])
    assert len(rows) == count
    assert {row["outcome"] for row in rows} == {"classified"}, [row["error"] for row in rows]
    assert all(row["predicted_class"] == right[stored[row["key"]]] for row in rows)
    # A worker of Lambda or of the model holds a few images at once, never the batch, which is 750 MB.
    assert memory["peak"] - memory["before"] < 600
