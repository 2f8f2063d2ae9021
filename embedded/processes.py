"""Start, watch and end the processes of the platform, and find those that an earlier, killed run left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from embedded.environment import MARKER

POLL_SECONDS = 0.1


class ServiceError(RuntimeError):
    """A process of the platform ended or did not become ready; the message holds the end of its log."""


@dataclass
class Service:
    """One process: how to start it, and how to see that it is ready.

    Attributes:
        name: name of its log file and in messages.
        command: argument list.
        environment: the whole environment of the process.
        log: file its output is appended to.
        ready: True once it can be used; asked again until then.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool] = lambda: True
    cwd: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_ready(self, timeout_s: float = 120) -> None:
        """Wait until `ready` is true.

        Raises:
            ServiceError: the process ended, or is not ready after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if not self.running:
                status = self.process.returncode if self.process else "never started"
                raise ServiceError(f"{self.name} ended with {status} before it was ready. {self.tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} was not ready after {timeout_s:.0f} s. {self.tail()}")
            time.sleep(POLL_SECONDS)

    def tail(self, lines: int = 15) -> str:
        with contextlib.suppress(OSError):
            return f"End of {self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return f"No log at {self.log}"


def http_ok(url: str, timeout_s: float = 5) -> bool:
    """Whether a GET answers 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def stop_all(services: Sequence[Service], grace_s: float = 20) -> None:
    """End the services, last started first, each with its whole session: SIGTERM, then SIGKILL after ``grace_s``."""
    alive: list[psutil.Process] = []
    for service in reversed(services):
        if service.process is None:
            continue
        members = _session_members(service.process.pid)
        if service.running:
            service.process.terminate()
        alive += members
    _end(alive, grace_s, terminate=False)
    for service in services:
        if service.process is not None:
            service.process.wait()


def end_leftovers(run_dir: Path, grace_s: float = 5, spare: frozenset[int] = frozenset()) -> int:
    """End every process that carries this run folder's marker, except ``spare`` and the caller; return how many."""
    found = [process for process in marked_processes(run_dir) if process.pid not in spare | {os.getpid()}]
    _end(found, grace_s, terminate=True)
    return len(found)


def marked_processes(run_dir: Path) -> list[psutil.Process]:
    """Every process of this user that was started for this run folder, whoever its parent is now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) == str(run_dir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _session_members(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader:
                members.append(process)
    with contextlib.suppress(psutil.Error):
        members += [item for item in psutil.Process(leader).children(recursive=True) if item not in members]
    return members


def _end(processes: Sequence[psutil.Process], grace_s: float, terminate: bool) -> None:
    if terminate:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def _end_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the parent dies, so that a killed run ends what it started."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1
    libc.prctl(pr_set_pdeathsig, signal.SIGTERM)
