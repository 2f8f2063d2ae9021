"""Endpoints: configs, fleets of model servers, deployments, SageMaker Runtime, data capture and metrics."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Scope

from sagemaker_local.context import Context, Direct, Handler
from sagemaker_local.serving import configs, operations
from sagemaker_local.serving.controller import Endpoints
from sagemaker_local.serving.runtime import InvokeEndpoint, InvokeEndpointAsync, InvokeEndpointWithResponseStream
from sagemaker_local.serving.settings import ServingSettings

_PREFIX, _SUFFIX = "/endpoints/", "/invocations"

OPERATIONS: dict[str, Handler] = {**configs.OPERATIONS, **operations.OPERATIONS}


def routes(ctx: Context) -> list[BaseRoute]:
    """SageMaker Runtime's routes."""
    table = {
        "invocations": InvokeEndpoint,
        "async-invocations": InvokeEndpointAsync,
        "invocations-response-stream": InvokeEndpointWithResponseStream,
    }
    return [Route(f"/endpoints/{{name}}/{word}", kind(ctx), methods=["POST"]) for word, kind in table.items()]


def direct(ctx: Context) -> Direct:
    """InvokeEndpoint without routing and middleware, which would cost as much as all the rest of it."""
    invoke = InvokeEndpoint(ctx)

    def find(scope: Scope) -> ASGIApp | None:
        path: str = scope["path"]
        if scope["method"] != "POST" or not (path.startswith(_PREFIX) and path.endswith(_SUFFIX)):
            return None
        name = path[len(_PREFIX) : -len(_SUFFIX)]
        if not name or "/" in name:
            return None
        scope["path_params"] = {"name": name}
        return invoke

    return find


async def start(ctx: Context) -> None:
    """Bring back the endpoints.

    Raises:
        ValueError: a SAGEMAKER_LOCAL_ variable is no positive number.
    """
    endpoints = Endpoints(ctx, ServingSettings.from_environment())
    ctx.provide(endpoints)
    await endpoints.start()


async def stop(ctx: Context) -> None:
    """End the model servers and flush captures and metrics."""
    await ctx.use(Endpoints).stop()
