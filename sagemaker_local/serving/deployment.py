"""UpdateEndpoint's traffic plan: the steps that a DeploymentConfig means, and carrying them out. No I/O of its own.

Source: DeploymentConfig, BlueGreenUpdatePolicy and RollingUpdatePolicy in the SageMaker API reference, and the
developer guide's deployment guardrails.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

CANARY, LINEAR = "CANARY", "LINEAR"
DEFAULT_TIMEOUT_SECONDS = 28_800  # what SageMaker allows at most


class DeploymentError(Exception):
    """The deployment cannot go on; the message is the FailureReason. The old fleet must take over again."""


@dataclass(frozen=True)
class Step:
    """One step: this share of the new fleet runs, takes this share of traffic, and is watched for `wait` seconds.

    Then the old fleet shrinks to `old_capacity`. Shares are in [0, 1].
    """

    new_capacity: float
    traffic: float
    wait: float
    old_capacity: float = 1.0


@dataclass(frozen=True)
class Plan:
    """All of a deployment: its steps, then `termination_wait` seconds before the old fleet ends."""

    steps: tuple[Step, ...]
    termination_wait: float
    timeout: float
    alarms: tuple[str, ...]


def validate(config: Mapping[str, Any] | None) -> None:
    """Raise ValueError, saying which member is wrong, for what the service model lets through and SageMaker refuses."""
    if not config:
        return
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        raise ValueError("DeploymentConfig must specify only one of BlueGreenUpdatePolicy and RollingUpdatePolicy.")
    if blue_green:
        routing = blue_green["TrafficRoutingConfiguration"]
        kind, canary, linear = routing["Type"], routing.get("CanarySize"), routing.get("LinearStepSize")
        if (kind == CANARY) != bool(canary):
            raise ValueError(f"CanarySize must be specified for, and only for, traffic type CANARY; got {kind}.")
        if (kind == LINEAR) != bool(linear):
            raise ValueError(
                f"LinearStepSize must be specified for, and only for, traffic routing type LINEAR; got {kind}."
            )
        _check_percent("CanarySize", canary, 1, 50)
        _check_percent("LinearStepSize", linear, 10, 50)
    if rolling:
        _check_percent("MaximumBatchSize", rolling["MaximumBatchSize"], 5, 50)
        _check_percent("RollbackMaximumBatchSize", rolling.get("RollbackMaximumBatchSize"), 5, 100)


def make_plan(config: Mapping[str, Any] | None, instances: int) -> Plan:
    """The plan for a new fleet of `instances` instances; without a config, all at once and no wait.

    Raises:
        ValueError: SageMaker refuses such a config; the message says which member is wrong.
    """
    validate(config)
    config = config or {}
    alarms = tuple(alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", ()))
    policy: Mapping[str, Any] = config.get("RollingUpdatePolicy") or config.get("BlueGreenUpdatePolicy") or {}
    steps: tuple[Step, ...] = (Step(1.0, 1.0, 0.0),)
    if config.get("RollingUpdatePolicy"):
        wait, shares = policy["WaitIntervalInSeconds"], _shares(policy["MaximumBatchSize"], instances)
        steps = tuple(Step(share, share, wait, old_capacity=1.0 - share) for share in shares)
    elif policy:
        routing = policy["TrafficRoutingConfiguration"]
        wait = routing["WaitIntervalInSeconds"]
        shares = [1.0]
        if routing["Type"] == CANARY:
            shares = [_share(routing["CanarySize"], instances), 1.0]
        elif routing["Type"] == LINEAR:
            shares = _shares(routing["LinearStepSize"], instances)
        # One instance can't be split: a canary of it is all of the traffic, once.
        distinct = [share for index, share in enumerate(shares) if index == len(shares) - 1 or share < 1.0]
        steps = tuple(Step(1.0, share, wait) for share in distinct)
    return Plan(
        steps=steps,
        termination_wait=policy.get("TerminationWaitInSeconds", 0),
        timeout=policy.get("MaximumExecutionTimeoutInSeconds", DEFAULT_TIMEOUT_SECONDS),
        alarms=alarms,
    )


class Fleets(Protocol):
    """What carrying out a plan does to the two fleets of an endpoint."""

    async def grow_new(self, capacity: float, timeout: float) -> None:
        """Have this share of the new fleet healthy.

        Raises:
            DeploymentError: it cannot be within `timeout` s.
        """

    async def shift(self, share: float, note: str) -> None:
        """Send this share of traffic to the new fleet; `note` says what follows, for DescribeEndpoint."""

    async def shrink_old(self, capacity: float) -> None:
        """End all but this share of the old fleet, letting invocations under way finish."""


AlarmCheck = Callable[[], Awaitable[str | None]]


async def carry_out(
    plan: Plan,
    fleets: Fleets,
    *,
    alarm_reason: AlarmCheck,
    sleep: Callable[[float], Awaitable[Any]],
    now: Callable[[], float],
    poll_seconds: float = 2.0,
) -> None:
    """Carry out `plan`. `alarm_reason` gives the reason to roll back, or None while all is well.

    `sleep` and `now` are the clock, in seconds.

    Raises:
        DeploymentError: the new fleet cannot be had, an alarm rings, or the plan's timeout is up; undoing is the
            caller's.
    """
    deadline = now() + plan.timeout

    def left() -> float:
        remaining = deadline - now()
        if remaining <= 0:
            raise DeploymentError(
                f"The deployment did not complete within MaximumExecutionTimeoutInSeconds ({plan.timeout:g})."
            )
        return remaining

    async def bake(seconds: float) -> None:
        end = now() + seconds
        while True:
            if plan.alarms and (reason := await alarm_reason()):
                raise DeploymentError(reason)
            pause = min(end - now(), left(), poll_seconds if plan.alarms else math.inf)
            if end - now() <= 0:
                return
            await sleep(max(pause, 0.0))

    for step in plan.steps:
        await fleets.grow_new(step.new_capacity, left())
        await bake(0)  # never shift traffic while an alarm rings
        await fleets.shift(step.traffic, "Baking" if step.wait else "ActivatingTraffic")
        await bake(step.wait)
        if step.old_capacity < 1.0:
            await fleets.shrink_old(step.old_capacity)
    await bake(plan.termination_wait)
    await fleets.shrink_old(0.0)


def _share(size: Mapping[str, Any], instances: int) -> float:
    value = size["Value"]
    share = value / 100 if size["Type"] == "CAPACITY_PERCENT" else value / max(instances, 1)
    return min(float(share), 1.0)


def _shares(size: Mapping[str, Any], instances: int) -> list[float]:
    step = _share(size, instances)
    return [min(step * count, 1.0) for count in range(1, math.ceil(1.0 / step - 1e-9) + 1)]


def _check_percent(name: str, size: Mapping[str, Any] | None, lowest: int, highest: int) -> None:
    if size and size["Type"] == "CAPACITY_PERCENT" and not lowest <= size["Value"] <= highest:
        raise ValueError(f"{name} must be between {lowest} and {highest} percent of capacity; got {size['Value']}.")
