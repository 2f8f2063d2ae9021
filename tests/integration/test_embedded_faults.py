"""`make run` again, beside another, and after every kind of sudden death: it works, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.checkout import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMPONENTS = [
    "ministack",
    "sagemaker_local",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
]


@pytest.fixture
def archive(shared_data: Path) -> str:
    return str(shared_data / "cifar-100-python.tar.gz")


def _summary(checkout: Checkout) -> dict:
    return json.loads((checkout.run_dir / "summary.json").read_text())


def _watch(process: subprocess.Popen[str], wanted: str, timeout_s: float = 600) -> list[str]:
    """Read the run's output until a line holds `wanted`, then keep reading it in the background."""
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + timeout_s
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            threading.Thread(target=lambda: lines.extend(process.stdout or []), daemon=True).start()
            return lines
        assert time.monotonic() < deadline, "".join(lines)
    raise AssertionError(f"ended before {wanted!r}:\n{''.join(lines)}")


def _state(checkout: Checkout) -> dict:
    return json.loads((checkout.run_dir / "state.json").read_text())


def _wait_until_nothing_runs(checkout: Checkout, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while checkout.running():
        assert time.monotonic() < deadline, checkout.running()
        time.sleep(0.2)


def test_twice_in_a_row_reuses_what_is_unchanged_and_loses_nothing(
    checkout_factory: Callable[..., Checkout], archive: str
):
    checkout = checkout_factory(CIFAR100_ARCHIVE=archive)
    assert checkout.call("run").returncode == 0
    first = _summary(checkout)
    again = checkout.call("run")
    assert again.returncode == 0, again.stdout
    second = _summary(checkout)
    assert second["dataset"]["version"] == first["dataset"]["version"]
    assert second["training"]["job_name"] == first["training"]["job_name"]
    assert second["training"]["reused"] is True
    assert second["batch"]["images"] == first["batch"]["images"]
    assert second["batch"]["batch_id"] != first["batch"]["batch_id"]
    assert checkout.running() == []


def test_two_checkouts_run_at_once(checkout_factory: Callable[..., Checkout], archive: str):
    both = [checkout_factory(CIFAR100_ARCHIVE=archive) for _ in range(2)]
    processes = [checkout.start("run") for checkout in both]
    for checkout, process in zip(both, processes, strict=True):
        output, _ = process.communicate(timeout=1500)
        assert process.returncode == 0, output
        assert _summary(checkout)["batch"]["failed"] == 0
        assert checkout.running() == []


@pytest.mark.parametrize("victim", COMPONENTS)
def test_a_killed_process_is_started_again_and_the_run_completes(
    victim: str, checkout_factory: Callable[..., Checkout], archive: str
):
    checkout = checkout_factory(CIFAR100_ARCHIVE=archive)
    process = checkout.start("run")
    lines = _watch(process, "stage_images")
    os.kill(_state(checkout)["processes"][victim], signal.SIGKILL)
    assert process.wait(1500) == 0, "".join(lines)
    assert _summary(checkout)["batch"]["failed"] == 0
    assert f"{victim} ended with -9; starting it again" in (checkout.run_dir / "logs" / "supervisor.log").read_text()
    assert checkout.running() == []


@pytest.mark.parametrize("victim", ["make run itself", "the supervisor"])
def test_what_a_killed_run_leaves_ends_and_the_next_one_works(
    victim: str, checkout_factory: Callable[..., Checkout], archive: str
):
    checkout = checkout_factory(CIFAR100_ARCHIVE=archive)
    process = checkout.start("run")
    lines = _watch(process, "stage_images")
    if victim == "make run itself":
        process.kill()
        process.wait()
        # The supervisor sees that its owner is gone, and ends everything.
        _wait_until_nothing_runs(checkout)
        again = checkout.call("run")
        assert again.returncode == 0, again.stdout
    else:
        os.kill(_state(checkout)["pid"], signal.SIGKILL)
        # The run notices, brings everything up again on the same ports, and goes on.
        assert process.wait(1500) == 0, "".join(lines)
    assert _summary(checkout)["batch"]["failed"] == 0
    assert checkout.running() == []


def test_up_is_idempotent_and_down_ends_every_process(checkout_factory: Callable[..., Checkout]):
    checkout = checkout_factory()
    first = checkout.call("up")
    assert first.returncode == 0, first.stdout
    supervisor = psutil.Process(_state(checkout)["pid"])
    assert checkout.call("up").returncode == 0
    assert _state(checkout)["pid"] == supervisor.pid
    assert checkout.call("status").returncode == 0
    assert checkout.call("down").returncode == 0
    assert checkout.running() == []
    assert not supervisor.is_running()
    assert checkout.call("down").stdout.strip() == "Nothing was running."


def test_a_busy_port_is_named_with_its_setting(checkout_factory: Callable[..., Checkout]):
    checkout = checkout_factory()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(checkout.environment["SCONES_AWS_PORT"])))
        taken.listen()
        done = checkout.call("up")
    assert done.returncode == 1
    assert "SCONES_AWS_PORT" in done.stdout
    assert checkout.running() == []
