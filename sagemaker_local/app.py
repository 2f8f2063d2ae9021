"""The HTTP face: one port for the control plane (`POST /`, `X-Amz-Target: SageMaker.<Operation>`) and the runtime.

An area is a module (or package) with `OPERATIONS: dict[str, Handler]` and, as it needs them, `routes(ctx)`,
`start(ctx)` and `stop(ctx)` (plain or async). Areas start in the order listed and stop in reverse. One whose requests
must not wait for routing and middleware has `direct(ctx)`: it gives the ASGI application of a request it knows.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sagemaker_local import (
    autoscaling,
    experiments,
    models,
    monitoring,
    processing,
    registry,
    search,
    serving,
    tags,
    training,
    transform,
    tuning,
)
from sagemaker_local.alternatives import instead
from sagemaker_local.context import Context, Direct, Handler
from sagemaker_local.errors import (
    InternalFailure,
    RequestEntityTooLargeException,
    ServiceError,
    UnknownOperationException,
    UnsupportedOperation,
    ValidationException,
)
from sagemaker_local.protocol import operation_of, parse_request, serialise_answer

log = logging.getLogger(__name__)

_BY_PATH = {"/BatchPutMetrics": "SageMakerMetrics.BatchPutMetrics"}  # what clients call by its path, without a target
MAX_BODY = 4 << 20  # bytes; the largest request that SageMaker's own limits allow is a few hundred KiB


def areas() -> list[ModuleType]:
    """The modules this service is made of."""
    return [
        tags,
        models,
        registry,
        training,
        tuning,
        transform,
        processing,
        serving,
        autoscaling,
        monitoring,
        experiments,
        search,
    ]


def operations(modules: list[ModuleType]) -> dict[str, Handler]:
    """Every implemented operation by name.

    Raises:
        ValueError: two areas claim the same one.
    """
    table: dict[str, Handler] = {}
    for module in modules:
        for name, handler in module.OPERATIONS.items():
            if name in table:
                raise ValueError(f"{name} is registered twice, the second time by {module.__name__}")
            table[name] = handler
    return table


async def answer(ctx: Context, table: dict[str, Handler], target: str, body: bytes) -> dict[str, Any]:
    """Validate, run and serialise one control-plane call.

    Raises:
        ServiceError: the operation is unknown or not implemented, the request invalid, or its handler refuses it.
    """
    operation = operation_of(target)
    handler = table.get(operation.name)
    if handler is None:
        raise UnsupportedOperation(
            f"sagemaker_local does not implement {operation.name}. {instead(operation.name)}"
            "COVERAGE.md lists what it does; on AWS it exists."
        )
    # In a thread: a large body would hold up every invocation meanwhile.
    request = await to_thread.run_sync(parse_request, operation, body)
    if inspect.iscoroutinefunction(handler):
        result = await handler(ctx, request)
    else:
        result = await to_thread.run_sync(handler, ctx, request)
    return serialise_answer(operation, result)


class Service(Starlette):
    """The application, with a way past Starlette for the requests that areas answer directly."""

    direct: tuple[Direct, ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, as ASGI has it."""
        if scope["type"] == "http":
            for find in self.direct:
                if (application := find(scope)) is not None:
                    await application(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def create_app(ctx: Context) -> Starlette:
    """The ASGI application of one service. Its lifespan starts and stops the areas, then closes the context."""
    parts = areas()
    table = operations(parts)

    async def control_plane(request: Request) -> Response:
        target = _BY_PATH.get(request.url.path) or request.headers.get("x-amz-target", "")
        try:
            _check_region(ctx.config.region, request.headers.get("authorization", ""))
            result = await answer(ctx, table, target, await _body(request))
        except ServiceError as error:
            return error_response(error)
        except Exception:
            log.exception("%s failed", target)
            return error_response(InternalFailure(f"{target}: unexpected error, see the service's log"))
        return _response(result, 200)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        for module in parts:
            await _call(getattr(module, "start", None), ctx)
        yield
        for module in reversed(parts):
            await _call(getattr(module, "stop", None), ctx)
        ctx.close()

    routes: list[BaseRoute] = [Route("/health", _health), Route("/", control_plane, methods=["POST"])]
    routes += [Route(path, control_plane, methods=["PUT"]) for path in _BY_PATH]
    for module in parts:
        if hasattr(module, "routes"):
            routes.extend(module.routes(ctx))
    service = Service(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_route})
    service.direct = tuple(module.direct(ctx) for module in parts if hasattr(module, "direct"))
    return service


def error_response(error: ServiceError, status: int | None = None) -> Response:
    """An error in the form of AWS's JSON services."""
    return _response(error.body(), status or error.status, {"x-amzn-ErrorType": error.code})


def _response(document: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Response:
    named = {"x-amzn-RequestId": str(uuid.uuid4()), **(headers or {})}
    return Response(json.dumps(document), status, named, media_type="application/x-amz-json-1.1")


def _check_region(region: str, authorization: str) -> None:
    """Raise `ValidationException` for a request to another region, whose ARNs would name this one."""
    signed = re.search(r"Credential=[^/]*/\d{8}/([^/]*)/", authorization)
    if signed and signed[1] != region:
        raise ValidationException(
            f"This sagemaker_local is region {region}, and the request is for {signed[1][:50]}. Set the client's "
            f"region, or start another one with AWS_REGION={signed[1][:50]}."
        )


async def _body(request: Request) -> bytes:
    """The request's body.

    Raises:
        RequestEntityTooLargeException: it is longer than MAX_BODY; the rest is not read.
    """
    chunks, length = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        length += len(chunk)
        if length > MAX_BODY:
            raise RequestEntityTooLargeException(f"Request size exceeded {MAX_BODY} bytes")
    return b"".join(chunks)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return error_response(UnknownOperationException(f"{request.method} {request.url.path} is no operation."), status)


async def _health(_: Request) -> Response:
    return _response({"status": "ok"}, 200)


async def _call(hook: Callable[[Context], Any] | None, ctx: Context) -> None:
    if hook is None:
        return
    if inspect.iscoroutinefunction(hook):
        await hook(ctx)
    else:
        await to_thread.run_sync(hook, ctx)
