"""Starts Airflow's scheduler so that it looks for work when there is some, not by the clock alone.

    python -P embedded/airflow_scheduler.py --skip-serve-logs

By itself an idle scheduler looks every `scheduler_idle_sleep_time`: seldom is cheap, and makes a trigger wait. Here it
sleeps until another process has started a run in the SQLite database, or a task of a running one has come to another
state, and for that time at the most.

LocalExecutor forks each task from it, so what nearly all of them import is imported here, once.
"""

from __future__ import annotations

import math
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

# While there is work, the database changes all the time.
BETWEEN_LOOKS_S = 0.5
POLL_S = 0.1
# What must not wait for the clock; whatever else is written, signs of life above all, may. An index has each answer.
WAITING = """
    SELECT EXISTS (SELECT 1 FROM dag_run WHERE state = 'queued') OR EXISTS (SELECT 1 FROM asset_dag_run_queue)
"""
# That a task was begun asks for nothing.
TASKS = """
    SELECT task.id, CASE task.state WHEN 'running' THEN 'queued' ELSE task.state END
    FROM dag_run JOIN task_instance AS task ON task.dag_id = dag_run.dag_id AND task.run_id = dag_run.run_id
    WHERE dag_run.state = 'running'
"""


class DatabaseWatch:
    """Sleeps as long as a SQLite database of Airflow's doesn't change, or holds no new work."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._files = [database, database.with_name(f"{database.name}-wal")]
        self._seen = self._written()
        self._tasks: list[tuple[str, str | None]] = []  # id and state of those of running runs
        self._due = math.inf  # by time.monotonic()

    def _written(self) -> list[tuple[int, int] | None]:
        """Size in bytes and time of the last change in ns of each file."""
        return [(found.st_size, found.st_mtime_ns) if (found := _stat(file)) else None for file in self._files]

    def _work(self) -> bool:
        """Whether there is new work; what can't be read is left to the scheduler."""
        before = self._tasks
        try:
            with closing(sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True, timeout=0)) as connection:
                self._tasks = connection.execute(TASKS).fetchall()
                return self._tasks != before or bool(connection.execute(WAITING).fetchone()[0])
        except sqlite3.Error:
            return True

    def sleep(self, longest_s: float) -> None:
        """Return as soon as something was written and there is new work, but after BETWEEN_LOOKS_S at the soonest.

        What was written may be due "now", and SQLite's CURRENT_TIMESTAMP knows whole seconds only: with the next full
        second one more look is due.
        """
        until = min(time.monotonic() + longest_s, self._due)
        time.sleep(max(0.0, min(BETWEEN_LOOKS_S, until - time.monotonic())))
        changed = False
        while time.monotonic() < until:
            # One that is at it may be seen before its last byte: what changed is asked at the next poll too.
            before, self._seen = self._seen, self._written()
            asked, changed = changed, self._seen != before
            if (asked or changed) and self._work():
                self._due = time.monotonic() + 1 - time.time() % 1
                return
            time.sleep(POLL_S)
        if time.monotonic() >= self._due:
            self._due = math.inf


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def main() -> None:
    """Run `airflow scheduler` with this process's arguments, until SIGTERM or SIGINT."""
    # For the tasks.
    import airflow.providers.amazon.aws.operators.sagemaker
    import airflow.providers.standard.operators.hitl
    import airflow.sdk.definitions.decorators  # noqa: F401
    from airflow.__main__ import main as run_airflow
    from airflow.configuration import conf
    from airflow.jobs import scheduler_job_runner
    from sqlalchemy import make_url

    database = make_url(conf.get("database", "sql_alchemy_conn")).database
    # All it does with the module is to sleep between its looks.
    scheduler_job_runner.time = SimpleNamespace(sleep=DatabaseWatch(Path(str(database))).sleep)
    sys.argv[:1] = ["airflow", "scheduler"]
    run_airflow()


if __name__ == "__main__":
    main()
