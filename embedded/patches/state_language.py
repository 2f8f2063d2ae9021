"""The Amazon States Language where MiniStack's interpreter is more forgiving than AWS, or forgets.

The rules are those of docs.aws.amazon.com/step-functions/latest/dg (input and output, error names, quotas) and of
states-language.net; differences that stay are in docs/parity.md.
"""

from __future__ import annotations

import contextvars
import heapq
import json
import logging
import threading
import time
from typing import Any

from embedded.patches.checks import replaceable

PAYLOAD_LIMIT = 262_144  # bytes of UTF-8

log = logging.getLogger(__name__)
_UNCATCHABLE = "States.Runtime"


def refuse_paths_to_nowhere(engine: Any) -> None:
    """A path that finds nothing fails the execution with States.Runtime; MiniStack goes on with null."""
    resolve = replaceable(engine, "_resolve_path", ("path", "data"))
    parse = replaceable(engine, "_parse_jsonpath_tokens", ("path",))
    resolve_any = replaceable(engine, "_resolve_path_or_ctx", ("path", "data", "ctx"))
    evaluate = replaceable(engine, "_evaluate_rule", ("rule", "data", "ctx"))
    run_items = replaceable(engine, "_run_map_items", ("state_def", "raw_input", "execution", "ctx"))

    def resolve_path(path: str, data: Any) -> Any:
        found = resolve(path, data)
        if found is None and path.startswith("$") and path != "$":
            tokens = parse(path)
            if tokens is None:
                raise engine._ExecutionError(_UNCATCHABLE, f"Invalid path '{path}': MiniStack does not know its form")
            if not _is_there(tokens, data):
                raise engine._ExecutionError(_UNCATCHABLE, f"Invalid path '{path}': no such property in the input")
        return found

    def resolve_ctx_path(path: str, ctx: dict[str, Any]) -> Any:
        return resolve_path(path[1:], _context(engine, ctx))

    def evaluate_rule(rule: dict[str, Any], data: Any, ctx: Any = None) -> bool:
        if "IsPresent" not in rule or "Variable" not in rule:
            return bool(evaluate(rule, data, ctx))
        try:
            engine._resolve_path_or_ctx(rule["Variable"], data, ctx)
        except engine._ExecutionError:
            return rule["IsPresent"] is False
        return rule["IsPresent"] is True

    def run_map_items(state_def: dict[str, Any], raw_input: Any, execution: Any, ctx: Any) -> Any:
        if engine._state_query_language(state_def, ctx) != "JSONata" and "ItemReader" not in state_def:
            effective = engine._apply_input_path(state_def, raw_input, ctx)
            path = state_def.get("ItemsPath", "$")
            if not isinstance(resolve_any(path, effective, ctx), list):
                raise engine._ExecutionError(_UNCATCHABLE, f"Reference path '{path}' must point to array.")
        return run_items(state_def, raw_input, execution, ctx)

    engine._resolve_path = resolve_path
    engine._resolve_ctx_path = resolve_ctx_path
    engine._evaluate_rule = evaluate_rule
    engine._run_map_items = run_map_items


def _is_there(tokens: list[tuple[str, Any]], data: Any) -> bool:
    """Whether a path without wildcards leads to something, be it null. (One with them may find nothing.)"""
    for kind, value in tokens:
        if kind == "wildcard":
            return True
        if not (isinstance(data, dict) and value in data if kind == "field" else _has_item(data, value)):
            return False
        data = data[value]
    return True


def _has_item(data: Any, index: int) -> bool:
    return isinstance(data, list) and index < len(data)


def _context(engine: Any, ctx: dict[str, Any]) -> dict[str, Any]:
    """The context object with what MiniStack leaves out of it."""
    machine = engine._state_machines.get((ctx.get("StateMachine") or {}).get("Id")) or {}
    return {**ctx, "Execution": {"RoleArn": machine.get("roleArn"), "RedriveCount": 0, **(ctx.get("Execution") or {})}}


def name_errors_as_aws_does(engine: Any) -> None:
    """States.Runtime is never caught, a wildcard does not catch States.DataLimitExceeded, Fail may name no error."""
    matches = replaceable(engine, "_error_matches", ("error_equals", "error"))
    field = replaceable(engine, "_fail_state_field", ("state_def", "field", "default", "raw_input", "ctx"))

    def error_matches(error_equals: list[str], error: str | None) -> bool:
        if error == _UNCATCHABLE:
            return False
        if error == "States.DataLimitExceeded":
            return error in error_equals
        return bool(matches(error_equals, error))

    engine._error_matches = error_matches
    engine._fail_state_field = lambda state, name, default, data, ctx: field(state, name, None, data, ctx)


def limit_payloads(engine: Any) -> None:
    """A result or a state's output of more than 262,144 bytes fails with States.DataLimitExceeded."""
    add_event = replaceable(engine, "_add_event", ("execution", "event_type", "details"))

    def add_limited_event(execution: dict[str, Any], event_type: str, details: Any = None) -> Any:
        if event_type == "TaskSucceeded":
            told = details["taskSucceededEventDetails"]
            _check(engine, f"task '{told['resource'].rpartition(':')[2]}'", told["output"])
        elif event_type.endswith("StateExited"):
            told = details["stateExitedEventDetails"]
            _check(engine, f"state '{told['name']}'", told["output"])
        return add_event(execution, event_type, details)

    engine._add_event = add_limited_event


def _check(engine: Any, whose: str, text: str) -> None:
    # Escaped and with blanks, the text is longer than what AWS counts: most need no second look.
    if len(text) <= PAYLOAD_LIMIT:
        return
    counted = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    if len(counted.encode("utf-8", "surrogatepass")) > PAYLOAD_LIMIT:
        raise engine._ExecutionError(
            "States.DataLimitExceeded",
            f"The {whose} returned a result with a size exceeding the maximum number of bytes service limit.",
        )


def time_out_executions(engine: Any) -> None:
    """Honour the TimeoutSeconds of a state machine: the execution ends TIMED_OUT."""
    run = replaceable(engine, "_run_execution", ("exec_arn",))
    clock = _Clock()

    def expire(exec_arn: str) -> None:
        execution = engine._executions.get(exec_arn)
        if execution is None or execution["status"] != "RUNNING":
            return
        execution |= {"status": "TIMED_OUT", "stopDate": engine.now_iso(), "outputDetails": None}
        engine._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
        engine._emit_execution_status_event(execution)

    def run_execution(exec_arn: str) -> None:
        machine = engine._state_machines.get((engine._executions.get(exec_arn) or {}).get("stateMachineArn"))
        try:
            limit = json.loads(machine["definition"]).get("TimeoutSeconds") if machine else None
        except (ValueError, AttributeError):
            limit = None
        if isinstance(limit, int | float):
            context = contextvars.copy_context()  # of the caller's account and region
            clock.call_in(limit, lambda: context.run(expire, exec_arn))
        run(exec_arn)

    engine._run_execution = run_execution


class _Clock:
    """Calls functions at their times in one thread: a timer for each execution would be a thread for each."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Any]] = []
        self._changed = threading.Condition()
        self._count = 0
        threading.Thread(target=self._run, name="execution-timeouts", daemon=True).start()

    def call_in(self, seconds: float, function: Any) -> None:
        with self._changed:
            self._count += 1
            heapq.heappush(self._due, (time.monotonic() + seconds, self._count, function))
            if self._due[0][1] == self._count:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                function = heapq.heappop(self._due)[2]
            try:
                function()
            except Exception:  # one that cannot be ended must not keep the others from it
                log.exception("an execution could not be ended in time")
