"""Register, Describe and DeregisterScalableTarget(s); Put, Describe and DeleteScalingPolicy."""

from __future__ import annotations

import uuid
from typing import Any

from sagemaker_local.autoscaling.records import METRIC, POLICY, TARGET, arn, find_target, variant_of
from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ObjectNotFoundException, ValidationException, unsupported
from sagemaker_local.listing import page_of
from sagemaker_local.serving.specs import FleetSpec
from sagemaker_local.serving.states import ENDPOINT
from sagemaker_local.store import Resource


def register_scalable_target(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The fewest and most instances of an endpoint's variant; again, to change them."""
    endpoint, variant = variant_of(request)
    _check_variant(ctx, endpoint, variant)
    name = request["ResourceId"]
    existing = ctx.store.get(TARGET, name)
    body = {**(existing.body if existing else {}), **request}
    body.setdefault("RoleARN", f"arn:aws:iam::{ctx.account()}:role/aws-service-role/sagemaker.application-autoscaling")
    for member in ("MinCapacity", "MaxCapacity"):
        if member not in body:
            raise ValidationException(f"{member} is required to register a scalable target.")
    if body["MinCapacity"] > body["MaxCapacity"] or body["MinCapacity"] < 1:
        raise ValidationException("MinCapacity must be at least 1, and not above MaxCapacity.")
    if existing is None:
        row = Resource(TARGET, name, arn(ctx, f"scalable-target/{uuid.uuid4().hex}"), body, parent=endpoint)
        return {"ScalableTargetARN": ctx.store.create(row, request.get("Tags")).arn}
    ctx.store.update(TARGET, name, lambda row: row.body.update(body))
    return {"ScalableTargetARN": existing.arn}


def describe_scalable_targets(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The targets, all or by their resources."""
    wanted = request.get("ResourceIds")
    rows = [row for row in ctx.store.every(TARGET) if wanted is None or row.name in wanted]
    page, token = page_of([row.described("ScalableTarget") for row in rows], request.get("NextToken"), _size(request))
    found = [{**target, "ScalableTargetARN": target["ScalableTargetArn"]} for target in page]
    return {"ScalableTargets": found, "NextToken": token}


def deregister_scalable_target(ctx: Context, request: dict[str, Any]) -> None:
    """Removes a target and its policies; the variant keeps its instances."""
    variant_of(request)
    target = find_target(ctx, request["ResourceId"])
    with ctx.store.transaction():
        for policy in ctx.store.children(POLICY, target.name):
            ctx.store.delete(POLICY, policy.name)
        ctx.store.delete(TARGET, target.name)


def put_scaling_policy(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Target tracking by invocations per instance and minute; again, to change it."""
    variant_of(request)
    target = find_target(ctx, request["ResourceId"])
    configuration = request.get("TargetTrackingScalingPolicyConfiguration")
    if request.get("PolicyType", "TargetTrackingScaling") != "TargetTrackingScaling" or configuration is None:
        raise unsupported("PolicyType", "anything but TargetTrackingScaling")
    metric = (configuration.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType")
    if metric != METRIC:
        raise unsupported("TargetTrackingScalingPolicyConfiguration", f"metrics other than {METRIC}")
    if configuration["TargetValue"] <= 0:
        raise ValidationException("TargetValue must be above 0.")
    name = f"{target.name}/{request['PolicyName']}"
    body = {**request, "PolicyType": "TargetTrackingScaling"}
    existing = ctx.store.get(POLICY, name)
    if existing is None:
        rest = f"scalingPolicy:{uuid.uuid4()}:resource/sagemaker/{target.name}:policyName/{request['PolicyName']}"
        existing = ctx.store.create(Resource(POLICY, name, arn(ctx, rest), body, parent=target.name))
    else:
        ctx.store.update(POLICY, name, lambda row: row.body.update(body))
    return {"PolicyARN": existing.arn, "Alarms": []}


def describe_scaling_policies(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The policies, all, of a resource, or by name."""
    names, resource = request.get("PolicyNames"), request.get("ResourceId")
    rows = [
        row
        for row in ctx.store.every(POLICY)
        if resource in (None, row.parent) and (names is None or row.body["PolicyName"] in names)
    ]
    page, token = page_of([row.described("Policy") for row in rows], request.get("NextToken"), _size(request))
    return {"ScalingPolicies": [{**policy, "PolicyARN": policy["PolicyArn"]} for policy in page], "NextToken": token}


def delete_scaling_policy(ctx: Context, request: dict[str, Any]) -> None:
    """Removes a policy; the target stays."""
    variant_of(request)
    if not ctx.store.delete(POLICY, f"{request['ResourceId']}/{request['PolicyName']}"):
        raise ObjectNotFoundException(f"No scaling policy found: {request['PolicyName']} of {request['ResourceId']}")


def _check_variant(ctx: Context, endpoint: str, variant: str) -> None:
    found = ctx.store.get(ENDPOINT, endpoint)
    current = found.internal.get("current") if found else None
    names = {one.name: one for one in FleetSpec.from_dict(current).variants} if current else {}
    if variant not in names or names[variant].serverless:
        raise ValidationException(
            f"There is no instance-backed variant {variant} of an endpoint {endpoint} in service."
        )


def _size(request: dict[str, Any]) -> int:
    return int(request.get("MaxResults", 50))


OPERATIONS = operations(
    register_scalable_target,
    describe_scalable_targets,
    deregister_scalable_target,
    put_scaling_policy,
    describe_scaling_policies,
    delete_scaling_policy,
)
