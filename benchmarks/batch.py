"""Batch inference side by side with the raw engine and with the stock operator, and at ten thousand images.

All on one platform, brought up for the benchmark: what is compared runs in turn on the same warm Lambdas and endpoint.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks.batch_platform import BatchPlatform, batch_platform, seconds_of
from benchmarks.measure import Measurement

CONCURRENCY = 64
RAW_POLL_S = 0.25
CORES = os.cpu_count() or 1
STEADY = {"threshold": 0, "max_rejected_share": 1.0, "starts_per_second": 1000, "concurrency": CONCURRENCY}


def workflow_inputs(platform: BatchPlatform, keys: list[str]) -> list[str]:
    """The input of each execution, as the batch gives it."""
    common = {"image_data": "", "s3_bucket": platform.bucket, "threshold": 0}
    return [json.dumps({**common, "s3_key": key}) for key in keys]


async def raw_engine(platform: BatchPlatform, inputs: list[str]) -> float:
    """Start and poll an execution for each input, as short as it can be written; returns the seconds it took."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    machine, gate = platform.outputs["StateMachineArn"], asyncio.Semaphore(CONCURRENCY)
    options: dict[str, Any] = {
        "endpoint_url": platform.settings.aws_url,
        "region_name": platform.settings.region,
        "aws_access_key_id": "test",
        "aws_secret_access_key": platform.settings.aws_secret_key,
        "config": AioConfig(max_pool_connections=CONCURRENCY + 8),
    }
    async with get_session().create_client("stepfunctions", **options) as client:

        async def one(workflow_input: str) -> None:
            async with gate:
                name = f"raw-{uuid.uuid4().hex}"
                started = await client.start_execution(stateMachineArn=machine, name=name, input=workflow_input)
                while True:
                    await asyncio.sleep(RAW_POLL_S)
                    found = await client.describe_execution(executionArn=started["executionArn"])
                    if found["status"] != "RUNNING":
                        return

        began = time.perf_counter()
        await asyncio.gather(*(one(workflow_input) for workflow_input in inputs))
        return time.perf_counter() - began


async def our_engine(platform: BatchPlatform, keys: list[str]) -> float:
    """Run our engine alone over the same images, in this process; returns the seconds it took."""
    from scones.batch.aws import StandardExecutions, async_client, hook_for
    from scones.batch.engine import BatchEngine
    from scones.batch.flow import FlowControl
    from scones.batch.items import Item, Threshold, workflow_input
    from scones.batch.plan import ChunkRequest

    # Importing Airflow writes there: never into the user's home.
    os.environ["AIRFLOW_HOME"] = str(platform.settings.run_dir / "engine")
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = platform.connection
    batch_id = f"engine-{uuid.uuid4().hex[:8]}"
    endings: list[Any] = []
    hook = hook_for(ChunkRequest(platform.bucket, batch_id, 0, CONCURRENCY, 1000.0), "stepfunctions")
    retries = {"total_max_attempts": 1, "mode": "standard"}
    async with async_client(hook, retries=retries, max_pool_connections=CONCURRENCY + 8) as client:
        engine = BatchEngine(
            StandardExecutions(client, platform.outputs["StateMachineArn"]),
            FlowControl(CONCURRENCY, 1000.0),
            batch_id=batch_id,
            input_of=lambda item: workflow_input(
                item, batch_id=batch_id, bucket=platform.bucket, threshold=Threshold(0.0)
            ),
            deadline_s=600,
            on_ending=endings.append,
        )
        began = time.perf_counter()
        await engine.run([Item(key) for key in keys])
    assert len(endings) == len(keys)
    return time.perf_counter() - began


def run_batch(platform: BatchPlatform, prefix: str, **params: Any) -> tuple[float, dict[str, Any]]:
    """Run the DAG over a prefix; returns the seconds of its chunks, and its summary."""
    run_id, instances = platform.run("batch_inference", {**STEADY, "prefix": prefix, **params})
    summary: dict[str, Any] = platform.api.xcom("batch_inference", run_id, "summarize_batch")
    return seconds_of(instances, "run_chunk"), summary


def share_of_raw_engine(platform: BatchPlatform, images: int = 1000, rounds: int = 3) -> list[Measurement]:
    """Images per second of the DAG's task (deferral and results included), as a share of the raw engine's."""
    keys = platform.copy_images("bench/share/", images)
    inputs = workflow_inputs(platform, keys)
    run_batch(platform, "bench/share/", sample_size=min(50, images))  # warm
    ours, raw, engine = [], [], []
    ways = [
        lambda: raw.append(images / asyncio.run(raw_engine(platform, inputs))),
        lambda: ours.append(images / run_batch(platform, "bench/share/")[0]),
        lambda: engine.append(images / asyncio.run(our_engine(platform, keys))),
    ]
    for turn in range(rounds):
        # MiniStack keeps every execution and slows down with them: none of the three always comes first.
        for way in ways[turn % 3 :] + ways[: turn % 3]:
            way()
    share = statistics.median(ours) / statistics.median(raw)
    beside = {
        "images": images,
        "rounds": rounds,
        "raw engine, images/s": statistics.median(raw),
        "DAG task, images/s": statistics.median(ours),
        "all runs, images/s": {name: [round(one, 1) for one in runs] for name, runs in (("raw", raw), ("task", ours))},
        "our engine alone, images/s": statistics.median(engine),
        "our engine alone, share": statistics.median(engine) / statistics.median(raw),
    }
    return [Measurement("batch-share-of-raw-engine", share, "share", ">= 0.9", share >= 0.9, beside)]


def versus_stock_operator(platform: BatchPlatform, images: int = 200, runs: int = 5) -> list[Measurement]:
    """The DAG's task (median of runs) against the stock operator with its sensor, mapped per image, in one Airflow.

    Beside it the operator alone, deferrable and tuned to the shortest wait it has.
    """
    keys = platform.copy_images("bench/stock/", images)
    run_batch(platform, "bench/stock/", sample_size=min(50, images))  # warm
    took = []
    for _ in range(runs):  # the triggerer looks for new work once a second: a short task's time varies by as much
        seconds, summary = run_batch(platform, "bench/stock/")
        assert summary["classified"] == images
        took.append(seconds)
    our_seconds = statistics.median(took)
    machine = platform.outputs["StateMachineArn"]
    inputs = [json.loads(text) for text in workflow_inputs(platform, keys)]
    conf = {"state_machine_arn": machine, "inputs": inputs}
    _, instances = platform.run("stock_operator_and_sensor_per_image", conf, must_succeed=False)
    stock_seconds = seconds_of(instances, "start_execution", "await_execution")
    _, tuned = platform.run("stock_operator_per_image", conf, must_succeed=False)
    tuned_seconds = seconds_of(tuned, "start_execution")
    factor = stock_seconds / our_seconds
    beside = {
        "images": images,
        "ours, s": our_seconds,
        "ours, all runs, s": [round(one, 2) for one in took],
        "stock operator and sensor, s": stock_seconds,
        "stock operator alone, deferrable, waits of 1 s instead of 60 s, s": tuned_seconds,
        "ours against that one, x": tuned_seconds / our_seconds,
        "ours, images/s": images / our_seconds,
        "stock operator and sensor, images/s": images / stock_seconds,
        "stock operator and sensor, images without success": sum(
            one["task_id"] == "await_execution" and one["state"] != "success" for one in instances
        ),
    }
    return [Measurement("batch-vs-stock-operator", factor, "x", ">= 20", factor >= 20, beside)]


class _Peak(threading.Thread):
    """Watches the triggerer's memory."""

    def __init__(self, platform: BatchPlatform) -> None:
        super().__init__(daemon=True)
        self._platform, self._done, self.megabytes = platform, threading.Event(), 0.0

    def run(self) -> None:
        while not self._done.wait(0.5):
            self.megabytes = max(self.megabytes, self._platform.memory_mb("airflow-triggerer"))

    def end(self) -> float:
        self._done.set()
        self.join()
        return self.megabytes


def ten_thousand_images(platform: BatchPlatform, sizes: tuple[int, ...] = (100, 1000, 10_000)) -> list[Measurement]:
    """Every image has one outcome, the triggerer's memory does not follow their number, and neither does their cost."""
    largest = max(sizes)
    platform.copy_images("bench/many/", largest)
    run_batch(platform, "bench/many/", sample_size=min(50, largest))  # warm
    seconds, peaks, used, counted = {}, {}, {}, 0
    for size in sizes:
        peak = _Peak(platform)
        peak.start()
        before = platform.cpu_seconds()
        seconds[size], summary = run_batch(platform, "bench/many/", sample_size=size)
        peaks[size] = peak.end()
        used[size] = {name: total - before[name] for name, total in platform.cpu_seconds().items()}
        outcomes = sum(summary[name] for name in ("classified", "rejected", "failed", "timed_out", "aborted"))
        assert outcomes == summary["images"] == size, summary
        counted = outcomes
    lambdas = platform.settings.lambda_concurrency
    cost = {size: 1000 * took / size for size, took in seconds.items()}
    middle = sorted(sizes)[-2]
    growth, slope = peaks[largest] / peaks[middle], cost[largest] / cost[middle]
    beside: dict[str, Any] = {"sizes": str(sizes), "Lambdas at once (the bound)": lambdas}
    for size in sizes:
        beside[f"{size} images, s"] = seconds[size]
        beside[f"{size} images, ms each"] = cost[size]
        beside[f"{size} images, triggerer peak MB"] = peaks[size]
    # What bounds it: the CPU time that MiniStack, its Lambdas and the endpoint need for an image, on all cores.
    bound = 1000 * sum(used[largest][name] for name in ("ministack", "sagemaker_local")) / largest / CORES
    beside["bound by MiniStack, Lambdas and endpoint, ms each"] = bound
    beside["share of the bound reached"] = bound / cost[largest]
    beside["share of all cores in use"] = sum(used[largest].values()) / seconds[largest] / CORES
    for name, total in used[largest].items():
        beside[f"CPU of {name}, ms per image"] = 1000 * total / largest
    return [
        Measurement("batch-10k-images", float(counted), "images", f"== {largest}", counted == largest, beside),
        Measurement("batch-10k-memory-growth", growth, "x", "<= 1.15", growth <= 1.15, {"against": f"{middle} images"}),
        Measurement("batch-10k-cost-growth", slope, "x", "<= 1.25", slope <= 1.25, {"against": f"{middle} images"}),
    ]


def cpu_per_image(platform: BatchPlatform, images: int = 500) -> list[Measurement]:
    """Processor time of all processes for one image: unlike the clock, much the same on all machines."""
    platform.copy_images("bench/cpu/", images)
    run_batch(platform, "bench/cpu/", sample_size=min(50, images))  # warm
    before = platform.cpu_seconds()
    run_batch(platform, "bench/cpu/")
    used = {name: 1000 * (total - before[name]) / images for name, total in platform.cpu_seconds().items()}
    total = sum(used.values())
    beside: dict[str, Any] = {"images": images} | {f"{name}, ms": value for name, value in used.items()}
    return [Measurement("batch-cpu-ms-per-image", total, "ms", "<= 26", total <= 26, beside)]


def _on_platform(benchmark: Callable[[BatchPlatform], list[Measurement]]) -> Callable[[], list[Measurement]]:
    def run() -> list[Measurement]:
        with batch_platform() as platform:
            return benchmark(platform)

    return run


BENCHMARKS = {
    "batch-share-of-raw-engine": _on_platform(share_of_raw_engine),
    "batch-vs-stock-operator": _on_platform(versus_stock_operator),
    "batch-10k-images": _on_platform(ten_thousand_images),
    "batch-cpu-ms-per-image": _on_platform(cpu_per_image),
}
