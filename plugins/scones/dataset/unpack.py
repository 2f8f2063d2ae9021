"""Unpack a CIFAR-100 archive, which may be hostile, in a process of its own: `scones.dataset.tar` does the reading."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scones.dataset.errors import ArchiveNotFoundError, BadInputError, CorruptArchiveError, UnsafeArchiveError
from scones.dataset.tar import ADVICE, MAX_UNPACKED_BYTES, MEMBERS

# An honest archive takes two seconds.
CPU_SECONDS = 60
_WALL_SECONDS = 900
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from scones.dataset.tar import main
sys.exit(main(*sys.argv[2:]))
"""


def unpack(path: Path, limit: int = MAX_UNPACKED_BYTES, cpu_seconds: int = CPU_SECONDS) -> dict[str, bytes]:
    """The members of the archive at ``path``, by name, read in a process of its own.

    Raises:
        ArchiveNotFoundError: there is no readable file.
        UnsafeArchiveError: it holds what no honest archive does, or takes too much time or memory.
        CorruptArchiveError: it is damaged, or no tar.gz.
    """
    if not os.access(path, os.R_OK):
        raise ArchiveNotFoundError(
            f"There is no readable archive at {path}. Set CIFAR100_ARCHIVE to a file or URL that exists."
        )
    with tempfile.TemporaryDirectory(prefix="scones-unpack-") as folder:
        arguments = [str(path.absolute()), folder, str(limit), str(cpu_seconds)]
        try:
            done = subprocess.run(  # noqa: S603 - a file of ours, by this very interpreter
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(Path(__file__).parents[2]), *arguments],
                env={},
                capture_output=True,
                timeout=_WALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnsafeArchiveError(f"Reading the archive took more than {_WALL_SECONDS} s. {ADVICE}") from error
        if done.returncode:
            raise _refused(done, cpu_seconds)
        return {name: (Path(folder) / name).read_bytes() for name in MEMBERS if (Path(folder) / name).exists()}


def _refused(done: subprocess.CompletedProcess[bytes], cpu_seconds: int) -> BadInputError:
    if done.returncode < 0:
        return UnsafeArchiveError(
            f"Reading the archive was ended by signal {-done.returncode}: it took more than {cpu_seconds} s of "
            f"processor time, or memory that no CIFAR-100 takes. {ADVICE}"
        )
    kind, _, message = done.stdout.decode().partition("\n")
    if message:
        return {"UnsafeArchiveError": UnsafeArchiveError}.get(kind, CorruptArchiveError)(message)
    said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return CorruptArchiveError(f"The archive cannot be read: {said:.200}. {ADVICE}")
