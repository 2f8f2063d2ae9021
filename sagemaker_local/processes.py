"""Containers as processes: each in a session of its own, logging to a file, found again after the service crashed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from sagemaker_local.box import Box, Network, python_folders
from sagemaker_local.config import DATA_DIR_MARKER
from sagemaker_local.container import OPT_ML, Container
from sagemaker_local.ended import wait_ended
from sagemaker_local.engine import PORT, Engine
from sagemaker_local.images import Command

PACKAGE = Path(__file__).resolve().parent
PROJECT_ROOT = PACKAGE.parent
# Of the service's environment, what goes into a box: where AWS is, the locale, how many threads, the platform's marker.
_PASSED_ON = (
    "AWS_",
    "LANG",
    "LC_",
    "TZ",
    "NO_PROXY",
    "no_proxy",
    "PYTHONUTF8",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "SCONES_RUN_",
)
# What a script calls `python3` is the Python that runs this, which has the usual packages.
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


class Processes:
    """Starts containers for one service and clears away what an earlier, killed service left running.

    Each runs in a box, if there is one: the directory it is given is /opt/ml there, and /tmp its own. `engine` runs
    those that are images of its own.
    """

    def __init__(self, data_dir: Path, box: Box | None = None) -> None:
        self.box = box
        self.engine: Engine | None = None
        self._marker = str(data_dir.resolve())

    def start(self, command: Command, *, env: Mapping[str, str], root: Path, log: Path) -> Container:
        """Start a container with `root` as its /opt/ml, here or by the engine.

        Raises:
            OSError: it cannot be started, or its image takes an engine and there is none.
        """
        if not command.image:
            return self.spawn(command.words, env=env, cwd=root, log=log)
        if self.engine is None:
            raise OSError(f"it takes --containers docker to run {command.image}")
        return self.engine.start(command, env=env, root=root, log=log)

    def port(self, command: Command) -> int:
        """Where a model server started by this command is to listen."""
        return PORT if command.image else self.free_port()

    def spawn(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Container:
        """Start `command` with the service's environment plus `env`; stdout and stderr go to the end of `log`.

        In a box little of the service's environment is there: what is the user's stays outside.
        The log is a file, not a pipe, so that a container outlives a killed service without blocking or SIGPIPE, and no
        line is lost.

        Raises:
            OSError: the command cannot be started; in a box it ends with exit code 127 instead.
        """
        if self.box is not None:
            command, env = self._boxed(self.box, command, cwd), {**env, "HOME": "/tmp"}  # noqa: S108 - of its own
        paths = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "PATH": _PATH}
        kept = {name: value for name, value in os.environ.items() if self.box is None or name.startswith(_PASSED_ON)}
        environment = {**kept, **own, **env, DATA_DIR_MARKER: self._marker}
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
        return Container(process, log, self.boxed_network)

    @property
    def boxed_network(self) -> Network | None:
        """The network that containers have of their own, if any."""
        return self.box.network if self.box else None

    def free_port(self) -> int:
        """A port of 127.0.0.1 that nobody listens on now, where containers are."""
        network = self.boxed_network
        with network.listen(0) if network else socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])

    def _boxed(self, box: Box, command: Sequence[str], root: Path) -> list[str]:
        """The command in a box with its root at /opt/ml as well as where it is, and what an image's command names."""
        temporary = root / ".tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        named = [word for word in command[1:] if word.startswith("/") and Path(word).exists()]
        paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != str(PROJECT_ROOT)]
        readable = {path: Path(path) for path in [str(PACKAGE), *named, *filter(None, paths)]}
        own = {OPT_ML: root, str(root): root, "/tmp": temporary}  # noqa: S108 - the place in the box
        return box.command(command, cwd=str(root), readable=python_folders() | readable, writable=own)

    def end_leftovers(self) -> list[int]:
        """SIGKILL every process that carries this data directory's marker, and return their ids.

        Called once at start, when the lock on the data directory proves that no other service owns them.
        """
        ended = []
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            try:
                if process.environ().get(DATA_DIR_MARKER) == self._marker:
                    process.kill()
                    ended.append(process)
            except (psutil.Error, OSError):
                continue
        wait_ended(ended, timeout_s=5)
        return [process.pid for process in ended]
