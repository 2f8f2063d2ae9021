"""Monitoring at scale: all captured records with their images, beside the way the published notebooks read them.

The notebook way: download each file, ``json.loads`` of every line into one list, a pandas frame. It computes no image
statistics. Both read the same objects from the same S3 (MiniStack), each in a process of its own.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.measure import ROOT, SHARED_ARCHIVE, Measurement

#: SageMaker writes a file every few seconds: files made by AWS at low traffic hold 1 to 3 records.
RECORDS_PER_FILE = 20
#: Real traffic repeats images too; encoding more would take longer than what is measured.
DIFFERENT_IMAGES = 10_000
ENDPOINT = "bench"
START = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def _platform() -> Iterator[Any]:
    """A MiniStack of our own, and a bucket."""
    # Not above: the processes that are measured import this module.
    from benchmarks.platforms import ministack

    with ministack() as settings:
        _client(settings.aws_url).create_bucket(Bucket=ENDPOINT)
        yield settings.aws_url


def _client(url: str) -> Any:
    import boto3

    return boto3.Session("test", "test", region_name="us-east-1").client("s3", endpoint_url=url)


def _images() -> Any:
    """Real images where they are, else drawn ones: uint8 (1000, 32, 32, 3)."""
    import numpy as np

    if SHARED_ARCHIVE.exists():
        from scones.dataset.cifar import read_archive

        return np.asarray(read_archive(SHARED_ARCHIVE).train.images)[:1000].transpose(0, 2, 3, 1)
    generator = np.random.default_rng(0)
    coarse = generator.normal(125, 40, (1000, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(coarse + generator.normal(0, 12, (1000, 32, 32, 3)), 0, 255).astype(np.uint8)


def _pictures(images: Any, first: int) -> list[str]:
    """The images of the file that begins at ``first``, in base64: real ones with a little noise, all different.

    RGBA with Pillow's defaults, as the published data sets are; a record then has the 4 kB of those made by AWS.
    """
    import numpy as np
    from PIL import Image

    chosen = images[np.arange(first, first + RECORDS_PER_FILE) % len(images)].astype(np.int16)
    noisy = chosen + np.random.default_rng(first).integers(-1, 2, chosen.shape, dtype=np.int16)
    pixels = np.full((*chosen.shape[:3], 4), 255, dtype=np.uint8)
    pixels[..., :3] = np.clip(noisy, 0, 255)
    encoded = []
    for one in pixels:
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "PNG")
        encoded.append(base64.b64encode(buffer.getvalue()).decode())
    return encoded


def _file(pictures: list[str], first: int, count: int) -> bytes:
    """One capture file, as AWS writes them."""
    lines = []
    for index in range(first, first + count):
        sure = 0.5 + 0.5 * ((index * 2654435761) % 1000) / 1000
        at = START + timedelta(seconds=index)
        lines.append(
            '{"captureData":{"endpointInput":{"observedContentType":"image/png","mode":"INPUT","data":"'
            + pictures[index - first]
            + '","encoding":"BASE64"},"endpointOutput":{"observedContentType":"application/json","mode":"OUTPUT",'
            + f'"data":"[{sure}, {1 - sure}]","encoding":"JSON"}}}},"eventMetadata":{{"eventId":"{index:036d}",'
            + f'"customAttributes":["datasets/ds-0123456789ab/test/bicycle_s_{index:06d}.png"],'
            + f'"inferenceId":"batch-{index:032d}","inferenceTime":"{at:%Y-%m-%dT%H:%M:%SZ}"}},"eventVersion":"0"}}\n'
        )
    return "".join(lines).encode()


def _put_files(url: str, prefix: str, firsts: range, records: int) -> int:
    """Write the files that begin at ``firsts``; return their bytes. Runs in a process of its own."""
    images, client, written = _images(), _client(url), 0
    pictures: dict[int, list[str]] = {}
    for first in firsts:
        same = first % DIFFERENT_IMAGES
        if same not in pictures:
            pictures[same] = _pictures(images, same)
        body = _file(pictures[same], first, min(RECORDS_PER_FILE, records - first))
        at = START + timedelta(seconds=first)
        key = f"{prefix}/{ENDPOINT}/AllTraffic/{at:%Y/%m/%d/%H/%M-%S}-000-{uuid.UUID(int=first)}.jsonl"
        client.put_object(Bucket=ENDPOINT, Key=key, Body=body)
        written += len(body)
    return written


def _fill(url: str, records: int, prefix: str) -> int:
    """Captures of ``records`` invocations under ``prefix``; return their bytes."""
    import multiprocessing

    workers = 2
    step = RECORDS_PER_FILE * workers
    jobs = [(url, prefix, range(RECORDS_PER_FILE * one, records, step), records) for one in range(workers)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return sum(pool.starmap(_put_files, jobs))


OURS = """
import json, sys, time
began = time.perf_counter()
import numpy as np
from datetime import UTC, datetime
from benchmarks.monitoring import ENDPOINT, _client
from scones.monitoring.capture_files import Watermark
from scones.monitoring.capture_reader import read_capture
from scones.monitoring.capture_summary import ReadSettings
from scones.monitoring.drift import suggest_constraints
from scones.images.statistics import NoveltyScale, baseline_statistics
from scones.monitoring.build import ModelDocuments, ReportInputs, build_report
from scones.monitoring.page import render_page
from scones.training.served import ServedModel
from scones.monitoring.index import DagRun, Window
from scones.monitoring.store import fetcher, list_captures
from scones.aws.store import ObjectStore

url, prefix, records = sys.argv[1], sys.argv[2], int(sys.argv[3])
imported, import_cpu = time.perf_counter(), time.process_time()
store = ObjectStore(ENDPOINT, client=_client(url))
baseline = baseline_statistics(
    np.random.default_rng(0).integers(0, 256, (500, 32, 32, 3), dtype=np.uint8), [0] * 500, ["bicycle", "motorcycle"])
settings = ReadSettings(classes=("bicycle", "motorcycle"), scale=NoveltyScale.of(baseline))
now = datetime.now(UTC)
files = Watermark().select(list_captures(store, f"{prefix}/{ENDPOINT}/", None, now))
summary = read_capture(files, fetcher(store), settings)
endpoint = {"name": ENDPOINT, "config_name": "c", "capture_enabled": True, "sampling_percentage": 100}
model = ModelDocuments(
    ServedModel(ENDPOINT, classes=settings.classes), {"threshold": 0.93, "version": 1}, baseline,
    suggest_constraints(baseline))
report = build_report(summary, ReportInputs(
    report_id="report-0", run=DagRun(), endpoint=endpoint, window=Window(now, now), created_at=now, model=model))
page = render_page(report, summary.least_confident, summary.most_unlike)
assert summary.records == records and not summary.undecodable and not summary.malformed, summary.records
mark = Watermark().advance(files)
again = time.perf_counter()
assert mark.select(list_captures(store, f"{prefix}/{ENDPOINT}/", None, now)) == []
ended = time.perf_counter()
print(json.dumps({"seconds": ended - began, "import_s": imported - began, "import_cpu_s": import_cpu,
                  "again_s": ended - again, "page_kb": len(page) // 1024}))
"""

NOTEBOOK = """
import json, os, sys, tempfile, time
began = time.perf_counter()
import pandas as pd
from benchmarks.monitoring import ENDPOINT, _client

url, prefix, records = sys.argv[1], sys.argv[2], int(sys.argv[3])
imported, import_cpu = time.perf_counter(), time.process_time()
client = _client(url)
data = []
with tempfile.TemporaryDirectory() as folder:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=ENDPOINT, Prefix=f"{prefix}/"):
        for item in page["Contents"]:
            path = os.path.join(folder, os.path.basename(item["Key"]))
            client.download_file(ENDPOINT, item["Key"], path)
            with open(path) as file:
                for line in file:
                    data.append(json.loads(line))
frame = pd.json_normalize(data)
frame["inferences"] = frame["captureData.endpointOutput.data"].map(json.loads)
frame["confidence"] = frame["inferences"].map(max)
frame["time"] = pd.to_datetime(frame["eventMetadata.inferenceTime"])
frame.set_index("time")["confidence"].resample("1h").mean()
assert len(frame) == records
ended = time.perf_counter()
print(json.dumps({"seconds": ended - began, "import_s": imported - began, "import_cpu_s": import_cpu}))
"""


def _measured(program: str, *arguments: str) -> dict[str, float]:
    """Run a program in its own process; its answer, with the peak memory of it and its children in MB."""
    import resource

    import psutil

    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, env=environment, text=True
    )
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not done.wait(0.05):
            try:
                family = [root, *root.children(recursive=True)]
                # Unique memory: what several processes share, libraries above all, counts in none of them.
                peak = max(peak, sum(member.memory_full_info().uss for member in family) / 1e6)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"the benchmark's process ended with {process.returncode}")
    answer: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - answer["import_cpu_s"]
    return {**answer, "peak_mb": peak, "cpu_s": cpu}


def _both(records: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Ours and the notebook's at ``records``, ours at a tenth; short ones twice, in turns, the better counts."""
    rounds = 1 if records >= 100_000 else 2
    with _platform() as url:
        size = _fill(url, records, "full")
        _fill(url, records // 10, "tenth")
        small = min(
            (_measured(OURS, url, "tenth", str(records // 10)) for _ in range(2)), key=lambda one: one["seconds"]
        )
        runs = [
            (_measured(NOTEBOOK, url, "full", str(records)), _measured(OURS, url, "full", str(records)))
            for _ in range(rounds)
        ]
        notebook = min((run[0] for run in runs), key=lambda one: one["seconds"])
        ours = min((run[1] for run in runs), key=lambda one: one["seconds"])
    return {**ours, "megabytes": round(size / 1e6)}, notebook, small


def _measurements(records: int, suffix: str) -> list[Measurement]:
    ours, notebook, small = _both(records)
    # Without the imports: a notebook's kernel and Airflow's task process have theirs behind them.
    ours_s, notebook_s, small_s = (one["seconds"] - one["import_s"] for one in (ours, notebook, small))
    speedup = notebook_s / ours_s
    beside = {
        "records": records,
        "megabytes": ours["megabytes"],
        "ours_s": round(ours_s, 2),
        "notebook_s": round(notebook_s, 2),
        "ours_processor_s": round(ours["cpu_s"], 2),
        "notebook_processor_s": round(notebook["cpu_s"], 2),
        "ours_peak_mb": round(ours["peak_mb"]),
        "notebook_peak_mb": round(notebook["peak_mb"]),
        "ours_tenth_s": round(small_s, 2),
        "ours_tenth_peak_mb": round(small["peak_mb"]),
        "ours_import_s": round(ours["import_s"], 2),
        "notebook_import_s": round(notebook["import_s"], 2),
        "repeated_run_s": round(ours["again_s"], 3),
        "page_kb": ours["page_kb"],
        "processors": os.cpu_count(),
    }
    flat = ours["peak_mb"] <= 1.5 * small["peak_mb"] + 20
    return [
        Measurement(f"monitoring-speedup-{suffix}", round(speedup, 2), "x", ">= 3", speedup >= 3, beside),
        Measurement(
            "monitoring-peak-mb" if suffix == "100k" else f"monitoring-peak-mb-{suffix}",
            round(ours["peak_mb"]),
            "MB",
            "< 400, and flat from a tenth of the records",
            ours["peak_mb"] < 400 and flat,
            beside,
        ),
    ]


def at_100k() -> list[Measurement]:
    """100,000 records, 371 MB."""
    return _measurements(100_000, "100k")


def at_10k() -> list[Measurement]:
    """10,000 records: the same quickly, where starting up weighs more."""
    return _measurements(10_000, "10k")


BENCHMARKS: dict[str, Callable[[], list[Measurement]]] = {
    "monitoring-speedup-100k": at_100k,
    "monitoring-speedup-10k": at_10k,
}
