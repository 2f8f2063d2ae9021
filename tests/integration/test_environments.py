"""Every lock, installed as `make` and the Dockerfile do it: nothing in it contradicts what its packages ask for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.settings import PROJECT_ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

UV = Path(sys.executable).with_name("uv")
# What the embedded platform costs before it has started once, without pip and uv: docs/benchmarks.md.
MOST_BYTES = 720_000_000
MOST_PACKAGES = 181


def call(*command: str | Path) -> str:
    done = subprocess.run([*command], capture_output=True, text=True, check=False, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("lock", sorted(path.name for path in PROJECT_ROOT.glob("requirements*.txt")))
def test_a_lock_has_what_its_packages_ask_for(lock: str, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    call(UV, "venv", "--quiet", "--python", sys.executable, tmp_path)
    call(UV, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock)
    call(UV, "pip", "check", "--python", python)
    if lock == "requirements.txt":
        packages = re.findall(r"^\S+==", call(UV, "pip", "freeze", "--python", python), re.MULTILINE)
        files = (path.lstat() for path in tmp_path.rglob("*") if not path.is_dir())
        assert len(packages) <= MOST_PACKAGES
        assert sum(one.st_size for one in files) <= MOST_BYTES
