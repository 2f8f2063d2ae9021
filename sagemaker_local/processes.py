"""Container processes: each in a session of its own, logging to a file, found again after a crash of the service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from sagemaker_local.config import DATA_DIR_MARKER

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Container:
    """One running container command and everything it starts (its process group)."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code once it ends, or None after `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole process group; one that is gone already is no error."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """SIGKILL the group and reap the process."""
        self.signal(signal.SIGKILL)
        self.process.wait()


class Processes:
    """Starts containers for one service and clears away what an earlier, killed service left running."""

    def __init__(self, data_dir: Path) -> None:
        self._marker = str(data_dir.resolve())

    def spawn(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Container:
        """Start `command` with the service's environment plus `env`; stdout and stderr go to the end of `log`.

        The log is a file, not a pipe, so that a container outlives a killed service without blocking or SIGPIPE, and no
        line is lost. Raises OSError when the command cannot be started.
        """
        paths = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **env, DATA_DIR_MARKER: self._marker}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        return Container(process, log)

    def end_leftovers(self) -> list[int]:
        """SIGKILL every process that carries this data directory's marker, and return their ids.

        Called once at start, when the lock on the data directory proves that no other service owns them.
        """
        ended = []
        own = os.getpid()
        for process in psutil.process_iter():
            if process.pid == own:
                continue
            try:
                if process.environ().get(DATA_DIR_MARKER) == self._marker:
                    process.kill()
                    ended.append(process.pid)
            except (psutil.Error, OSError):
                continue
        psutil.wait_procs([psutil.Process(pid) for pid in ended if psutil.pid_exists(pid)], timeout=5)
        return ended


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
