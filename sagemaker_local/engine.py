"""Images that run as the containers they are: by a Docker engine on this machine, through its command line client.

They have a network of their own, in which nothing answers but the platform, as in a box. Whatever is made carries the
data directory's label, so that a service finds what an earlier, killed one left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from sagemaker_local.box import LOOPBACK
from sagemaker_local.config import DATA_DIR_MARKER
from sagemaker_local.container import OPT_ML, Container
from sagemaker_local.images import Command

PORT = 8080
"""Where SageMaker expects a model server in its container."""

_CLIENT = "docker"
# Of the service's AWS variables, what names the user's files or settings in them.
_NOT_PASSED_ON = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_CA_BUNDLE")
_MADE_BY_SIGNAL = range(128 + 1, 128 + 65)


class EngineError(OSError):
    """The engine does not do what it is asked; the message is the client's own last line."""


class EngineContainer(Container):
    """A container; its process here is the client that follows its output and ends with its exit code."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
        super().__init__(process, log)
        self.name = name
        self._address = ""

    @property
    def is_apart(self) -> bool:
        """Its ports are on an address of its own."""
        return True

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal as of any process; None while it runs."""
        return _exit_code(super().exit_code())

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code once it ends, or None after `timeout` seconds."""
        return _exit_code(super().wait(timeout))

    def connect(self, port: int) -> socket.socket:
        """A connection to its port.

        Raises:
            OSError: nothing accepts the connection, or the container has not started or is gone.
        """
        if not self._address:
            form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            self._address = _docker("container", "inspect", "--format", form, self.name)
        if not self._address:
            raise EngineError(f"{self.name} has no address yet")
        return socket.create_connection((self._address, port), timeout=5)

    def signal(self, number: signal.Signals) -> None:
        """Signal its first process; one that is gone already is no error."""
        with contextlib.suppress(EngineError):
            _docker("kill", "--signal", number.name, self.name)

    def kill(self) -> None:
        """Remove it with all that runs in it."""
        with contextlib.suppress(EngineError):
            _docker("rm", "--force", "--volumes", self.name)
        self.process.wait()


class Engine:
    """The Docker engine for one service: its containers and their network.

    Args:
        endpoints: where AWS is for containers. If all are on this machine, the network is closed: containers reach what
            listens there by `listen`.
    """

    def __init__(self, data_dir: Path, endpoints: Iterable[str]) -> None:
        marker = str(data_dir.resolve())
        endpoints = list(endpoints)
        self.is_closed = bool(endpoints) and {urlsplit(url).hostname for url in endpoints} <= LOOPBACK
        self._label = f"{DATA_DIR_MARKER}={marker}"
        self._network = f"sagemaker-{sha256(marker.encode()).hexdigest()[:12]}"
        self._bridge = f"sm{self._network[-12:]}"  # an interface's name has 15 characters at most
        self._gateway = ""
        self._user: list[str] = []

    def open(self) -> int:
        """Remove what an earlier service left, and make the network; gives the number of containers removed.

        Raises:
            EngineError: no engine answers on this machine, or it cannot clear up or make the network.
        """
        options = _docker("info", "--format", "{{.SecurityOptions}}")
        if os.geteuid() and "rootless" not in options:
            self._user = ["--user", f"{os.geteuid()}:{os.getegid()}"]  # else nobody could remove what they write
        left = self._clear()
        bridge = ["--opt", f"com.docker.network.bridge.name={self._bridge}"]
        apart = ["--internal", "--opt", "com.docker.network.bridge.enable_icc=false"] if self.is_closed else []
        _docker("network", "create", "--label", self._label, *bridge, *apart, self._network)
        self._gateway = _docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", self._network)
        return left

    def close(self) -> None:
        """Remove the network, and what may still be in it."""
        with contextlib.suppress(EngineError):
            self._clear()

    def has(self, image: str) -> bool:
        """Whether the engine has this image; it is never asked to fetch one."""
        try:
            _docker("image", "inspect", "--format", "{{.Id}}", image)
        except EngineError:
            return False
        return True

    def listen(self, port: int) -> socket.socket:
        """A socket that listens where containers reach it, and nobody else.

        Raises:
            OSError: the port is taken, or the network's bridge is not on this machine.
        """
        listening = socket.socket()
        try:
            # Not the address alone: other machines could reach that one by way of this machine's other interfaces.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._bridge.encode())
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._gateway, port))
            listening.listen(2048)
        except OSError:
            listening.close()
            raise
        return listening

    def start(self, command: Command, *, env: Mapping[str, str], root: Path, log: Path) -> EngineContainer:
        """Start a container of the command's image with `root` as its /opt/ml.

        Raises:
            EngineError: the engine does not make the container; the message is its client's last line.
        """
        name = f"{self._network}-{uuid.uuid4().hex[:12]}"
        environment = self._environment(env)
        # Of AWS's variables some are secret: the client reads those from its own environment, not from its arguments.
        secret = {key: value for key, value in environment.items() if key.startswith("AWS_")}
        given = [key if key in secret else f"{key}={value}" for key, value in environment.items()]
        entrypoint = ["--entrypoint", command.words[0]] if command.entrypoint else []
        options = ["--name", name, "--rm", "--pull", "never", "--label", self._label, "--network", self._network]
        options += ["--log-driver", "none", "--volume", f"{root}:{OPT_ML}", *self._user]
        options += [*(word for each in given for word in ("--env", each)), *entrypoint]
        _docker("create", *options, command.image, *command.words[len(entrypoint) // 2 :], environment=secret)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [_CLIENT, "start", "--attach", name],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, DATA_DIR_MARKER: self._label.partition("=")[2]},
                start_new_session=True,
            )
        return EngineContainer(process, log, name)

    def _environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The platform's AWS variables and the container's own, with this machine's addresses as it reaches them."""
        own = {name: value for name, value in os.environ.items() if name.startswith("AWS_") and value}
        kept = {name: value for name, value in own.items() if name not in _NOT_PASSED_ON}
        environment = {**kept, **given, "SM_ML_ROOT": OPT_ML}
        for name, value in environment.items():
            if (
                self.is_closed
                and name.startswith("AWS_ENDPOINT_URL")
                and (host := urlsplit(value).hostname) in LOOPBACK
            ):
                environment[name] = value.replace(host or "", self._gateway, 1)
        return environment

    def _clear(self) -> int:
        mine = ("--quiet", "--filter", f"label={self._label}")
        left = _docker("ps", "--all", *mine).split()
        if left:
            _docker("rm", "--force", "--volumes", *left)
        if networks := _docker("network", "ls", *mine).split():
            _docker("network", "rm", *networks)
        return len(left)


def _exit_code(code: int | None) -> int | None:
    return 128 - code if code in _MADE_BY_SIGNAL and code is not None else code


def _docker(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What the client prints.

    Raises:
        EngineError: there is no client, or it ends with an error; the message is then its last line.
    """
    variables = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run([_CLIENT, *arguments], env=variables, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineError(f"there is no docker client: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise EngineError(said[-1] if said else f"docker {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout.strip()
