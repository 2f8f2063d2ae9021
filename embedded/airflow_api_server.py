"""Starts Airflow's API server so that what a person does and what a task does never wait for each other.

    python -P embedded/airflow_api_server.py

Airflow 3.3 notes each action of a person (a trigger, a clearing) in its audit log on the event loop's own thread. In
SQLite one writes at a time: when that waits for another request whose commit waits for the event loop, the whole server
stands still until SQLite gives up after a minute. Here the note is taken in a thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

Note = Callable[..., Coroutine[Any, Any, None]]


def noting_in_a_thread(action_logging: Callable[..., Note]) -> Callable[..., Note]:
    """Let the dependencies that ``action_logging`` makes for FastAPI take their note in a thread."""
    from starlette.concurrency import run_in_threadpool

    @wraps(action_logging)
    def noting(event: str | None = None) -> Note:
        log_action = action_logging(event)

        @wraps(log_action)
        async def in_a_thread(**arguments: Any) -> None:
            await arguments["request"].body()  # kept by the request: after this there is nothing to await
            await run_in_threadpool(_to_the_end, log_action(**arguments))

        return in_a_thread

    return noting


def _to_the_end(note: Coroutine[Any, Any, None]) -> None:
    try:
        note.send(None)
    except StopIteration:
        return
    note.close()
    raise RuntimeError("Airflow's audit log awaits more than the request's body: adapt embedded/airflow_api_server.py")


def main() -> None:
    """Run `airflow api-server` with this process's arguments, until SIGTERM or SIGINT."""
    from airflow.__main__ import main as run_airflow
    from airflow.api_fastapi.logging import decorators

    # Before the routes are imported, which take it from there.
    decorators.action_logging = noting_in_a_thread(decorators.action_logging)
    sys.argv[:1] = ["airflow", "api-server"]
    run_airflow()


if __name__ == "__main__":
    main()
