"""The run folder: whether it can be used, who runs in it and what they say of themselves, its secrets and databases."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedded.env_file import new_secret
from embedded.settings import SettingsError
from embedded.whole_file import replace_text

STATE_FILE = "state.json"
LOCK_FILE = "lock"


class AlreadyRunningError(RuntimeError):
    """Another supervisor holds this run folder."""


def prepare(run_dir: Path) -> None:
    """Make the folder and see that it can be written.

    Raises:
        SettingsError: it cannot; the message says why and what to do.
    """
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_dir) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise SettingsError(
            f"The run folder {run_dir} cannot be used ({error.strerror}: {error.filename or run_dir}): mend that, or"
            " set SCONES_RUN_DIR to another folder"
        ) from error


@contextlib.contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Be the one supervisor of this folder. The kernel lets go of it when the process ends, however it ends.

    Raises:
        AlreadyRunningError: another one is.
    """
    with (run_dir / LOCK_FILE).open("a") as handle:
        for attempt in range(20):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                # Those who only look (`is_held`) hold it for an instant.
                if attempt == 19:
                    raise AlreadyRunningError(f"Another supervisor holds {run_dir}: `make down` ends it") from error
                time.sleep(0.05)
        yield


def is_held(run_dir: Path) -> bool:
    """Whether a supervisor runs: neither a reused process id nor a changed clock can pretend so."""
    with contextlib.suppress(OSError), (run_dir / LOCK_FILE).open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_state(run_dir: Path, state: Mapping[str, Any]) -> None:
    """Say what runs (once all is ready), or why nothing does any more: ``{"ended": reason}``."""
    replace_text(run_dir / STATE_FILE, json.dumps(state, indent=2) + "\n")


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """Return what the running supervisor wrote once all was ready, or None where none runs."""
    state = _last_state(run_dir)
    return state if "processes" in state and is_held(run_dir) else None


def ended_because(run_dir: Path) -> str | None:
    """Why the last platform was ended in order; None where one runs, or was killed, or none ever ran."""
    return None if is_held(run_dir) else _last_state(run_dir).get("ended")


def _last_state(run_dir: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((run_dir / STATE_FILE).read_text())
        return state if isinstance(state, dict) else {}
    return {}


def secret(run_dir: Path, name: str, size: int = 64) -> str:
    """Return this checkout's secret of ``size`` random bytes, made at first use and readable by its owner only.

    Raises:
        SettingsError: the file with the secrets is damaged.
    """
    path = run_dir / "secrets.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        known: dict[str, str] = dict(json.loads(path.read_text())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"{path} is damaged: put back a copy of it, or move it away; new secrets log everybody out, and what was"
            " encrypted with the old ones (Airflow connections and variables made in the UI) cannot be read any more"
        ) from error
    if name not in known:
        known[name] = new_secret(size)
        replace_text(path, json.dumps(known), mode=0o600)
    return known[name]


def put_damaged_aside(database: Path) -> Path | None:
    """Move a SQLite file that cannot be read out of the way, with its journal; return where it is now, None if sound.

    A locked one is not damaged, and waited for.
    """
    if not database.exists() or _is_sound(database):
        return None
    aside = database.with_name(f"{database.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    for suffix in ("-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(aside.with_name(aside.name + suffix))
    return database.rename(aside)


def _is_sound(database: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:
        # The primary code is the lowest byte: SQLITE_CORRUPT_VTAB and its like are SQLITE_CORRUPT.
        return (error.sqlite_errorcode & 0xFF) not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
