"""One running container, as whoever started it sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from sagemaker_local.box import Network

OPT_ML = "/opt/ml"
"""Where a container finds what is its own."""


class Container:
    """One running container command and everything it starts (its process group).

    `network` is where its ports are, None for this machine's own.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, network: Network | None = None) -> None:
        self.process = process
        self.log = log
        self._network = network

    @property
    def is_apart(self) -> bool:
        """Whether its ports are not this machine's own, so that it takes `connect` to reach them."""
        return self._network is not None

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

    def connect(self, port: int) -> socket.socket:
        """A connection to its port.

        Raises:
            OSError: nothing accepts the connection.
        """
        if self._network is not None:
            return self._network.connect(port)
        return socket.create_connection(("127.0.0.1", port), timeout=5)

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
