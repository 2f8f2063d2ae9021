"""Processes are started, watched and ended whole, and leftovers of a killed run are found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from embedded.environment import MARKER, base_environment
from embedded.processes import Service, ServiceError, end_leftovers, marked_processes, stop_all
from embedded.settings import EmbeddedSettings
from sagemaker_local.ended import wait_ended

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def _service(tmp_path: Path, code: str, **options) -> Service:
    environment = {**os.environ, MARKER: str(tmp_path)}
    return Service("probe", [sys.executable, "-c", code], environment, tmp_path / "probe.log", **options)


def _wait_until(condition, timeout_s: float = 20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_a_service_that_dies_before_it_is_ready_says_why(tmp_path: Path):
    service = _service(tmp_path, "raise SystemExit('the disk is full')", ready=lambda: False)
    service.start()
    with pytest.raises(ServiceError, match=r"ended with 1 before it was ready(.|\n)*the disk is full"):
        service.wait_ready()


def test_a_service_that_does_nothing_is_given_up(tmp_path: Path):
    service = _service(tmp_path, "import time; time.sleep(600)", ready=lambda: False)
    service.start()
    try:
        with pytest.raises(ServiceError, match=r"has done nothing for 0\.3 s"):
            service.wait_ready(stalled_s=0.3)
    finally:
        stop_all([service])


def test_stopping_ends_the_children_too_even_those_that_ignore_the_signal(tmp_path: Path):
    ready = tmp_path / "ready"
    code = (
        "import signal, subprocess, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time;"
        " signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'])\n"
        f"pathlib.Path({str(ready)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    service = _service(tmp_path, code, ready=lambda: ready.exists() and ready.read_text() != "")
    service.start()
    service.wait_ready()
    child = psutil.Process(int(ready.read_text()))
    stop_all([service], grace_s=0.5)
    assert not service.running
    assert wait_ended([child], timeout_s=20) == []


def test_leftovers_are_found_by_their_mark_and_nothing_else_is_touched(tmp_path: Path):
    ours = subprocess.Popen(SLEEPER, env={**os.environ, MARKER: str(tmp_path)}, start_new_session=True)
    other = subprocess.Popen(SLEEPER, env={**os.environ, MARKER: str(tmp_path / "another")}, start_new_session=True)
    try:
        _wait_until(lambda: [item.pid for item in marked_processes(tmp_path)] == [ours.pid])
        assert end_leftovers(tmp_path) == 1
        assert marked_processes(tmp_path) == []
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_a_process_that_titles_itself_is_found_too(tmp_path: Path):
    """As Airflow's workers do: a title that overwrites the environment would hide them from the clean-up."""
    code = (
        "import setproctitle, time; setproctitle.setproctitle('airflow worker'); print(1, flush=True); time.sleep(600)"
    )
    environment = base_environment(EmbeddedSettings(run_dir=tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert [item.pid for item in marked_processes(tmp_path)] == [process.pid]
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent's life")
def test_services_end_when_their_supervisor_is_killed(tmp_path: Path):
    code = (
        "import os, sys, time, pathlib\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})\n"
        "from embedded.processes import Service\n"
        f"service = Service('x', {SLEEPER!r}, dict(os.environ), pathlib.Path({str(tmp_path / 'x.log')!r}))\n"
        "service.start(); print(service.process.pid, flush=True); time.sleep(600)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    child = psutil.Process(int(supervisor.stdout.readline()))
    supervisor.kill()
    supervisor.wait()
    assert wait_ended([child], timeout_s=20) == []
