"""The events of endpoints: SageMaker Endpoint State Change, and SageMaker Endpoint Deployment State Change."""

from __future__ import annotations

import re
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.serving import states
from sagemaker_local.serving.describe import describe
from sagemaker_local.serving.live import LiveEndpoint
from sagemaker_local.store import Resource

_MEMBERS = (
    "EndpointName",
    "EndpointArn",
    "EndpointConfigName",
    "ProductionVariants",
    "EndpointStatus",
    "FailureReason",
    "CreationTime",
    "LastModifiedTime",
)
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def status_changed(ctx: Context, endpoint: Resource, live: LiveEndpoint | None) -> None:
    """Announce an endpoint's new status."""
    ctx.events.publish("SageMaker Endpoint State Change", endpoint.arn, _detail(endpoint, live))


def stage_changed(ctx: Context, endpoint: Resource, live: LiveEndpoint) -> None:
    """Announce where an endpoint's deployment stands: its pending variants say it in their VariantStatus."""
    if endpoint.status in (states.UPDATING, states.ROLLING_BACK):
        detail = _detail(endpoint, live, "PendingDeploymentSummary")
        ctx.events.publish("SageMaker Endpoint Deployment State Change", endpoint.arn, detail)


def _detail(endpoint: Resource, live: LiveEndpoint | None, *more: str) -> dict[str, Any]:
    described = describe(endpoint, live)
    detail = {member: described[member] for member in (*_MEMBERS, *more) if member in described}
    # Describe says InService where events say IN_SERVICE.
    return {**detail, "EndpointStatus": _WORD.sub("_", endpoint.status).upper()}
