"""Step Functions in MiniStack: a stop that lasts, and a Distributed Map whose settings come from its input."""

from __future__ import annotations

from typing import Any

from embedded.patches.checks import replaceable, require


def keep_aborted_executions_aborted(engine: Any) -> None:
    """A task that fails after StopExecution does not turn ABORTED into FAILED; a stopped map starts nothing more."""
    fail = replaceable(engine, "_fail_execution", ("execution", "error", "cause"))
    run_sub_machine = replaceable(engine, "_run_sub_machine", ("states", "start_at", "input_data", "execution", "ctx"))
    require(hasattr(engine, "_map_runs") and hasattr(engine, "_executions"), "Step Functions keeps its state elsewhere")

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
