"""The two fleets of a deployment under way, for `deployment.carry_out`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sagemaker_local.serving.deployment import DeploymentError

if TYPE_CHECKING:
    from sagemaker_local.serving.controller import Endpoints, LiveEndpoint


class FleetPair:
    """The two fleets of a deployment, as `carry_out` drives them."""

    def __init__(self, endpoints: Endpoints, endpoint: LiveEndpoint) -> None:
        self._endpoints = endpoints
        self._endpoint = endpoint

    async def grow_new(self, capacity: float, timeout: float) -> None:
        """Have this share of the new fleet healthy. Raises DeploymentError when it cannot be within `timeout` s."""
        await self._endpoints.set_stage(self._endpoint, "Creating")
        fleet = self._endpoint.traffic.incoming
        assert fleet is not None
        try:
            async with asyncio.timeout(timeout):
                await fleet.grow(capacity)
        except TimeoutError:
            raise DeploymentError("The new fleet was not healthy within MaximumExecutionTimeoutInSeconds.") from None

    async def shift(self, share: float, note: str) -> None:
        """Send this share of traffic to the new fleet."""
        self._endpoint.traffic.share = share
        await self._endpoints.set_stage(self._endpoint, note)

    async def shrink_old(self, capacity: float) -> None:
        """End all but this share of the old fleet."""
        if self._endpoint.traffic.current is not None:
            if capacity <= 0:
                await self._endpoints.set_stage(self._endpoint, "Deleting")
            await self._endpoint.traffic.current.shrink(capacity)
