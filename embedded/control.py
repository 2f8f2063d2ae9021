"""Up and down of one checkout's platform."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import psutil

from embedded import run_folder
from embedded.environment import MARKER
from embedded.processes import end_leftovers, marked_processes, own_family
from embedded.settings import PROJECT_ROOT, VARIABLES, EmbeddedSettings
from embedded.supervisor import applied

POLL_SECONDS = 0.2


class PlatformError(RuntimeError):
    """The platform did not start; the message says why."""


def start(settings: EmbeddedSettings, owned: bool) -> tuple[EmbeddedSettings, bool]:
    """Bring the platform up, or use the one that is up or coming up; return its real settings, and whether it is ours.

    Args:
        settings: what was asked for.
        owned: the platform ends when this process does, and may move away from busy default ports.

    Raises:
        PlatformError: it did not become ready.
        SettingsError: the run folder cannot be used.
    """
    if (state := run_folder.read_state(settings.run_dir)) is not None:
        return applied(settings, state), False
    run_folder.prepare(settings.run_dir)
    log = settings.logs_dir / "supervisor.log"
    began = log.stat().st_size if log.exists() else 0
    supervisor, ours = _supervise(settings, owned), True
    while (state := run_folder.read_state(settings.run_dir)) is None:
        if supervisor.poll() is not None:
            if not run_folder.is_held(settings.run_dir):
                with log.open(encoding="utf-8", errors="replace") as written:
                    written.seek(began)
                    raise PlatformError(f"The platform did not start:\n{written.read().strip()}")
            if ours:
                print("Another command is bringing this platform up: waiting for it", flush=True)
            ours = False
        time.sleep(POLL_SECONDS)
    return applied(settings, state), ours


def _supervise(settings: EmbeddedSettings, owned: bool) -> subprocess.Popen[bytes]:
    arguments = ["--owner-pid", str(os.getpid()), "--move-ports"] if owned else []
    # The ports of a platform that died under us are asked for again, so that addresses stay as printed.
    ports = {VARIABLES[name]: str(getattr(settings, name)) for name in settings.explicit_ports}
    with (settings.logs_dir / "supervisor.log").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "embedded", "supervise", *arguments],
            cwd=PROJECT_ROOT,
            env={**os.environ, **ports, MARKER: str(settings.run_dir)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(settings: EmbeddedSettings) -> int:
    """End the platform and whatever a killed one left behind; return how many processes were ended."""
    ended = 0
    for process in _supervisors(settings):
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.wait(timeout=60)
            ended += 1
    return ended + end_leftovers(settings.run_dir, spare=own_family())


def _supervisors(settings: EmbeddedSettings) -> list[psutil.Process]:
    found = []
    for process in marked_processes(settings.run_dir):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:4] == ["-m", "embedded", "supervise"]:
                found.append(process)
    return found
