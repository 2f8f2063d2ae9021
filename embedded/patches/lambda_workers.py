"""Lambda in MiniStack: errors by their class name, workers that end with it, and a queue for concurrency slots.

A worker is a process of MiniStack's; it runs `lambda_runtime._PYTHON_WORKER_SCRIPT`, which the patches edit.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

from embedded.patches.checks import replaceable, require

QUEUE_SECONDS = 120.0

_MARKER = "__lambda_error__"

_WORKER_ERROR = (
    '_real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": traceback.format_exc()}) + "\\n")'
)
_WORKER_ERROR_NAMED = (
    '_real_stdout.write(json.dumps({"status": "ok", "result": {"'
    + _MARKER
    + '": {"errorMessage": str(e), "errorType": type(e).__name__, '
    '"stackTrace": traceback.format_exc().splitlines()}}}) + "\\n")'
)

# Runs first in every worker. A worker busy in a handler does not read its stdin, so it would miss that MiniStack is
# gone. Linux tells by a pidfd; elsewhere the parent's id changes. (PR_SET_PDEATHSIG would end the worker with the
# *thread* that started it.)
_WORKER_PARENT_WATCH = """
def _end_with_parent(parent):
    import os, select, time
    try:
        waiter = select.poll()
        waiter.register(os.pidfd_open(parent), select.POLLIN)
        if os.getppid() == parent:
            waiter.poll()
    except (AttributeError, OSError):
        while os.getppid() == parent:
            time.sleep(1)
    os._exit(1)

import os as _os, threading as _threading
_threading.Thread(target=_end_with_parent, args=(_os.getppid(),), daemon=True).start()
"""


def name_lambda_errors(runtime: Any, service: Any) -> None:
    """Report a handler's exception by its class name and keep the worker warm."""
    require(
        runtime._PYTHON_WORKER_SCRIPT.count(_WORKER_ERROR) == 1, "the Lambda worker script reports errors differently"
    )
    runtime._PYTHON_WORKER_SCRIPT = runtime._PYTHON_WORKER_SCRIPT.replace(_WORKER_ERROR, _WORKER_ERROR_NAMED)
    execute = replaceable(service, "_execute_function_warm", ("func", "event", "request_id"))

    def execute_function_warm(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = execute(func, event, request_id)
        body = answer.get("body")
        if not isinstance(body, dict):
            return answer
        if set(body) == {_MARKER}:
            error = body[_MARKER]
            log = "\n".join(filter(None, [answer.get("log", ""), *error["stackTrace"]]))
            return {"body": error, "error": True, "log": log}
        if answer.get("error") and body.get("errorMessage") == "Worker process died":
            answer["body"] = {**body, "errorType": "Runtime.ExitError"}
        return answer

    service._execute_function_warm = execute_function_warm


def end_workers_with_parent(runtime: Any) -> None:
    """Prefix the worker script with a watch on MiniStack's process."""
    require(
        runtime._PYTHON_WORKER_SCRIPT.rstrip().endswith("run()"), "the Lambda worker script no longer ends in run()"
    )
    runtime._PYTHON_WORKER_SCRIPT = _WORKER_PARENT_WATCH + runtime._PYTHON_WORKER_SCRIPT


class _Waiting:
    """An invocation in the queue: what it asks for, and the slot it is handed."""

    def __init__(self, func: dict[str, Any], config: dict[str, Any]) -> None:
        self.func, self.config = func, config
        self.slot: str | None = None
        self.served = threading.Event()


def queue_invocations(service: Any, queue_seconds: float) -> None:
    """Wait up to `queue_seconds` for a concurrency slot instead of answering with a throttle at once.

    A freed slot is handed to the first in the queue that may have it. Waking all of them instead would cost more than
    the invocations themselves once hundreds wait.
    """
    acquire = replaceable(service, "_acquire_execution_slot", ("func", "config"))
    release = replaceable(service, "_release_execution_slot", ("key",))
    guard = threading.Lock()
    queue: deque[_Waiting] = deque()

    def acquire_execution_slot(func: dict[str, Any], config: dict[str, Any]) -> tuple[str | None, str | None]:
        with guard:
            slot, limit = acquire(func, config)
            if slot is not None:
                return slot, limit
            waiting = _Waiting(func, config)
            queue.append(waiting)
        waiting.served.wait(queue_seconds)
        with guard:
            if waiting.slot is None:
                queue.remove(waiting)
        return waiting.slot, limit if waiting.slot is None else None

    def release_execution_slot(key: str) -> None:
        with guard:
            release(key)
            for waiting in queue:
                # One held back by its own function's reserved concurrency does not hold up those behind it.
                waiting.slot, _ = acquire(waiting.func, waiting.config)
                if waiting.slot is not None:
                    queue.remove(waiting)
                    waiting.served.set()
                    break

    service._acquire_execution_slot = acquire_execution_slot
    service._release_execution_slot = release_execution_slot


def own_temporary_folder(state_dir: Path) -> Path:
    """Keep unpacked Lambda code under `state_dir` and clear what a killed run left there. Returns the folder."""
    folder = state_dir / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tempfile.tempdir = str(folder)
    return folder
