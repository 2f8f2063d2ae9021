"""SageMaker Runtime's InvokeEndpoint: plain ASGI, because every microsecond here is in every answer."""

from __future__ import annotations

import asyncio
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
from sagemaker_local.serving.fleet import LOG_GROUP, NoInstanceError, VariantFleet
from sagemaker_local.serving.ids import fast_uuid4
from sagemaker_local.serving.model_client import (
    ExchangeError,
    ExchangeTimeoutError,
    Response,
    ResponseTooLargeError,
)
from sagemaker_local.serving.runtime_errors import ModelError, RuntimeServiceError, ServiceUnavailable, ValidationError
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
_RECOVERY_WAIT = 30.0
_EXIT_NOTICE = 0.25


class InvokeEndpoint:
    """`POST /endpoints/{EndpointName}/invocations`."""

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
            raise await self._not_found(endpoints, name, target if live and live.traffic.current else None)
        fleet, variant = chosen
        call = _Call(endpoints, name, variant)
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
        endpoints.metrics.record(
            name,
            variant.name,
            response.status,
            model_seconds=call.model_seconds,
            overhead_seconds=time.perf_counter() - started - call.model_seconds,
        )
        return 200, headers, response.body

    async def _not_found(self, endpoints: Endpoints, name: str, target: bytes | None) -> RuntimeServiceError:
        if target is not None:
            return ValidationError(f"Variant {target.decode('latin-1')} of endpoint {name} not found.")
        ctx = endpoints.ctx
        account = await asyncio.to_thread(account_id, ctx.config, ctx.clients, ctx.store)
        return ValidationError(f"Endpoint {name} of account {account} not found.")


class _Call:
    """One invocation on its way to a model server, through crashes of it."""

    def __init__(self, endpoints: Endpoints, endpoint: str, variant: VariantFleet) -> None:
        self._endpoints = endpoints
        self._endpoint = endpoint
        self._variant = variant
        self.model_seconds = 0.0

    async def run(self, headers: list[tuple[bytes, bytes]], body: bytes) -> Response:
        """The model's 2xx answer. Raises ModelError for any other, ServiceUnavailable without an instance.

        A server that breaks takes down all invocations it was sent, of which at most one is to blame. The others are
        sent again, one at a time, so that the one to blame meets nobody a second time.
        """
        try:
            return await self._try(headers, body, retry=False)
        except _Broken as broken:
            if not broken.may_retry:
                raise await self._no_answer(broken.error) from broken
        async with self._variant.one_at_a_time:
            try:
                return await self._try(headers, body, retry=True)
            except _Broken as broken:
                raise await self._no_answer(broken.error) from broken

    async def _try(self, headers: list[tuple[bytes, bytes]], body: bytes, *, retry: bool) -> Response:
        timeout = self._endpoints.settings.invocation_timeout
        deadline = time.monotonic() + timeout
        while True:
            try:
                instance = await self._variant.pick(min(timeout, _RECOVERY_WAIT))
            except NoInstanceError as error:
                raise ServiceUnavailable(
                    f"The service is unavailable: {error}. See the log group {LOG_GROUP}{self._endpoint}."
                ) from error
            began = time.perf_counter()
            try:
                response = await instance.invoke(headers, body, max(deadline - time.monotonic(), 0.001))
            except ExchangeTimeoutError as error:
                self.model_seconds += time.perf_counter() - began
                check = asyncio.get_running_loop().create_task(instance.restart_if_hung())
                check.add_done_callback(lambda done: done.exception() if not done.cancelled() else None)
                raise await self._model_error(
                    0,
                    "Your invocation timed out while waiting for a response from container primary. Review the latency "
                    "metrics for each container in Amazon CloudWatch, resolve the issue, and try again.",
                ) from error
            except ResponseTooLargeError as error:
                self.model_seconds += time.perf_counter() - began
                raise await self._model_error(
                    0, f"The response of container primary is larger than {MAX_PAYLOAD_BYTES} bytes."
                ) from error
            except ExchangeError as error:
                self.model_seconds += time.perf_counter() - began
                alone = instance.failed_alone
                exited = await instance.exits_within(_EXIT_NOTICE)
                if not error.sent and time.monotonic() < deadline:
                    continue
                raise _Broken(error, may_retry=exited and not alone and not retry) from error
            self.model_seconds += time.perf_counter() - began
            if 200 <= response.status < 300:
                return response
            raise await self._model_error(response.status, response.body.decode(errors="replace"))

    async def _no_answer(self, error: ExchangeError) -> RuntimeServiceError:
        return await self._model_error(0, f"The container primary gave no answer: {error}.")

    async def _model_error(self, status: int, message: str) -> ModelError:
        endpoints, ctx = self._endpoints, self._endpoints.ctx
        endpoints.metrics.record(
            self._endpoint, self._variant.name, status, model_seconds=self.model_seconds, overhead_seconds=0.0
        )
        account = await asyncio.to_thread(account_id, ctx.config, ctx.clients, ctx.store)
        return ModelError(
            status=status, message=message, region=ctx.config.region, account=account, group=LOG_GROUP + self._endpoint
        )


class _Broken(Exception):
    def __init__(self, error: ExchangeError, *, may_retry: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.may_retry = may_retry


async def _read(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The request's body. One that is too large is read to its end but not kept, so that the client reads the error."""
    chunks: list[bytes] = []
    declared, length = int(headers.get(b"content-length", b"0") or 0), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ValidationError("The request ended before its body was complete.")
        chunk = message.get("body", b"")
        length += len(chunk)
        if max(declared, length) <= MAX_PAYLOAD_BYTES:
            chunks.append(chunk)
        if not message.get("more_body", False):
            break
    if length > MAX_PAYLOAD_BYTES:
        raise ValidationError(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less "
            f"than or equal to {MAX_PAYLOAD_BYTES}"
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
