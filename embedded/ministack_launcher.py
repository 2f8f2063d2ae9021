"""Starts MiniStack with the few behaviours of AWS that this project needs and MiniStack 1.5.33 lacks.

    python -m embedded.ministack_launcher

Settings come from MiniStack's own environment variables (GATEWAY_PORT, BIND_HOST, S3_PERSIST, S3_DATA_DIR,
PERSIST_STATE, STATE_DIR, LAMBDA_ACCOUNT_CONCURRENCY). BIND_HOST is 127.0.0.1 here unless it is set. What is
patched, each with a test in tests/contract/test_ministack_launcher.py:

* A Python exception in a Lambda keeps its class name as `errorType`, so that Retry and Catch match on it, and the warm
  worker stays alive. A worker that dies is `Runtime.ExitError`, as on AWS.
* Beyond LAMBDA_ACCOUNT_CONCURRENCY invocations queue, up to LAMBDA_QUEUE_SECONDS (default 120), instead of failing
  with a throttle that Step Functions here would call `Lambda.Unknown`.
* A Lambda worker ends when MiniStack does, also after kill -9 and in the middle of a call; its unpacked code lies under
  STATE_DIR and is cleared at the next start.
* A stopped execution stays ABORTED, and a stopped Distributed Map starts no further item.
* `MaxConcurrencyPath`, `ToleratedFailurePercentagePath` and `ToleratedFailureCountPath` of a Distributed Map are
  honoured.
* With S3_PERSIST the bodies of object versions are read from disk instead of being kept in memory as well, so a
  versioned bucket may hold more than the machine's memory.
* An alarm looks at the metric with its own dimensions, not at every metric of that name: one endpoint's 5XX errors do
  not ring the alarm of another.
* An alarm that treats missing data as not breaching is OK again once its window holds no data.
* `sagemaker_local` may send events as `aws.sagemaker`, which it stands for here; everybody else is refused, as on AWS.

The patches replace private functions, so another MiniStack version is refused: see `check_version`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from types import FunctionType
from typing import Any

TESTED_VERSION = "1.5.33"
QUEUE_SECONDS = 120.0

_SAGEMAKER_AGENT = "sagemaker_local"
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


class IncompatibleMiniStackError(RuntimeError):
    """The installed MiniStack is not the one these patches were written for."""


def check_version(installed: str | None = None) -> None:
    """Refuse a MiniStack other than TESTED_VERSION. Raises IncompatibleMiniStackError saying what to do."""
    installed = installed or metadata.version("ministack")
    if installed != TESTED_VERSION:
        raise IncompatibleMiniStackError(
            f"MiniStack {installed} is installed, but {Path(__file__).name} patches {TESTED_VERSION}. Either install "
            f"the locked version (pip install ministack=={TESTED_VERSION}), or set TESTED_VERSION = {installed!r} "
            "in this file, run tests/contract/test_ministack_launcher.py, and adapt each patch whose test then fails."
        )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise IncompatibleMiniStackError(
            f"MiniStack {metadata.version('ministack')} has changed: {what}. Compare the patch in "
            f"{Path(__file__).name} with MiniStack's source, adapt it, and run "
            "tests/contract/test_ministack_launcher.py."
        )


def _replaceable(module: Any, name: str, arguments: tuple[str, ...]) -> Callable[..., Any]:
    """The function `name` of `module`, after checking that it takes what the patch passes on."""
    function = getattr(module, name, None)
    code = getattr(function, "__code__", None)
    found = code.co_varnames[: code.co_argcount] if code else None
    _require(found == arguments, f"{module.__name__}.{name} takes {found}, expected {arguments}")
    assert callable(function)
    return function


def name_lambda_errors(runtime: Any, service: Any) -> None:
    """Report a handler's exception by its class name and keep the worker warm."""
    _require(
        runtime._PYTHON_WORKER_SCRIPT.count(_WORKER_ERROR) == 1, "the Lambda worker script reports errors differently"
    )
    runtime._PYTHON_WORKER_SCRIPT = runtime._PYTHON_WORKER_SCRIPT.replace(_WORKER_ERROR, _WORKER_ERROR_NAMED)
    execute = _replaceable(service, "_execute_function_warm", ("func", "event", "request_id"))

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
    _require(
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
    acquire = _replaceable(service, "_acquire_execution_slot", ("func", "config"))
    release = _replaceable(service, "_release_execution_slot", ("key",))
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


def keep_aborted_executions_aborted(engine: Any) -> None:
    """A task that fails after StopExecution does not turn ABORTED into FAILED; a stopped map starts nothing more."""
    fail = _replaceable(engine, "_fail_execution", ("execution", "error", "cause"))
    run_sub_machine = _replaceable(engine, "_run_sub_machine", ("states", "start_at", "input_data", "execution", "ctx"))
    _require(
        hasattr(engine, "_map_runs") and hasattr(engine, "_executions"), "Step Functions keeps its state elsewhere"
    )

    def fail_execution(execution: dict[str, Any], error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail(execution, error, cause)

    def run_item(states: Any, start_at: str, input_data: Any, execution: dict[str, Any], ctx: dict[str, Any]) -> Any:
        map_run = engine._map_runs.get(execution.get("mapRunArn") or "")
        parent = engine._executions.get(map_run["executionArn"]) if map_run else None
        if parent is not None and parent["status"] != "RUNNING":
            raise engine._ExecutionError("States.Aborted", "The parent execution was stopped")
        return run_sub_machine(states, start_at, input_data, execution, ctx)

    engine._fail_execution = fail_execution
    engine._run_sub_machine = run_item


def honour_map_paths(engine: Any) -> None:
    """Resolve the `...Path` settings of a Distributed Map against its input before it runs."""
    run_map = _replaceable(
        engine, "_run_distributed_map", ("state_def", "raw_input", "effective", "iterator", "execution", "ctx")
    )
    resolve = _replaceable(engine, "_resolve_path_or_ctx", ("path", "data", "ctx"))
    settings = ("MaxConcurrency", "ToleratedFailurePercentage", "ToleratedFailureCount")

    def run_distributed_map(
        state_def: dict[str, Any], raw_input: Any, effective: Any, iterator: Any, execution: Any, ctx: Any
    ) -> Any:
        resolved = dict(state_def)
        for setting in settings:
            path = resolved.pop(f"{setting}Path", None)
            if path is None:
                continue
            value = resolve(path, effective, ctx)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise engine._ExecutionError(
                    "States.Runtime", f"{setting}Path {path} must resolve to a number of 0 or more, got {value!r}"
                )
            resolved[setting] = value
        return run_map(resolved, raw_input, effective, iterator, execution, ctx)

    engine._run_distributed_map = run_distributed_map


def keep_versions_on_disk(storage: Any) -> None:
    """Leave the body out of an object version's entry in memory; MiniStack finds it on disk, as after a restart."""
    make_entry = _replaceable(storage, "_version_entry_from_record", ("obj", "version_id", "data"))
    _replaceable(storage, "_version_body", ("bucket", "bucket_name", "key", "v"))

    def version_entry_from_record(obj: dict[str, Any], version_id: str, data: bytes | None) -> Any:
        return make_entry(obj, version_id, None if storage.S3_PERSIST else data)

    storage._version_entry_from_record = version_entry_from_record


def tell_alarms_apart(cloudwatch: Any) -> None:
    """Evaluate an alarm over the metric with exactly its dimensions. MiniStack joins all metrics of the same name."""
    evaluate = _replaceable(cloudwatch, "_evaluate_alarm", ("alarm",))
    dimensions_of = _replaceable(cloudwatch, "_dims_from_list", ("dimensions",))
    key_of = _replaceable(cloudwatch, "_dims_key", ("dims",))
    assert isinstance(evaluate, FunctionType)
    code = evaluate.__code__
    _require("_metrics" in code.co_names, "CloudWatch's alarms find their metrics elsewhere")

    def evaluate_alarm(alarm: dict[str, Any]) -> None:
        dimensions = key_of(dimensions_of(alarm.get("Dimensions") or []))
        key = (alarm.get("Namespace"), alarm.get("MetricName"), dimensions)
        points = cloudwatch._metrics.get(key)
        # The same code, seeing no other metric. Swapping the module's own would race with other requests.
        FunctionType(code, {**vars(cloudwatch), "_metrics": {key: points} if points else {}})(alarm)

    cloudwatch._evaluate_alarm = evaluate_alarm


def let_alarms_recover(cloudwatch: Any) -> None:
    """Look at alarms again when they are described: one that treats missing data as fine is OK once no data is recent.

    MiniStack only looks when data comes, so that an alarm nobody sends good news to would ring for ever.
    """
    evaluate_all = _replaceable(cloudwatch, "_evaluate_all_alarms", ())
    describe = _replaceable(cloudwatch, "_describe_alarms", ("params", "cbor_data", "is_cbor", "is_json"))
    changes = ("alarm", "old_state", "new_state", "reason")
    record = _replaceable(cloudwatch, "_record_history", ("alarm_name", *changes[1:], "alarm_type", "reason_data"))
    act = _replaceable(cloudwatch, "_dispatch_alarm_actions", changes)
    tell_parents = _replaceable(cloudwatch, "_evaluate_parent_alarms", ("child", "seen"))
    dimensions_of = _replaceable(cloudwatch, "_dims_from_list", ("dimensions",))
    key_of = _replaceable(cloudwatch, "_dims_key", ("dims",))

    def is_silent(alarm: dict[str, Any]) -> bool:
        """Whether its window holds no data, and whatever rang it (data or SetAlarmState) is older than that."""
        since = time.time() - int(alarm.get("Period") or 60) * int(alarm.get("EvaluationPeriods") or 1)
        key = (alarm.get("Namespace"), alarm.get("MetricName"), key_of(dimensions_of(alarm.get("Dimensions") or [])))
        points = cloudwatch._metrics.get(key) or []
        return alarm.get("StateUpdatedTimestamp", 0) < since and all(point["Timestamp"] < since for point in points)

    def describe_alarms(params: Any, cbor_data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        evaluate_all()
        for alarm in list(cloudwatch._alarms.values()):
            if alarm["StateValue"] == "ALARM" and alarm.get("TreatMissingData") == "notBreaching" and is_silent(alarm):
                reason = "No data in the whole window, which the alarm treats as not breaching"
                alarm |= {"StateValue": "OK", "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
                record(alarm["AlarmName"], "ALARM", "OK", reason)
                act(alarm, "ALARM", "OK", reason)
                tell_parents(alarm)
        return describe(params, cbor_data, is_cbor, is_json)

    cloudwatch._describe_alarms = describe_alarms


def let_sagemaker_announce(eventbridge: Any) -> None:
    """Take events of the source `aws.sagemaker` from the service that says in its user agent that it is SageMaker."""
    handle = _replaceable(eventbridge, "handle_request", ("method", "path", "headers", "body", "query_params"))
    put_events = _replaceable(eventbridge, "_put_events", ("data", "allow_aws_source"))
    from_sagemaker: ContextVar[bool] = ContextVar("from_sagemaker", default=False)

    async def handle_request(method: str, path: str, headers: dict[str, str], body: bytes, query_params: Any) -> Any:
        mark = from_sagemaker.set(_SAGEMAKER_AGENT in headers.get("user-agent", ""))
        try:
            return await handle(method, path, headers, body, query_params)
        finally:
            from_sagemaker.reset(mark)

    def put(data: dict[str, Any], allow_aws_source: bool = False) -> Any:
        sources = {str(entry.get("Source")) for entry in data.get("Entries", [])}
        own = {source for source in sources if source.startswith("aws.")} <= {"aws.sagemaker"}
        return put_events(data, allow_aws_source or (own and from_sagemaker.get()))

    eventbridge.handle_request = handle_request
    eventbridge._put_events = put


def own_temporary_folder(state_dir: Path) -> Path:
    """Keep unpacked Lambda code under `state_dir` and clear what a killed run left there. Returns the folder."""
    folder = state_dir / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tempfile.tempdir = str(folder)
    return folder


def apply_patches() -> None:
    """Patch the imported MiniStack in this process. Raises IncompatibleMiniStackError when it is not TESTED_VERSION."""
    check_version()
    from ministack.core import lambda_runtime
    from ministack.services import cloudwatch, eventbridge, lambda_svc, s3, stepfunctions

    name_lambda_errors(lambda_runtime, lambda_svc)
    end_workers_with_parent(lambda_runtime)
    queue_invocations(lambda_svc, float(os.environ.get("LAMBDA_QUEUE_SECONDS", QUEUE_SECONDS)))
    keep_aborted_executions_aborted(stepfunctions)
    honour_map_paths(stepfunctions)
    keep_versions_on_disk(s3)
    tell_alarms_apart(cloudwatch)
    let_alarms_recover(cloudwatch)
    let_sagemaker_announce(eventbridge)


def main() -> None:
    """Run MiniStack in the foreground until SIGTERM or SIGINT."""
    os.environ.setdefault("BIND_HOST", "127.0.0.1")
    # MiniStack opens this one on every interface and at a fixed port, which two platforms on one machine cannot share.
    os.environ.setdefault("IOT_MTLS_ENABLED", "0")
    if state_dir := os.environ.get("STATE_DIR"):
        own_temporary_folder(Path(state_dir))
    apply_patches()
    from ministack.app import main as serve

    serve()


if __name__ == "__main__":
    main()
