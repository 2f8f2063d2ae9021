"""Lambda in MiniStack: Python functions under Amazon's own runtime client, and a queue for concurrency slots."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedded.environment import MARKER
from embedded.functions import pythons
from embedded.functions.code import Unpacked, lambda_packages
from embedded.functions.execution import Environment, Invocation, Platform
from embedded.patches.checks import replaceable, require
from sagemaker_local.box import Box

QUEUE_SECONDS = 120.0

# Of MiniStack's own environment, what a function is to have as well: where this platform is.
_PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
              "NO_PROXY", "no_proxy", MARKER)  # fmt: skip


def run_functions_as_lambda(
    runtime: Any, service: Any, folder: Path, box: Box | None = None, reach: Callable[[list[str]], None] | None = None
) -> None:
    """Run Python functions in `Environment`s instead of under MiniStack's worker script.

    Args:
        folder: for unpacked code; what is in it is removed.
        box: what they run in, if anything.
        reach: called with the endpoints that a function's own variables name, before it starts in a box.
    """
    for name in ("acquire_worker", "release_worker", "kill_workers", "execution_credentials"):
        require(hasattr(runtime, name), f"its pool of Lambda workers has no {name}")
    execute = replaceable(service, "_execute_function_warm", ("func", "event", "request_id"))
    worker_class = replaceable(runtime, "_worker_class_for", ("config",))
    platform = _platform(runtime, service, folder, box, reach)

    def worker_class_for(config: dict[str, Any]) -> Callable[..., Any]:
        if not _is_python(config):
            return worker_class(config)
        return lambda name, config, code_zip: Environment(platform, config, code_zip)

    def execute_function_warm(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
        config = func.get("config") or func
        if not _is_python(config) or not func.get("code_zip"):
            return execute(func, event, request_id)
        service._ensure_reaper_thread()
        environment, _ = service.acquire_worker(
            config["FunctionName"], config, func["code_zip"], qualifier=config.get("Version", "$LATEST")
        )
        try:
            answer = environment.invoke(
                Invocation(
                    json.dumps(event).encode(),
                    request_id,
                    config["FunctionArn"],
                    _trace_id(service._xray_trace_id_for_invocation(config), service._invoke_depth.get()),
                    service._durable_env_overlay(),
                )
            )
        finally:
            service.release_worker(environment)
        body = answer.payload if answer.raw else json.loads(answer.payload)
        result = {"body": body, "log": "\n".join(answer.log), "log_source": (environment.log_stream, answer.log)}
        return result | ({"error": True} if answer.failed else {})

    service._execute_function_warm = execute_function_warm
    runtime._worker_class_for = worker_class_for


def _platform(
    runtime: Any, service: Any, folder: Path, box: Box | None, reach: Callable[[list[str]], None] | None
) -> Platform:
    shutil.rmtree(folder, ignore_errors=True)
    packages = folder / "runtime"
    linked = lambda_packages(packages)

    def variables(config: dict[str, Any]) -> dict[str, str]:
        found = _variables(runtime, config)
        if reach is not None:
            reach([value for name, value in found.items() if name.startswith("AWS_ENDPOINT_URL")])
        return found

    return Platform(
        packages=packages,
        linked=linked,
        unpacked=Unpacked(folder / "unpacked"),
        python=pythons.find,
        layers=lambda config: [zip_ for one in config.get("Layers") or [] if (zip_ := service._resolve_layer_zip(one))],
        variables=variables,
        box=box,
    )


def log_by_environment(service: Any) -> None:
    """Write what an environment logs into a stream of its own, as it is; MiniStack makes one for each invocation."""
    emit_logs = replaceable(service, "_emit_lambda_logs", ("func", "request_id", "log_text", "error", "duration_ms"))

    def emit_lambda_logs(
        func: dict[str, Any], request_id: str, log_text: str, error: bool, duration_ms: int, *, log_source: Any = None
    ) -> None:
        if not isinstance(log_source, tuple):
            emit_logs(func, request_id, log_text, error, duration_ms, log_source=log_source)
            return
        from ministack.services import cloudwatch_logs

        config = func.get("config") or func
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        _write_log(cloudwatch_logs, group, *log_source)

    service._emit_lambda_logs = emit_lambda_logs


def count_calls_by_trace(service: Any) -> None:
    """Take how many functions called one another before a request from the trace header, where Lambda keeps it."""
    depth_of = replaceable(service, "_inbound_invoke_depth", ("headers",))

    def inbound_depth(headers: dict[str, str]) -> int:
        _, _, lineage = headers.get("x-amzn-trace-id", "").partition(";Lineage=")
        count = lineage.split(";")[0].rpartition(":")[2]
        return int(count) if count.isascii() and count.isdigit() else depth_of(headers)

    service._inbound_invoke_depth = inbound_depth


def refuse_absent_pythons(service: Any, provisioners: Any) -> None:
    """Refuse a function in a version of Python that this machine does not have, when it is made or changed."""
    create = replaceable(service, "_create_function", ("data",))
    update = replaceable(service, "_update_config", ("name", "data"))
    handler = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    provision = handler["create"]

    def create_function(data: dict[str, Any]) -> Any:
        return _refusal(service, data) or create(data)

    def update_config(name: str, data: dict[str, Any]) -> Any:
        return _refusal(service, data) or update(name, data)

    def provision_function(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        if (absent := _absent(props)) is not None:
            raise ValueError(absent)
        return provision(logical_id, props, stack_name)

    service._create_function = create_function
    service._update_config = update_config
    provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"] = handler | {"create": provision_function}


def _is_python(config: dict[str, Any]) -> bool:
    return str(config.get("Runtime", "")).startswith("python")


def _absent(config: dict[str, Any]) -> str | None:
    runtime = str(config.get("Runtime") or "")
    if not _is_python(config) or pythons.find(runtime):
        return None
    return (
        f"{runtime} is not installed on this machine, where functions run as processes. Install that version of "
        f"Python (on the PATH, or by pyenv or uv), or ask for one that is here: {', '.join(pythons.here())}."
    )


def _refusal(service: Any, data: dict[str, Any]) -> Any:
    absent = _absent(data)
    return absent and service.error_response_json("InvalidParameterValueException", absent, 400)


def _trace_id(trace: str | None, depth: int) -> str:
    """As Lambda gives it to every invocation, with how many functions called one another; the SDKs pass it on."""
    if trace is None:
        trace = f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=0"
    return f"{trace.partition(';Lineage=')[0]};Lineage=1:{secrets.token_hex(4)}:{depth}"


def _variables(runtime: Any, config: dict[str, Any]) -> dict[str, str]:
    """The environment variables of a function: its own, Lambda's reserved ones, and where this platform is."""
    _, region = runtime._account_region_from_function_config(config)
    logging = config.get("LoggingConfig") or {}
    name = config["FunctionName"]
    passed_on = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        runtime.HOST_PREFIX_ENV: "true",
        **passed_on,
        **(config.get("Environment") or {}).get("Variables", {}),
        **runtime.execution_credentials(config),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{config['Runtime']}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if _is_snapshot(config) else "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": logging.get("LogGroup") or f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_FORMAT": logging.get("LogFormat", "Text"),
        "AWS_LAMBDA_LOG_LEVEL": logging.get("ApplicationLogLevel", ""),
        "_HANDLER": config.get("Handler", ""),
    }


def _is_snapshot(config: dict[str, Any]) -> bool:
    return (config.get("SnapStart") or {}).get("OptimizationStatus") == "On"


def _write_log(logs: Any, group_name: str, stream_name: str, lines: list[str]) -> None:
    """Append an invocation's lines to its environment's log stream, as CloudWatch Logs gets them from Lambda."""
    now = int(time.time() * 1000)
    group = logs._log_groups.get(group_name)
    if group is None:
        logs._create_log_group({"logGroupName": group_name})
        group = logs._log_groups[group_name]
    if stream_name not in group["streams"]:
        logs._create_log_stream({"logGroupName": group_name, "logStreamName": stream_name})
    events = [{"timestamp": now, "message": line, "ingestionTime": now} for line in lines]
    logs._append_log_events(group["streams"][stream_name], events)
    logs._fanout_to_subscription_filters(group_name, stream_name, events)


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
