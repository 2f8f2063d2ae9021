"""What runs of an endpoint, and the two fleets of a deployment under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sagemaker_local.serving.deployment import DeploymentError
from sagemaker_local.serving.fleet import Traffic


class LiveEndpoint:
    """What runs of one endpoint. `stage` is the deployment's VariantStatus, since `stage_since`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.traffic = Traffic()
        self.stage: str | None = None
        self.stage_since = 0.0
        self.work: asyncio.Task[None] | None = None
        self.revival: asyncio.Task[None] | None = None


class FleetPair:
    """The two fleets of a deployment, as `deployment.carry_out` drives them; `note` is told every stage."""

    def __init__(self, traffic: Traffic, note: Callable[[str], Awaitable[None]]) -> None:
        self._traffic = traffic
        self._note = note

    async def grow_new(self, capacity: float, timeout: float) -> None:
        """Have this share of the new fleet healthy.

        Raises:
            DeploymentError: it cannot be within `timeout` s, or an instance cannot be had.
        """
        await self._note("Creating")
        assert self._traffic.incoming is not None
        try:
            async with asyncio.timeout(timeout):
                await self._traffic.incoming.grow(capacity)
        except TimeoutError:
            raise DeploymentError("The new fleet was not healthy within MaximumExecutionTimeoutInSeconds.") from None

    async def shift(self, share: float, stage: str) -> None:
        """Send this share of traffic to the new fleet."""
        self._traffic.share = share
        await self._note(stage)

    async def shrink_old(self, capacity: float) -> None:
        """End all but this share of the old fleet."""
        if self._traffic.current is not None:
            if capacity <= 0:
                await self._note("Deleting")
            await self._traffic.current.shrink(capacity)
