"""The Lambda task of Step Functions: what reaches the function, what comes back, and under which name it fails."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

from embedded.patches.checks import replaceable

_INVOKE = "arn:aws:states:::lambda:invoke"


def call_lambda_as_aws_does(engine: Any, service: Any) -> None:
    """Payloads, results and errors of Lambda tasks as AWS documents them (connect-lambda, concepts-error-handling)."""
    invoke = replaceable(engine, "_invoke_resource", ("resource", "input_data"))
    replaceable(engine, "_call_lambda", ("func_ref", "event"))
    resolve = replaceable(engine, "_resolve_lambda_function_ref", ("value", "optimized"))
    find = replaceable(service, "_get_func_record_for_ref", ("function_ref",))
    record = replaceable(service, "_execution_record_for_config", ("func", "config"))
    execute = replaceable(service, "_execute_function_with_config_scope", ("func", "event"))

    def call(reference: str, event: Any) -> tuple[Any, str]:
        """The answer, and the version that gave it."""
        function, config, name = find(reference)
        if not function or not config:
            raise engine._ExecutionError("Lambda.ResourceNotFoundException", f"Function not found: {name}")
        result = execute(record(function, config), event)
        body = result.get("body")
        if result.get("throttle"):
            raise engine._ExecutionError("Lambda.TooManyRequestsException", json.dumps(body))
        if result.get("error"):
            error = body.get("errorType") if isinstance(body, dict) else None
            raise engine._ExecutionError(error or "Lambda.Unknown", json.dumps(body, separators=(",", ":")))
        return _parsed(body) if isinstance(body, bytes) else body, str(config.get("Version", "$LATEST"))

    def invoke_resource(resource: str, input_data: Any) -> Any:
        if resource != _INVOKE:
            return invoke(resource, input_data)
        answer, version = call(resolve(input_data.get("FunctionName", ""), True), _event(input_data.get("Payload")))
        return {"ExecutedVersion": version, "Payload": answer, **_metadata(answer, version, engine.new_uuid())}

    engine._invoke_resource = invoke_resource
    engine._call_lambda = lambda reference, event: call(reference, event)[0]


def _event(payload: Any) -> Any:
    """A text that is JSON is the payload itself, as for the Invoke API; no payload is an empty object."""
    if payload is None:
        return {}
    return _parsed(payload) if isinstance(payload, str) else payload


def _parsed(text: str | bytes) -> Any:
    """The JSON of a text, or else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _metadata(answer: Any, version: str, request_id: str) -> dict[str, Any]:
    """What the optimised integration adds to a result: how the Invoke API answered."""
    headers = {
        "X-Amz-Executed-Version": version,
        "x-amzn-Remapped-Content-Length": "0",
        "Connection": "keep-alive",
        "x-amzn-RequestId": request_id,
        "Content-Length": str(len(json.dumps(answer, separators=(",", ":")))),
        "Date": formatdate(usegmt=True),
        "Content-Type": "application/json",
    }
    return {
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": 200,
        },
        "SdkResponseMetadata": {"RequestId": request_id},
        "StatusCode": 200,
    }
