"""InvokeEndpointAsync: requests kept in the store, answered from S3 to S3, announced by SNS.

A request is a row of the store until its result is in S3, so a killed service goes on with it. Sources: the Runtime API
reference, and the developer guide on asynchronous inference (locations, notifications, defaults).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceError, ValidationError
from sagemaker_local.serving.ids import fast_uuid4
from sagemaker_local.serving.invocation import Call
from sagemaker_local.serving.live import LiveEndpoint
from sagemaker_local.serving.metrics import EndpointMetrics
from sagemaker_local.serving.specs import FleetSpec
from sagemaker_local.store import Resource

log = logging.getLogger(__name__)
KIND = "async-invocation"
DEFAULT_TTL_SECONDS, DEFAULT_TIMEOUT_SECONDS, DEFAULT_CONCURRENCY = 21_600, 900, 4


class AsyncInvocations:
    """The queue of every asynchronous endpoint. Used on the event loop that the endpoints run on."""

    def __init__(self, ctx: Context, live: Mapping[str, LiveEndpoint], metrics: EndpointMetrics) -> None:
        self._ctx = ctx
        self._live = live
        self._metrics = metrics
        self._slots: dict[str, tuple[int, asyncio.Semaphore]] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}

    async def submit(self, endpoint: str, request: dict[str, Any]) -> dict[str, str]:
        """Keep a request; gives InferenceId, OutputLocation and, where failures are kept, FailureLocation.

        `request` holds the operation's members: InputLocation or Body (bytes as latin-1 text), ContentType, Accept,
        CustomAttributes, InferenceId, RequestTTLSeconds, InvocationTimeoutSeconds, Filename, S3OutputPathExtension.

        Raises:
            ValidationError: the endpoint is not asynchronous.
        """
        spec = self._spec(endpoint)
        config = spec.async_inference if spec else None
        if spec is None or config is None:
            raise ValidationError(f"Endpoint {endpoint} is not an asynchronous endpoint.")
        row = fast_uuid4()
        extension = request.get("S3OutputPathExtension", "").strip("/")
        folder = [extension] if extension else []
        name = request.get("Filename") or f"{row}.out"
        output = config["OutputConfig"]
        locations = {"OutputLocation": s3.join_uri(output["S3OutputPath"], *folder, name)}
        if output.get("S3FailurePath"):
            locations["FailureLocation"] = s3.join_uri(output["S3FailurePath"], *folder, f"{row}-error.out")
        answer = {"InferenceId": request.get("InferenceId") or fast_uuid4(), **locations}
        body = {**request, **answer, "received": self._ctx.now()}
        queued = Resource(KIND, row, f"{KIND}/{row}", body, "Queued", parent=endpoint)
        await asyncio.to_thread(self._ctx.store.create, queued)
        self._enqueue(endpoint, spec, row)
        return answer

    async def resume(self, endpoint: str, spec: FleetSpec) -> None:
        """Take up what a killed service left of this endpoint's queue, oldest first."""
        if spec.async_inference:
            for row in await asyncio.to_thread(self._ctx.store.children, KIND, endpoint):
                self._enqueue(endpoint, spec, row.name)

    async def drop(self, endpoint: str) -> None:
        """Forget the queue of an endpoint that is deleted."""
        await self._cancel(self._tasks.pop(endpoint, set()))
        self._slots.pop(endpoint, None)
        for row in await asyncio.to_thread(self._ctx.store.children, KIND, endpoint):
            await asyncio.to_thread(self._ctx.store.delete, KIND, row.name)

    async def stop(self) -> None:
        """Stop working; the queue stays in the store."""
        await self._cancel({task for tasks in self._tasks.values() for task in tasks})

    async def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spec(self, endpoint: str) -> FleetSpec | None:
        live = self._live.get(endpoint)
        fleet = live.traffic.current if live else None
        return fleet.spec if fleet else None

    def _enqueue(self, endpoint: str, spec: FleetSpec, row: str) -> None:
        client = (spec.async_inference or {}).get("ClientConfig") or {}
        each = client.get("MaxConcurrentInvocationsPerInstance", DEFAULT_CONCURRENCY)
        size = each * max(spec.instances, 1)
        if endpoint not in self._slots or self._slots[endpoint][0] != size:
            self._slots[endpoint] = size, asyncio.Semaphore(size)
        work = self._work(endpoint, row, self._slots[endpoint][1])
        task = asyncio.get_running_loop().create_task(work, name=f"async {row}")
        tasks = self._tasks.setdefault(endpoint, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _work(self, endpoint: str, row: str, slots: asyncio.Semaphore) -> None:
        ctx = self._ctx
        async with slots:
            kept = await asyncio.to_thread(ctx.store.get, KIND, row)
            if kept is None:
                return
            request, reason, answer = kept.body, None, None
            try:
                answer = await self._invoke(endpoint, request)
            except ServiceError as error:
                reason = error.message
            except (s3.DataError, s3.OutageError) as error:
                reason = str(error)
            except Exception as error:
                log.exception("asynchronous invocation %s failed", row)
                reason = f"Internal error of the service: {type(error).__name__}: {error}"
            try:
                await asyncio.to_thread(self._announce, endpoint, request, answer, reason)
            except (s3.DataError, s3.OutageError) as error:
                log.warning("the result of asynchronous invocation %s is lost: %s", row, error)
            await asyncio.to_thread(ctx.store.delete, KIND, row)

    async def _invoke(self, endpoint: str, request: dict[str, Any]) -> tuple[bytes, str]:
        ctx = self._ctx
        if ctx.now() - request["received"] > request.get("RequestTTLSeconds", DEFAULT_TTL_SECONDS):
            raise ValidationError("The request was not processed within RequestTTLSeconds.")
        if "InputLocation" in request:
            body = await asyncio.to_thread(s3.get_bytes, ctx, request["InputLocation"])
        else:
            body = request["Body"].encode("latin-1")
        live = self._live.get(endpoint)
        chosen = live.traffic.choose() if live else None
        if chosen is None:
            raise ValidationError(f"Endpoint {endpoint} has no variant that takes traffic.")
        headers = [
            (header, request[member].encode("latin-1"))
            for header, member in (
                (b"content-type", "ContentType"),
                (b"accept", "Accept"),
                (b"x-amzn-sagemaker-custom-attributes", "CustomAttributes"),
            )
            if member in request
        ]
        timeout = request.get("InvocationTimeoutSeconds", DEFAULT_TIMEOUT_SECONDS)
        call = Call(ctx, self._metrics, endpoint, chosen[1], timeout)
        response = await call.run(headers, body)
        call.count(response.status, overhead_seconds=0.0)
        return response.body, response.headers.get(b"content-type", b"application/octet-stream").decode("latin-1")

    def _announce(
        self, endpoint: str, request: dict[str, Any], answer: tuple[bytes, str] | None, reason: str | None
    ) -> None:
        """Put the result where it was promised, then tell the topic. Blocking."""
        ctx = self._ctx
        spec = self._spec(endpoint)
        config = (spec.async_inference if spec else None) or {"OutputConfig": {}}
        topics = config["OutputConfig"].get("NotificationConfig") or {}
        if answer is not None:
            s3.put_bytes(ctx, request["OutputLocation"], answer[0], answer[1])
        elif "FailureLocation" in request:
            s3.put_bytes(ctx, request["FailureLocation"], (reason or "").encode(), "text/plain")
        topic = topics.get("SuccessTopic" if answer is not None else "ErrorTopic")
        if topic:
            message = notification(ctx, endpoint, request, answer, reason)
            try:
                ctx.clients.get("sns").publish(TopicArn=topic, Message=json.dumps(message))
            except Exception as error:  # noqa: BLE001  the result is in S3 whatever SNS says
                log.warning("SNS did not take the notification of %s: %s", request["InferenceId"], error)


def notification(
    ctx: Context, endpoint: str, request: dict[str, Any], answer: tuple[bytes, str] | None, reason: str | None
) -> dict[str, Any]:
    """The message that SageMaker publishes to SuccessTopic or ErrorTopic."""
    asked = {"endpointName": endpoint}
    if "InputLocation" in request:
        asked["inputLocation"] = request["InputLocation"]
    if "ContentType" in request:
        asked["contentType"] = request["ContentType"]
    message: dict[str, Any] = {
        "awsRegion": ctx.config.region,
        "eventTime": _iso(ctx.now()),
        "receivedTime": _iso(request["received"]),
        "invocationStatus": "Completed" if answer is not None else "Failed",
        "requestParameters": asked,
        "inferenceId": request["InferenceId"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if answer is not None:
        message["responseParameters"] = {"contentType": answer[1], "outputLocation": request["OutputLocation"]}
    else:
        message["failureReason"] = reason
        if "FailureLocation" in request:
            message["failureLocation"] = request["FailureLocation"]
    return message


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
