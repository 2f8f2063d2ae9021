"""Up, down and status of one checkout's platform."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import psutil

from embedded.environment import MARKER
from embedded.processes import end_leftovers
from embedded.settings import PROJECT_ROOT, VARIABLES, EmbeddedSettings
from embedded.supervisor import applied, read_state

POLL_SECONDS = 0.2


class PlatformError(RuntimeError):
    """The platform did not start; the message says why."""


def start(settings: EmbeddedSettings, owned: bool) -> EmbeddedSettings:
    """Bring the platform up, or use the one that is up, and return the settings with its real ports.

    Args:
        settings: what was asked for.
        owned: the platform ends when this process does, and may move away from busy default ports.

    Raises:
        PlatformError: it did not become ready.
    """
    state = read_state(settings)
    if state is not None:
        return applied(settings, state)
    log = settings.logs_dir / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["--owner-pid", str(os.getpid()), "--move-ports"] if owned else []
    with log.open("a") as output:
        began = output.tell()
        # The ports of a platform that died under us are asked for again, so that addresses stay as printed.
        ports = {VARIABLES[name]: str(getattr(settings, name)) for name in settings.explicit_ports}
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded", "supervise", *arguments],
            cwd=PROJECT_ROOT,
            env={**os.environ, **ports, MARKER: str(settings.run_dir)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while True:
        state = read_state(settings)
        if state is not None:
            return applied(settings, state)
        if process.poll() is not None:
            with log.open() as written:
                written.seek(began)
                raise PlatformError(f"The platform did not start:\n{written.read().strip()}")
        time.sleep(POLL_SECONDS)


def stop(settings: EmbeddedSettings) -> int:
    """End the platform and whatever a killed one left behind; return how many processes were ended."""
    ended = 0
    for process in _supervisors(settings):
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.wait(timeout=60)
            ended += 1
    me = psutil.Process()
    family = frozenset([me.pid, *(parent.pid for parent in me.parents())])
    return ended + end_leftovers(settings.run_dir, spare=family)


def _supervisors(settings: EmbeddedSettings) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = process.environ().get(MARKER) == str(settings.run_dir)
            if ours and process.cmdline()[1:4] == ["-m", "embedded", "supervise"]:
                found.append(process)
    return found
