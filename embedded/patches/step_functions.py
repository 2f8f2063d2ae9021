"""Step Functions in MiniStack: an end that is whole and lasts, and a Distributed Map set by its input."""

from __future__ import annotations

import time
from typing import Any

from embedded.patches.checks import replaceable, require


def keep_aborted_executions_aborted(engine: Any) -> None:
    """A task that fails after StopExecution does not turn ABORTED into FAILED; a stopped map starts nothing more.

    A FAILED execution has an error and a cause, and no output.
    """
    replaceable(engine, "_fail_execution", ("execution", "error", "cause"))
    run_sub_machine = replaceable(engine, "_run_sub_machine", ("states", "start_at", "input_data", "execution", "ctx"))
    require(hasattr(engine, "_map_runs") and hasattr(engine, "_executions"), "Step Functions keeps its state elsewhere")

    def fail_execution(execution: dict[str, Any], error: str | None, cause: str | None) -> None:
        if execution["status"] != "RUNNING":
            return
        ended = {"status": "FAILED", "error": error, "cause": cause, "stopDate": engine.now_iso()}
        execution |= {**ended, "output": None, "outputDetails": None}
        told = {"executionFailedEventDetails": {"error": error, "cause": cause}}
        engine._add_event(execution, "ExecutionFailed", told)
        engine._emit_execution_status_event(execution)

    def run_item(states: Any, start_at: str, input_data: Any, execution: dict[str, Any], ctx: dict[str, Any]) -> Any:
        map_run = engine._map_runs.get(execution.get("mapRunArn") or "")
        parent = engine._executions.get(map_run["executionArn"]) if map_run else None
        if parent is not None and parent["status"] != "RUNNING":
            raise engine._ExecutionError("States.Aborted", "The parent execution was stopped")
        return run_sub_machine(states, start_at, input_data, execution, ctx)

    engine._fail_execution = fail_execution
    engine._run_sub_machine = run_item


def describe_no_half_of_an_end(engine: Any) -> None:
    """DescribeExecution tells of an end when its output and time are there too; they are noted one after the other."""
    describe = replaceable(engine, "_describe_execution", ("data",))

    def describe_execution(data: dict[str, Any]) -> Any:
        execution = engine._executions.get(data.get("executionArn")) or {"status": "RUNNING"}
        while execution["status"] != "RUNNING" and execution["stopDate"] is None:
            time.sleep(0)  # lets the execution's thread go on
        return describe(data)

    engine._describe_execution = describe_execution


def honour_map_paths(engine: Any) -> None:
    """Resolve the `...Path` settings of a Distributed Map against its input before it runs."""
    run_map = replaceable(
        engine, "_run_distributed_map", ("state_def", "raw_input", "effective", "iterator", "execution", "ctx")
    )
    resolve = replaceable(engine, "_resolve_path_or_ctx", ("path", "data", "ctx"))
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
