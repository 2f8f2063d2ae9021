"""What is slow, away or stopped for a while is not dead: runs wait for it, and go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded.run_folder import is_held, read_state
from tests.support.checkout import Checkout
from tests.support.running_platform import RunningPlatform, patiently

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
DAG = "train_and_deploy"
# Small and quick, on the drawn sample.
CONF = {"epochs": 1, "minimum_accuracy": 0.0}
FIVE_MINUTES = 300.0
CLOCK = Path(__file__).resolve().parents[1] / "data" / "clock.c"
PROCESSES = (
    "ministack",
    "sagemaker_local",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
)


@pytest.fixture
def platform(checkout_factory: Callable[..., Checkout]) -> Iterator[RunningPlatform]:
    checkout = checkout_factory(CIFAR100_MIRRORS="")
    done = checkout.call("up", 1200)
    assert done.returncode == 0, done.stdout
    yield RunningPlatform(checkout)
    checkout.call("down")


def _state(platform: RunningPlatform) -> dict[str, Any]:
    state = read_state(platform.settings.run_dir)
    assert state is not None
    return state


@contextlib.contextmanager
def _held(*pids: int) -> Iterator[None]:
    """Processes that do nothing for a while, as on a machine that swaps or sleeps."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _for(seconds: float) -> None:
    """The length of the outage is what is tested, so there is no condition to wait for."""
    time.sleep(seconds)


def _at_work(platform: RunningPlatform, run_id: str) -> None:
    def state() -> str | None:
        return patiently(lambda: platform.task_state(DAG, run_id, "stage_images"), 600)

    platform.until(state, lambda found: found == "running", 600)


def _tries(platform: RunningPlatform, run_id: str) -> dict[str, int]:
    return {one["task_id"]: one["try_number"] for one in platform.api.task_instances(DAG, run_id)}


def test_tasks_outlast_an_api_server_that_is_away_for_five_minutes(platform: RunningPlatform):
    run_id = platform.start(DAG, CONF)
    _at_work(platform, run_id)
    state = _state(platform)
    server = psutil.Process(state["processes"]["airflow-api-server"])
    # Its supervisor would start it again within a second.
    with _held(state["pid"]):
        server.kill()
        _for(FIVE_MINUTES)
    assert platform.wait(DAG, run_id, 1800) == "success", platform.explain(DAG, run_id)
    assert set(_tries(platform, run_id).values()) <= {0, 1}, "no task spent a second try on it"


def test_a_run_survives_each_process_that_stands_still_for_a_minute(platform: RunningPlatform):
    before = _state(platform)["processes"]
    run_id = platform.start(DAG, CONF)
    _at_work(platform, run_id)
    for name in PROCESSES:
        with _held(before[name]):
            _for(60)
    assert platform.wait(DAG, run_id, 1800) == "success", platform.explain(DAG, run_id)
    assert _state(platform)["processes"] == before, "nothing was started anew"


def test_a_run_survives_a_database_that_is_locked_for_half_a_minute(platform: RunningPlatform):
    run_id = platform.start(DAG, CONF)
    _at_work(platform, run_id)
    before = _state(platform)["processes"]
    for database in (
        platform.settings.airflow_home / "airflow.db",
        platform.settings.run_dir / "sagemaker/state.sqlite",
    ):
        with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            _for(30)
            holder.execute("ROLLBACK")
    assert platform.wait(DAG, run_id, 1800) == "success", platform.explain(DAG, run_id)
    assert _state(platform)["processes"] == before, "nothing was started anew"


@pytest.mark.parametrize("jump_s", [8 * 3600, -90], ids=["slept-for-a-night", "set-back"])
def test_a_run_survives_a_clock_that_jumps(checkout_factory: Callable[..., Checkout], tmp_path: Path, jump_s: int):
    """A laptop that slept finds itself hours later, and a wrong clock is set right in the middle of a run.

    Airflow looks at no run that was triggered in the future, so a run waits for as long as the clock was set back.
    """
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed, which makes the clock that jumps")
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, CLOCK, "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", 0))
    checkout = checkout_factory(CIFAR100_MIRRORS="", LD_PRELOAD=str(library), CLOCK_OFFSET_FILE=str(offset))
    done = checkout.call("up", 1200)
    assert done.returncode == 0, done.stdout
    platform = RunningPlatform(checkout)
    run_id = platform.start(DAG, CONF)
    _at_work(platform, run_id)
    with offset.open("r+b") as file:  # the same file, as processes have it in their memory
        file.write(struct.pack("q", jump_s))
    assert platform.wait(DAG, run_id, 1800) == "success", platform.explain(DAG, run_id)
    assert checkout.call("down").returncode == 0


def test_all_processes_killed_at_once_come_back_side_by_side(platform: RunningPlatform):
    run_id = platform.start(DAG, CONF)
    _at_work(platform, run_id)
    before = _state(platform)["processes"]
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    platform.until(lambda: _state(platform)["processes"], lambda now: not set(now.values()) & set(before.values()), 30)
    assert platform.wait(DAG, run_id, 1800) == "success", platform.explain(DAG, run_id)


def test_of_two_ups_one_wins_and_the_other_says_so(checkout_factory: Callable[..., Checkout]):
    checkout = checkout_factory(CIFAR100_MIRRORS="")
    both = [checkout.start("up") for _ in range(2)]
    said = [process.communicate(timeout=1200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("Another command is bringing this platform up" in output for output in said) == 1
    assert all("Airflow UI" in output for output in said)
    assert checkout.call("down").returncode == 0
    assert checkout.running() == []


def test_a_run_that_finds_an_up_on_its_way_uses_it_and_leaves_it_up(checkout_factory: Callable[..., Checkout]):
    """The loser of the two ended the winner in its clean-up."""
    checkout = checkout_factory(CIFAR100_MIRRORS="")
    up = checkout.start("up")
    RunningPlatform.until(lambda: is_held(checkout.run_dir), bool)
    run = checkout.call("run", 1800)
    assert run.returncode == 0, run.stdout
    assert up.wait(60) == 0
    assert read_state(checkout.run_dir) is not None
    assert checkout.call("down").returncode == 0


def test_down_in_the_middle_of_a_run_is_told_to_the_run_and_the_next_one_goes_on(
    checkout_factory: Callable[..., Checkout],
):
    checkout = checkout_factory(CIFAR100_MIRRORS="")
    run = checkout.start("run")
    platform = RunningPlatform(checkout)
    platform.until(lambda: read_state(checkout.run_dir), lambda state: state is not None, 1200)
    platform.until(lambda: platform.api.call("GET", f"/dags/{DAG}/dagRuns")["total_entries"], bool, 600)
    assert checkout.call("down").returncode == 0
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "was ended while this run was at work (`make down`)" in output
    assert checkout.running() == []
    again = checkout.call("run", 1800)
    assert again.returncode == 0, again.stdout


def test_a_damaged_database_is_kept_aside_and_said(checkout_factory: Callable[..., Checkout]):
    checkout = checkout_factory()
    database = checkout.run_dir / "airflow" / "airflow.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database at all" * 1000)
    done = checkout.call("up", 1200)
    assert done.returncode == 0, done.stdout
    assert "airflow.db was damaged: it is kept as airflow.db.damaged-" in done.stdout
    (aside,) = database.parent.glob("airflow.db.damaged-*")
    assert aside.read_bytes() == b"no database at all" * 1000
    assert checkout.call("down").returncode == 0
