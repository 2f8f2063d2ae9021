"""Endpoints: configs, fleets of model servers, deployments, SageMaker Runtime, data capture and metrics."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from sagemaker_local.context import Context, Handler
from sagemaker_local.serving import configs, operations
from sagemaker_local.serving.controller import Endpoints
from sagemaker_local.serving.runtime import InvokeEndpoint, InvokeEndpointAsync, Refusal
from sagemaker_local.serving.settings import ServingSettings

OPERATIONS: dict[str, Handler] = {**configs.OPERATIONS, **operations.OPERATIONS}


def routes(ctx: Context) -> list[BaseRoute]:
    """SageMaker Runtime's routes."""
    path = "/endpoints/{name}/"
    return [
        Route(path + "invocations", InvokeEndpoint(lambda: ctx.use(Endpoints)), methods=["POST"]),
        Route(path + "async-invocations", InvokeEndpointAsync(lambda: ctx.use(Endpoints)), methods=["POST"]),
        Route(
            path + "invocations-response-stream",
            Refusal("InvokeEndpointWithResponseStream"),
            methods=["POST"],
        ),
    ]


async def start(ctx: Context) -> None:
    """Bring back the endpoints. Raises ValueError for a SAGEMAKER_LOCAL_ variable that is no number."""
    endpoints = Endpoints(ctx, ServingSettings.from_environment())
    ctx.provide(endpoints)
    await endpoints.start()


async def stop(ctx: Context) -> None:
    """End the model servers and flush captures and metrics."""
    await ctx.use(Endpoints).stop()
