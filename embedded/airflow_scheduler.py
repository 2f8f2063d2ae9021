"""Starts Airflow's scheduler so that it looks for work when there is some, not by the clock alone.

    python -P embedded/airflow_scheduler.py --skip-serve-logs

By itself an idle scheduler looks every `scheduler_idle_sleep_time`: seldom is cheap, and makes a trigger wait. Here it
sleeps until another process has started a run in the SQLite database, or a task of a running one has come to another
state, and for that time at the most.

LocalExecutor forks each task from it, so what nearly all of them import is imported here, once. A task that goes on
after a deferral is handed to it only once the process that deferred it is known to have ended.
"""

from __future__ import annotations

import math
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.executors.local_executor import LocalExecutor

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
    """Sleeps as long as a SQLite database of Airflow's doesn't change, or holds no new work.

    Args:
        database: the database's file.
        called: whether there is work that no database tells of.
    """

    def __init__(self, database: Path, called: Callable[[], bool] = lambda: False) -> None:
        self._database, self._called = database, called
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
            if self._called() or ((asked or changed) and self._work()):
                self._due = time.monotonic() + 1 - time.time() % 1
                return
            time.sleep(POLL_S)
        if time.monotonic() >= self._due:
            self._due = math.inf


class Handover:
    """Lets LocalExecutor start a task that goes on after a deferral only when the process that deferred it has ended.

    A worker tells of an end by the task's key, which both processes share. Airflow 3.3 starts what is queued before it
    listens: it takes the end of the first process for the end of the second, and fails the task (apache/airflow#72716).

    Args:
        executor: the class, whose `trigger_tasks` and `change_state` are wrapped.
    """

    def __init__(self, executor: type[LocalExecutor]) -> None:
        self._at_work: set[Any] = set()
        self._waiting: LocalExecutor | None = None
        start, note = executor.trigger_tasks, executor.change_state

        def trigger_tasks(one: LocalExecutor, open_slots: int) -> None:
            one.sync()
            # Of one that is queued Airflow knows that an end it hears of is an earlier one's. An end that nobody tells
            # of (a killed worker) is waited for some ten seconds.
            told = self._at_work | one.event_buffer.keys()
            shared = one.queued_tasks.keys() & told
            held = {key: one.queued_tasks.pop(key) for key in shared if one.attempts[key].can_try_again()}
            queued = set(one.queued_tasks)
            start(one, open_slots)
            self._at_work |= queued - one.queued_tasks.keys()
            one.queued_tasks.update(held)
            self._waiting = one if held else None

        def change_state(one: LocalExecutor, key: Any, *arguments: Any, **named: Any) -> None:
            self._at_work.discard(key)
            note(one, key, *arguments, **named)

        executor.trigger_tasks, executor.change_state = trigger_tasks, change_state

    def ready(self) -> bool:
        """Whether a process has ended, while a task waits for that."""
        return self._waiting is not None and not self._waiting.result_queue.empty()


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
    from airflow.executors.local_executor import LocalExecutor
    from airflow.jobs import scheduler_job_runner
    from sqlalchemy import make_url

    database = make_url(conf.get("database", "sql_alchemy_conn")).database
    # All it does with the module is to sleep between its looks.
    watch = DatabaseWatch(Path(str(database)), Handover(LocalExecutor).ready)
    scheduler_job_runner.time = SimpleNamespace(sleep=watch.sleep)
    sys.argv[:1] = ["airflow", "scheduler"]
    run_airflow()


if __name__ == "__main__":
    main()
