"""Which versions of Python are on this machine, for functions that ask for one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

RUNTIMES = tuple(f"python3.{minor}" for minor in range(10, 16))  # awslambdaric's
_RUNTIME = re.compile(r"python(\d+\.\d+)")


class Python(NamedTuple):
    """An interpreter outside any virtual environment."""

    executable: Path
    prefix: Path


@cache
def find(runtime: str) -> Python | None:
    """The interpreter of a Lambda runtime such as `python3.12`, or None where this machine has none.

    Looked for: the Python that runs this, the PATH, pyenv's versions, uv's.
    """
    if not _RUNTIME.fullmatch(runtime):
        return None
    for candidate in _candidates(runtime):
        if (found := _examine(candidate, runtime.removeprefix("python"))) is not None:
            return found
    return None


def here() -> list[str]:
    """The runtimes that this machine has a Python for."""
    return [runtime for runtime in RUNTIMES if find(runtime)]


_QUESTION = """
import ssl, sys
print("%d.%d" % sys.version_info[:2], sys._base_executable, sys.base_prefix, sep="\\n")
"""


def _candidates(runtime: str) -> Iterator[Path]:
    if runtime == f"python{sys.version_info.major}.{sys.version_info.minor}":
        yield Path(getattr(sys, "_base_executable", sys.executable))
    if named := shutil.which(runtime):
        yield Path(named)
    home = os.environ.get("HOME")
    pyenv = os.environ.get("PYENV_ROOT") or (home and f"{home}/.pyenv")
    if pyenv:
        yield from _below(pyenv, f"versions/{runtime.removeprefix('python')}.*/bin/{runtime}")
    if home:
        yield from _below(home, f".local/share/uv/python/c{runtime.replace('n', 'n-', 1)}.*/bin/{runtime}")


def _below(folder: str, pattern: str) -> list[Path]:
    """What lies below a folder; nothing below one that may not be looked into, as another user's is."""
    try:
        return sorted(Path(folder).glob(pattern))
    except OSError:
        return []


def _examine(candidate: Path, version: str) -> Python | None:
    """Run it: a file of that name may be a shim for a version that is not installed, or a virtual environment's."""
    try:
        done = subprocess.run(
            [candidate, "-I", "-S", "-c", _QUESTION], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found, executable, prefix = done.stdout.splitlines()
    return Python(Path(executable).resolve(), Path(prefix).resolve()) if found == version else None
