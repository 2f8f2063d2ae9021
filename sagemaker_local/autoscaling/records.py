"""The rows of scalable targets and their policies, and how many instances a policy wants. Pure but for the store."""

from __future__ import annotations

import math
import re
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.errors import ObjectNotFoundException, unsupported
from sagemaker_local.serving.states import SCALABLE_TARGET
from sagemaker_local.store import Resource

TARGET, POLICY = SCALABLE_TARGET, "scaling-policy"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
METRIC = "SageMakerVariantInvocationsPerInstance"
COOLDOWN = 300  # seconds, where a policy says nothing
_RESOURCE = re.compile(r"endpoint/(?P<endpoint>[a-zA-Z0-9-]+)/variant/(?P<variant>[a-zA-Z0-9-]+)")


def variant_of(request: dict[str, Any]) -> tuple[str, str]:
    """The endpoint and variant that a request names.

    Raises:
        ValidationException: it names another service, another dimension, or anything but an endpoint's variant.
    """
    found = _RESOURCE.fullmatch(request.get("ResourceId", ""))
    if request["ServiceNamespace"] != "sagemaker" or request.get("ScalableDimension", DIMENSION) != DIMENSION:
        raise unsupported("ServiceNamespace and ScalableDimension", f"anything but sagemaker and {DIMENSION}")
    if not found:
        raise unsupported("ResourceId", "anything but endpoint/<name>/variant/<name>")
    return found["endpoint"], found["variant"]


def arn(ctx: Context, rest: str) -> str:
    """An ARN of Application Auto Scaling's."""
    return f"arn:aws:application-autoscaling:{ctx.config.region}:{ctx.account()}:{rest}"


def find_target(ctx: Context, resource_id: str) -> Resource:
    """The target of a variant.

    Raises:
        ObjectNotFoundException: the variant is not registered as a scalable target.
    """
    target = ctx.store.get(TARGET, resource_id)
    if target is None:
        raise ObjectNotFoundException(f"No scalable target registered for service namespace: sagemaker, {resource_id}")
    return target


def wanted_instances(target: dict[str, Any], policy: dict[str, Any], current: int, per_minute: float) -> int:
    """How many instances hold the target value at this many invocations a minute, within the target's capacity."""
    configuration = policy["TargetTrackingScalingPolicyConfiguration"]
    needed = math.ceil(per_minute / configuration["TargetValue"])
    if configuration.get("DisableScaleIn"):
        needed = max(needed, current)
    return int(min(max(needed, target["MinCapacity"]), target["MaxCapacity"]))


def is_cool(policy: Resource, wanted: int, current: int, now: float) -> bool:
    """Whether the policy's last change is long enough ago for this one. Growing waits for the shorter cooldown."""
    configuration = policy.body["TargetTrackingScalingPolicyConfiguration"]
    word = "ScaleOutCooldown" if wanted > current else "ScaleInCooldown"
    return bool(now - policy.internal.get("changed", 0.0) >= configuration.get(word, COOLDOWN))
