"""A platform of a test's own: its own run folder and ports, as a second checkout would have."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedded.processes import marked_processes
from embedded.settings import PROJECT_ROOT, VARIABLES, free_port


@dataclass
class Checkout:
    """The embedded platform as a user starts it: by its command, with settings from the environment."""

    run_dir: Path
    environment: dict[str, str]

    def start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "embedded", command],
            cwd=PROJECT_ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, command: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        process = self.start(command)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, None)

    def running(self) -> list[str]:
        return [" ".join(process.cmdline()[:4]) for process in marked_processes(self.run_dir)]


def make_checkout(tmp_path_factory: pytest.TempPathFactory, **overrides: str) -> Checkout:
    """A run folder and ports that nobody else uses; whoever makes it ends what it leaves."""
    run_dir = tmp_path_factory.mktemp("checkout") / "run"
    ports = {VARIABLES[name]: str(free_port()) for name in VARIABLES if name.endswith("_port")}
    environment = {**os.environ, **ports, "SCONES_RUN_DIR": str(run_dir), **overrides}
    environment.pop("AIRFLOW_HOME", None)
    return Checkout(run_dir, environment)
