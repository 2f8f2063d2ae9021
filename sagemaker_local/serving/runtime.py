"""SageMaker Runtime's operations: plain ASGI, because every microsecond here is in every answer."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import Receive, Scope, Send

from sagemaker_local.context import Context
from sagemaker_local.errors import InternalFailure, ServiceError, UnsupportedOperation, ValidationError
from sagemaker_local.serving.capture import CaptureSettings, Invocation, record
from sagemaker_local.serving.controller import Endpoints
from sagemaker_local.serving.ids import fast_uuid4
from sagemaker_local.serving.invocation import Call
from sagemaker_local.serving.settings import MAX_PAYLOAD_BYTES

log = logging.getLogger(__name__)

Headers = dict[bytes, bytes]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""HTTP status, headers and body."""

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
_DIGITS = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_INFERENCE_ID = re.compile(r"\S[ -~]*")
_LARGE = 256 * 1024  # records of larger bodies are made in a thread: base64 of megabytes would hold up other callers


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


class RuntimeOperation:
    """One operation of an endpoint as an ASGI application: `answer` does it, errors take AWS's form."""

    max_body = MAX_PAYLOAD_BYTES

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def answer(self, endpoints: Endpoints, name: str, given: Headers, body: bytes | None) -> Answer:
        """Do the operation. `body` is None when it is longer than `max_body`.

        Raises:
            ServiceError: it cannot be done; the error is what the client is answered.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            given = dict(scope["headers"])
            body = await _read(given, receive, self.max_body)
            name = scope["path_params"]["name"]
            status, headers, answer = await self.answer(self._ctx.use(Endpoints), name, given, body)
        except ServiceError as error:
            status, headers, answer = _error(error)
        except Exception:
            log.exception("%s failed", type(self).__name__)
            status, headers, answer = _error(InternalFailure("Unexpected error, see the service's log."))
        headers.append((b"x-amzn-requestid", fast_uuid4().encode()))
        headers.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class InvokeEndpoint(RuntimeOperation):
    """Sends the body to a model server of the variant in charge; sampled into the data capture (`/invocations`)."""

    async def answer(self, endpoints: Endpoints, name: str, given: Headers, body: bytes | None) -> Answer:
        """The model's answer."""
        started = time.perf_counter()
        _check_name(name)
        live = endpoints.live.get(name)
        target = _text(given.get(TARGET_VARIANT))
        chosen = live.traffic.choose(target) if live else None
        if live is None or chosen is None:
            if target is not None and live is not None and live.traffic.current is not None:
                raise ValidationError(f"Variant {target} of endpoint {name} not found.")
            raise await self._not_found(name)
        body = _checked(given, body, self.max_body)
        fleet, variant = chosen
        if fleet.spec.async_inference:
            raise ValidationError(f"Endpoint {name} is asynchronous: use InvokeEndpointAsync.")
        variant.admit(body)
        call = Call(self._ctx, endpoints.metrics, name, variant, endpoints.settings.invocation_timeout)
        response = await call.run([(key, given[key]) for key in _FORWARDED if key in given], body)
        capture = fleet.capture
        if capture is not None and capture.samples(random.random()):  # noqa: S311
            invocation = Invocation(
                input_body=body,
                input_content_type=_text(given.get(b"content-type")),
                output_body=response.body,
                output_content_type=_text(response.headers.get(b"content-type")),
                time=datetime.fromtimestamp(self._ctx.now(), UTC),
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

    async def _not_found(self, name: str) -> ValidationError:
        """The error for an endpoint that is not there or not in service."""
        account = await asyncio.to_thread(self._ctx.account)
        return ValidationError(f"Endpoint {name} of account {account} not found.")


class InvokeEndpointAsync(InvokeEndpoint):
    """Queues a request from S3 or its body; the answer goes to S3, and word of it to SNS (`/async-invocations`)."""

    max_body = 128_000

    async def answer(self, endpoints: Endpoints, name: str, given: Headers, body: bytes | None) -> Answer:
        """Where the answer will be."""
        _check_name(name)
        if name not in endpoints.live or endpoints.live[name].traffic.current is None:
            raise await self._not_found(name)
        body = _checked(given, body, self.max_body)
        request: dict[str, Any] = {
            member: given[_SM + header].decode("latin-1")
            for header, member in _ASYNC_HEADERS.items()
            if _SM + header in given
        }
        for member, (least, most) in _ASYNC_RANGES.items():
            if member in request:
                request[member] = _number(member, request[member], least, most)
        if ("InputLocation" in request) == bool(body):
            raise ValidationError("Exactly one of InputLocation and Body must be given.")
        if body:
            request["Body"] = body.decode("latin-1")
        kept = await endpoints.queue.submit(name, request)
        headers = [(b"content-type", b"application/json")]
        for header, member in ((b"outputlocation", "OutputLocation"), (b"failurelocation", "FailureLocation")):
            if member in kept:
                headers.append((_SM + header, kept[member].encode()))
        return 202, headers, json.dumps({"InferenceId": kept["InferenceId"]}).encode()


class InvokeEndpointWithResponseStream(RuntimeOperation):
    """Refused: the algorithms here answer in one piece."""

    async def answer(self, endpoints: Endpoints, name: str, given: Headers, body: bytes | None) -> Answer:
        """Refuse the operation.

        Raises:
            UnsupportedOperation: always; the message names InvokeEndpoint instead.
        """
        raise UnsupportedOperation(
            "sagemaker_local does not implement InvokeEndpointWithResponseStream. Use InvokeEndpoint."
        )


RUNTIME_OPERATIONS = {"InvokeEndpoint": InvokeEndpoint, "InvokeEndpointAsync": InvokeEndpointAsync}


def _error(error: ServiceError) -> Answer:
    """An error in the runtime's form."""
    body = json.dumps({"ErrorCode": error.code, "Message": error.message, **error.members}).encode()
    headers = [(b"content-type", b"application/json"), (b"x-amzn-errortype", error.code.encode())]
    return error.status, headers, body


async def _read(headers: Headers, receive: Receive, limit: int) -> bytes | None:
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
        return None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_name(name: str) -> None:
    if len(name) > 63 or not _NAME.fullmatch(name):
        raise ValidationError(
            f"1 validation error detected: Value '{name}' at 'endpointName' failed to satisfy constraint: Member must "
            f"satisfy regular expression pattern: ^{_NAME.pattern} and have length less than or equal to 63"
        )


def _checked(headers: Headers, body: bytes | None, limit: int) -> bytes:
    """The body, when it and the headers are what the service model allows."""
    problems = []
    if body is None:
        problems.append(
            f"Value at 'body' failed to satisfy constraint: Member must have length less than or equal to {limit}"
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
    inference_id = _text(headers.get(INFERENCE_ID))
    if inference_id is not None and (len(inference_id) > 64 or not _INFERENCE_ID.fullmatch(inference_id)):
        problems.append(
            f"Value '{inference_id}' at 'inferenceId' failed to satisfy constraint: Member must satisfy regular "
            r"expression pattern: \A\S[\p{Print}]*\z and have length less than or equal to 64"
        )
    if body is None or problems:
        plural = "error" if len(problems) == 1 else "errors"
        raise ValidationError(f"{len(problems)} validation {plural} detected: {'; '.join(problems)}")
    for key, why in _REFUSED.items():
        if key in headers:
            raise ValidationError(why)
    return body


def _number(member: str, text: str, least: int, most: int) -> int:
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise ValidationError(f"{member} must be a number from {least} to {most}, not {text!r}.")
    return int(text)


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
