"""Starts Airflow's scheduler so that it looks for work when its database has changed, not by the clock alone.

    python -P embedded/airflow_scheduler.py --skip-serve-logs

By itself an idle scheduler looks every `scheduler_idle_sleep_time`: seldom is cheap, and makes a trigger wait. Here it
sleeps until another process has written to the SQLite database, and for that time at the most.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

# While there is work, the database changes all the time.
BETWEEN_LOOKS_S = 0.5
POLL_S = 0.1


class DatabaseWatch:
    """Sleeps as long as nobody writes to a SQLite database."""

    def __init__(self, database: Path) -> None:
        self._files = [database, database.with_name(f"{database.name}-wal")]
        self._seen = self._written()

    def _written(self) -> list[tuple[int, int] | None]:
        """Size in bytes and time of the last change in ns of each file."""
        return [(found.st_size, found.st_mtime_ns) if (found := _stat(file)) else None for file in self._files]

    def sleep(self, longest_s: float) -> None:
        """Return after BETWEEN_LOOKS_S if something was written since the last return, else as soon as it is."""
        until = time.monotonic() + longest_s
        time.sleep(min(longest_s, BETWEEN_LOOKS_S))
        while (written := self._written()) == self._seen and time.monotonic() < until:
            time.sleep(POLL_S)
        self._seen = written


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def main() -> None:
    """Run `airflow scheduler` with this process's arguments, until SIGTERM or SIGINT."""
    from airflow.__main__ import main as airflow
    from airflow.configuration import conf
    from airflow.jobs import scheduler_job_runner
    from sqlalchemy import make_url

    database = make_url(conf.get("database", "sql_alchemy_conn")).database
    # All it does with the module is to sleep between its looks.
    scheduler_job_runner.time = SimpleNamespace(sleep=DatabaseWatch(Path(str(database))).sleep)
    sys.argv[:1] = ["airflow", "scheduler"]
    airflow()


if __name__ == "__main__":
    main()
