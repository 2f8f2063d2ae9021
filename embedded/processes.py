"""Start, watch and end the processes of the platform, and find those that an earlier, killed run left behind."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from embedded.environment import MARKER
from sagemaker_local.ended import wait_ended

POLL_SECONDS = 0.1
# Loaded here: between fork and exec, with other threads about, a child must not wait for a lock of the loader.
_LIBC = ctypes.CDLL(None, use_errno=True)


# A start is given up after so long without progress, and in any case after LONGEST_START_S.
STALLED_S = 120.0
LONGEST_START_S = 1800.0
# A server that only waits takes far less than this within STALLED_S.
PROGRESS_CPU_S = 5


class ServiceError(RuntimeError):
    """A process of the platform ended or did not become ready; the message holds the end of its log."""


class Patience:
    """How long to wait for something: as long as the work done for it goes on. Slow is not dead."""

    def __init__(self, work_done: Callable[[], object], stalled_s: float = STALLED_S) -> None:
        self._work_done, self._stalled_s = work_done, stalled_s
        self._last: object = None
        self._began = self._moved = time.monotonic()

    def left(self) -> bool:
        now, done = time.monotonic(), self._work_done()
        if done != self._last:
            self._last, self._moved = done, now
        return now - self._moved < self._stalled_s and now - self._began < LONGEST_START_S


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
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one system call
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_ready(self, stalled_s: float = STALLED_S) -> None:
        """Wait until `ready` is true, for as long as the process gets on: on a busy machine that takes minutes.

        Raises:
            ServiceError: the process ended, or did nothing for ``stalled_s`` seconds.
        """
        patience = Patience(self.work_done, stalled_s)
        while not self.ready():
            if not patience.left():
                raise ServiceError(f"{self.name} is not ready and has done nothing for {stalled_s:g} s. {self.tail()}")
            time.sleep(POLL_SECONDS)

    def work_done(self) -> tuple[int, int]:
        """What the process has done so far: processor time, in steps that idling does not make, and lines of its log.

        Raises:
            ServiceError: it ended.
        """
        if self.running and self.process:
            with contextlib.suppress(psutil.Error, OSError):
                used = psutil.Process(self.process.pid).cpu_times()
                steps = used.user + used.system + used.children_user + used.children_system
                return int(steps / PROGRESS_CPU_S), self.log.stat().st_size
        status = self.process.poll() if self.process else "never started"
        raise ServiceError(f"{self.name} ended with {status} before it was ready. {self.tail()}")

    def tail(self, lines: int = 15) -> str:
        with contextlib.suppress(OSError):
            return f"End of {self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return f"No log at {self.log}"


def http_ok(url: str, timeout_s: float = 5) -> bool:
    """Whether a GET of an http URL on this machine answers 200."""
    where = urlsplit(url)
    # Not `urllib.request`, which reads all certificates of the machine each time.
    connection = http.client.HTTPConnection(where.netloc, timeout=timeout_s)
    try:
        connection.request("GET", where.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


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


def own_family() -> frozenset[int]:
    """The ids of this process and of those it descends from, to be spared."""
    me = psutil.Process()
    return frozenset([me.pid, *(parent.pid for parent in me.parents())])


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
    alive = wait_ended(processes, grace_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_ended(alive, timeout_s=5)


def _end_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the parent dies, so that a killed run ends what it started."""
    pr_set_pdeathsig = 1
    _LIBC.prctl(pr_set_pdeathsig, signal.SIGTERM)
