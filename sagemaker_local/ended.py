"""Whether processes have ended, whoever their parent is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil


def wait_ended(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until these run no longer, and return those that still do.

    Not `psutil.wait_procs`: what waits to be reaped counts as running there, and whoever is process 1 may take seconds
    for that, or never do it in a Docker container.
    """
    until = time.monotonic() + timeout_s
    while (running := [process for process in processes if _runs(process)]) and time.monotonic() < until:
        time.sleep(0.01)
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
