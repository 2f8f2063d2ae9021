"""A box for other people's code: namespaces of Linux, in which it sees what it is given and nothing else.

The machine's programs and libraries are there to read; of its files, only what the box binds; of its processes, none;
of its network, only what listens on the box's own loopback. It needs user namespaces, which most kernels give to root
and to everybody. Where it cannot be had, `open_box` says so once and gives None.
"""

from __future__ import annotations

import errno
import logging
import marshal
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

LOOPBACK = {"127.0.0.1", "localhost"}
SWITCH = "SCONES_BOX"  # "off": no box

_INSIDE = Path(__file__).with_name("inside.py")
_LAUNCHER = [sys.executable, "-I", "-S", str(_INSIDE)]
log = logging.getLogger(__name__)


class Network:
    """A network of its own, with nothing but loopback; its sockets can be held by anybody.

    Raises:
        OSError: the kernel does not allow it; the message says why.
    """

    def __init__(self) -> None:
        self._asks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._guard = threading.Lock()
        with theirs:
            self._keeper = subprocess.Popen(
                [*_LAUNCHER, "network", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        if self._asks.recv(16) != b"ready":
            assert self._keeper.stderr is not None
            reason = self._keeper.stderr.read().decode(errors="replace").strip().splitlines()
            raise OSError(errno.EPERM, reason[-1] if reason else "no answer")

    @property
    def pid(self) -> int:
        """The process whose namespaces they are."""
        return self._keeper.pid

    def listen(self, port: int) -> socket.socket:
        """A socket that listens on 127.0.0.1 in there.

        Raises:
            OSError: the port is taken in there, or the network is gone.
        """
        return self._ask("listen", port)

    def connect(self, port: int) -> socket.socket:
        """A socket that is connected to 127.0.0.1 in there.

        Raises:
            OSError: nothing accepts the connection in there, or the network is gone.
        """
        return self._ask("connect", port)

    def close(self) -> None:
        """Let go of it; what runs in it keeps it."""
        self._asks.close()
        self._keeper.kill()
        self._keeper.communicate()

    def _ask(self, verb: str, port: int) -> socket.socket:
        with self._guard:
            self._asks.send(f"{verb} {port}".encode())
            answer, descriptors, _, _ = socket.recv_fds(self._asks, 16, 1)
        if descriptors:
            return socket.socket(fileno=descriptors[0])
        number = int(answer or errno.ECONNREFUSED)
        raise OSError(number, f"{verb} {port}: {os.strerror(number)}")


class Box:
    """How to run a command in a box; `network` is None where it shares the machine's."""

    def __init__(self, network: Network | None) -> None:
        self.network = network

    def command(
        self,
        command: Sequence[str],
        *,
        cwd: str,
        readable: Mapping[str, Path] | None = None,
        writable: Mapping[str, Path] | None = None,
    ) -> list[str]:
        """The command that runs `command` in a box.

        It takes SIGTERM and its like for all that runs in the box, ends as `command` ends, and whatever is left in the
        box ends with it.

        Args:
            cwd: the working directory, as seen from inside.
            readable: what else is there, by its place inside.
            writable: the same, and it may be changed. /tmp should be among them.
        """
        binds = [(place, str(source), False) for place, source in (readable or {}).items()]
        binds += [(place, str(source), True) for place, source in (writable or {}).items()]
        spec = {"network": self.network.pid if self.network else None, "cwd": cwd, "binds": binds}
        return [*_LAUNCHER, "run", marshal.dumps(spec).hex(), *command]


def open_box(endpoints: Iterable[str], whose: str) -> Box | None:
    """A box with a network of its own if all `endpoints` (URLs) are on loopback; None where there can be none.

    Args:
        whose: what runs in it, for the one warning that there is no box.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "off":
        reason = f"{SWITCH}=off" if sys.platform == "linux" else f"there is none on {sys.platform}"
        log.warning("%s run as processes of this user, without a box: %s. See docs/security.md.", whose, reason)
        return None
    try:
        hosts = {urlsplit(url).hostname for url in endpoints}
        local = bool(hosts) and hosts <= LOOPBACK
        box = Box(Network() if local else None)
        subprocess.run(
            box.command(["/bin/true"], cwd="/"), check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        log.warning(
            "%s RUN WITHOUT A BOX, as processes of this user: they can read its files and reach its network. "
            "User namespaces are not available here (%s). See docs/security.md.",
            whose,
            said,
        )
        return None
    return box


def python_folders() -> dict[str, Path]:
    """What a command in this Python needs to run: its environment and the installation beneath it."""
    return {path: Path(path) for path in {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}}
