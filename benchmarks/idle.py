"""What the embedded platform uses when it is left alone, and how soon it is at work when it is asked to."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.measure import Measurement
from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi
from embedded.processes import end_leftovers, marked_processes
from embedded.settings import PORT_FIELDS, PROJECT_ROOT, VARIABLES, free_port, load

# Starting up has its own price: file systems warm up, every DAG file is parsed for the first time.
SETTLE_S = 120
MEASURED_S = 600
RUNS = 8


def _processor_seconds(run_dir: Path) -> dict[str, float]:
    """Processor time so far, by what the process is; short-lived children count with whoever waited for them."""
    used: dict[str, float] = {}
    for process in marked_processes(run_dir):
        with contextlib.suppress(psutil.Error):
            times, name = process.cpu_times(), _name(process.cmdline())
            total = times.user + times.system + times.children_user + times.children_system
            used[name] = used.get(name, 0.0) + total
    return used


def _name(command: list[str]) -> str:
    words = " ".join(command)
    known = ("ministack", "sagemaker_local", "supervise", "scheduler", "dag-processor", "triggerer", "api_server")
    return next((name for name in known if name in words), "task workers")


def _memory_mb(run_dir: Path) -> float:
    """Memory of all processes, what they share counted once (Linux) or as often as it is used (elsewhere)."""
    total = 0
    for process in marked_processes(run_dir):
        with contextlib.suppress(psutil.Error):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return total / 1e6


def _seconds_to_first_task(api: AirflowApi) -> float:
    """From the trigger to the first task at work: a dry run of `cleanup`, which changes nothing."""
    run_id = f"idle-{uuid.uuid4().hex[:8]}"
    api.trigger("cleanup", run_id, {})
    while api.run_state("cleanup", run_id) not in TERMINAL_RUN_STATES:
        time.sleep(0.2)
    queued = datetime.fromisoformat(api.call("GET", f"/dags/cleanup/dagRuns/{run_id}")["queued_at"])
    began = min(one["start_date"] for one in api.task_instances("cleanup", run_id) if one["start_date"])
    return (datetime.fromisoformat(began) - queued).total_seconds()


def idle_cpu_share() -> list[Measurement]:
    with tempfile.TemporaryDirectory(prefix="idle-benchmark-") as folder:
        environ = os.environ | {VARIABLES[name]: str(free_port()) for name in PORT_FIELDS}
        environ["SCONES_RUN_DIR"] = str(Path(folder) / "run")
        settings = load(environ)
        try:
            subprocess.run([sys.executable, "-m", "embedded", "up"], cwd=PROJECT_ROOT, env=environ, check=True)
            time.sleep(SETTLE_S)
            before, began = _processor_seconds(settings.run_dir), time.monotonic()
            time.sleep(MEASURED_S)
            elapsed, after = time.monotonic() - began, _processor_seconds(settings.run_dir)
            shares = {name: round((used - before.get(name, 0.0)) / elapsed, 4) for name, used in after.items()}
            memory = _memory_mb(settings.run_dir)
            api = AirflowApi(settings.airflow_url, settings.user, settings.password)
            api.wait_dag("cleanup")
            starts = [_seconds_to_first_task(api) for _ in range(RUNS)]
        finally:
            subprocess.run([sys.executable, "-m", "embedded", "down"], cwd=PROJECT_ROOT, env=environ, check=False)
            end_leftovers(settings.run_dir)
    share = sum(shares.values())
    beside = {f"share of {name}": value for name, value in sorted(shares.items(), key=lambda item: -item[1])} | {
        "memory in MB": round(memory),
        "median seconds from a trigger to its first task": round(statistics.median(starts), 2),
    }
    return [Measurement("idle-cpu-share", round(share, 4), "core", "< 0.08", share < 0.08, beside)]


BENCHMARKS = {"idle-cpu-share": idle_cpu_share}
