"""SageMaker Runtime's InvokeEndpoint: plain ASGI, because every microsecond here is in every answer."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from sagemaker_local.clients import account_id
from sagemaker_local.serving.capture import CaptureSettings, Invocation, record
from sagemaker_local.serving.controller import Endpoints
from sagemaker_local.serving.ids import fast_uuid4
from sagemaker_local.serving.invocation import Call
from sagemaker_local.serving.runtime_errors import RuntimeServiceError, ValidationError
from sagemaker_local.serving.settings import MAX_PAYLOAD_BYTES

LOG = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SM = b"x-amzn-sagemaker-"
CUSTOM_ATTRIBUTES, TARGET_VARIANT, INFERENCE_ID = (
    _SM + b"custom-attributes",
    _SM + b"target-variant",
    _SM + b"inference-id",
)
_FORWARDED = (b"content-type", b"accept", CUSTOM_ATTRIBUTES, INFERENCE_ID)
_REFUSED = {
    _SM + b"target-model": "TargetModel: the endpoint is not a multi-model endpoint.",
    _SM + b"target-container-hostname": "TargetContainerHostname: the endpoint is not a multi-container endpoint.",
    _SM + b"enable-explanations": "EnableExplanations: the endpoint has no explainer.",
    _SM + b"inference-component": "InferenceComponentName: the endpoint has no inference components.",
    _SM + b"session-id": "SessionId: the endpoint's container has no stateful sessions.",
}
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_INFERENCE_ID = re.compile(r"\S[ -~]*")
_LARGE = 256 * 1024  # records of larger bodies are made in a thread: base64 of megabytes would hold up other callers


class InvokeEndpoint:
    """Sends the body to a model server of the variant in charge; sampled into the data capture (`/invocations`)."""

    def __init__(self, endpoints: Callable[[], Endpoints]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = fast_uuid4()
        try:
            status, headers, body = await self._answer(scope, receive)
        except RuntimeServiceError as error:
            status, headers, body = error.answer()
        except Exception:
            LOG.exception("InvokeEndpoint failed")
            status, headers, body = RuntimeServiceError("Unexpected error, see the service's log.").answer()
        headers.append((b"x-amzn-requestid", request_id.encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        started = time.perf_counter()
        name = scope["path_params"]["name"]
        given = dict(scope["headers"])
        body = await _read(given, receive)
        _check(name, given)
        endpoints = self._endpoints()
        live = endpoints.live.get(name)
        target = given.get(TARGET_VARIANT)
        chosen = live.traffic.choose(target.decode("latin-1") if target else None) if live else None
        if live is None or chosen is None:
            if target is not None and live is not None and live.traffic.current is not None:
                raise ValidationError(f"Variant {target.decode('latin-1')} of endpoint {name} not found.")
            raise await not_found(endpoints, name)
        fleet, variant = chosen
        if fleet.spec.async_inference:
            raise ValidationError(f"Endpoint {name} is asynchronous: use InvokeEndpointAsync.")
        call = Call(endpoints, name, variant, endpoints.settings.invocation_timeout)
        response = await call.run([(key, given[key]) for key in _FORWARDED if key in given], body)
        capture = fleet.capture
        if capture is not None and capture.samples(random.random()):  # noqa: S311
            invocation = Invocation(
                input_body=body,
                input_content_type=_text(given.get(b"content-type")),
                output_body=response.body,
                output_content_type=_text(response.headers.get(b"content-type")),
                time=datetime.fromtimestamp(endpoints.ctx.now(), UTC),
                inference_id=_text(given.get(INFERENCE_ID)),
                custom_attributes=_text(given.get(CUSTOM_ATTRIBUTES)),
            )
            await _capture(endpoints, name, variant.name, capture, invocation)
        headers = [(b"x-amzn-invoked-production-variant", variant.name.encode())]
        for key in (b"content-type", CUSTOM_ATTRIBUTES):
            if key in response.headers:
                headers.append((key, response.headers[key]))
        call.count(response.status, overhead_seconds=time.perf_counter() - started - call.model_seconds)
        return 200, headers, response.body


async def not_found(endpoints: Endpoints, name: str) -> ValidationError:
    """The error for an endpoint that is not there or not in service."""
    ctx = endpoints.ctx
    account = await asyncio.to_thread(account_id, ctx.config, ctx.clients, ctx.store)
    return ValidationError(f"Endpoint {name} of account {account} not found.")


async def _read(headers: dict[bytes, bytes], receive: Receive, limit: int = MAX_PAYLOAD_BYTES) -> bytes:
    """The request's body. One that is too large is read to its end but not kept, so that the client reads the error."""
    chunks: list[bytes] = []
    declared, length = int(headers.get(b"content-length", b"0") or 0), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ValidationError("The request ended before its body was complete.")
        chunk = message.get("body", b"")
        length += len(chunk)
        if max(declared, length) <= limit:
            chunks.append(chunk)
        if not message.get("more_body", False):
            break
    if length > limit:
        raise ValidationError(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less "
            f"than or equal to {limit}"
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check(name: str, headers: dict[bytes, bytes]) -> None:
    problems = []
    if len(name) > 63 or not _NAME.fullmatch(name):
        problems.append(
            f"Value '{name}' at 'endpointName' failed to satisfy constraint: Member must satisfy regular expression "
            f"pattern: ^{_NAME.pattern} and have length less than or equal to 63"
        )
    for key, member in (
        (b"content-type", "contentType"),
        (b"accept", "accept"),
        (CUSTOM_ATTRIBUTES, "customAttributes"),
    ):
        if len(headers.get(key, b"")) > 1024:
            problems.append(
                f"Value at '{member}' failed to satisfy constraint: Member must have length less than or equal to 1024"
            )
    inference_id = headers.get(INFERENCE_ID)
    if inference_id is not None:
        text = inference_id.decode("latin-1")
        if len(text) > 64 or not _INFERENCE_ID.fullmatch(text):
            problems.append(
                f"Value '{text}' at 'inferenceId' failed to satisfy constraint: Member must satisfy regular expression "
                r"pattern: \A\S[\p{Print}]*\z and have length less than or equal to 64"
            )
    if problems:
        plural = "error" if len(problems) == 1 else "errors"
        raise ValidationError(f"{len(problems)} validation {plural} detected: {'; '.join(problems)}")
    for key, why in _REFUSED.items():
        if key in headers:
            raise ValidationError(why)


async def _capture(
    endpoints: Endpoints, endpoint: str, variant: str, settings: CaptureSettings, invocation: Invocation
) -> None:
    """On disk before the caller has its answer: what was answered is captured, whatever happens next."""
    if len(invocation.input_body) + len(invocation.output_body) > _LARGE:
        line = await asyncio.to_thread(record, settings, invocation)
    else:
        line = record(settings, invocation)
    endpoints.spool.append(endpoint, variant, settings, line)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


_ASYNC_HEADERS = {
    b"inputlocation": "InputLocation",
    b"content-type": "ContentType",
    b"accept": "Accept",
    b"custom-attributes": "CustomAttributes",
    b"inference-id": "InferenceId",
    b"requestttlseconds": "RequestTTLSeconds",
    b"invocationtimeoutseconds": "InvocationTimeoutSeconds",
    b"s3outputpathextension": "S3OutputPathExtension",
    b"filename": "Filename",
}
_ASYNC_RANGES = {"RequestTTLSeconds": (60, 21_600), "InvocationTimeoutSeconds": (1, 3_600)}
_ASYNC_BODY_BYTES = 128_000


class InvokeEndpointAsync:
    """Queues a request from S3 or its body; the answer goes to S3, and word of it to SNS (`/async-invocations`)."""

    def __init__(self, endpoints: Callable[[], Endpoints]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, headers, body = await self._answer(scope, receive)
        except RuntimeServiceError as error:
            status, headers, body = error.answer()
        headers.append((b"x-amzn-requestid", fast_uuid4().encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        name, given = scope["path_params"]["name"], dict(scope["headers"])
        body = await _read(given, receive, _ASYNC_BODY_BYTES)
        _check(name, given)
        request: dict[str, Any] = {
            member: given[_SM + header].decode("latin-1")
            for header, member in _ASYNC_HEADERS.items()
            if _SM + header in given
        }
        for member, (least, most) in _ASYNC_RANGES.items():
            if member not in request:
                continue
            if not request[member].isdigit() or not least <= int(request[member]) <= most:
                raise ValidationError(f"{member} must be a number from {least} to {most}, not {request[member]!r}.")
            request[member] = int(request[member])
        if ("InputLocation" in request) == bool(body):
            raise ValidationError("Exactly one of InputLocation and Body must be given.")
        if body:
            request["Body"] = body.decode("latin-1")
        endpoints = self._endpoints()
        if name not in endpoints.live or endpoints.live[name].traffic.current is None:
            raise await not_found(endpoints, name)
        kept = await endpoints.queue.submit(name, request)
        headers = [(b"content-type", b"application/json")]
        for header, member in ((b"outputlocation", "OutputLocation"), (b"failurelocation", "FailureLocation")):
            if member in kept:
                headers.append((_SM + header, kept[member].encode()))
        return 202, headers, json.dumps({"InferenceId": kept["InferenceId"]}).encode()


RUNTIME_OPERATIONS = {"InvokeEndpoint": InvokeEndpoint, "InvokeEndpointAsync": InvokeEndpointAsync}


class Refusal:
    """An operation of the runtime that this service does not have, refused in AWS's form."""

    def __init__(self, operation: str) -> None:
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"sagemaker_local does not implement {self._operation}. Use InvokeEndpoint."
        status, headers, body = ValidationError(message).answer()
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
