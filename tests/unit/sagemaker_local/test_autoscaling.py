"""Application Auto Scaling: targets and policies, how many instances are wanted, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sagemaker_local import app
from sagemaker_local.autoscaling import scaler
from sagemaker_local.autoscaling.records import is_cool, wanted_instances
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import ObjectNotFoundException, ValidationException
from sagemaker_local.protocol import operation_of, serialise_answer
from sagemaker_local.serving.specs import FleetSpec, VariantSpec
from sagemaker_local.store import Resource

TABLE = app.operations(app.areas())
WHERE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/v",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
TRACKING = {
    "TargetValue": 100.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
    "ScaleOutCooldown": 60,
    "ScaleInCooldown": 300,
}


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ctx(tmp_path: Any, clock: Clock) -> Iterator[Context]:
    """With endpoint e in service, its variant v having two instances."""
    made = Context(Config(data_dir=tmp_path, account_id="1" * 12), clock=clock)
    given = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
    fleet = FleetSpec("f", "c", 0.0, (VariantSpec.resolve(given, {"Image": "i"}),))
    row = Resource("endpoint", "e", made.arn("endpoint", "e"), {}, "InService", {"current": fleet.as_dict()})
    made.store.create(row)
    yield made
    made.close()


def call(ctx: Context, name: str, **request: Any) -> dict[str, Any]:
    asked = {**WHERE, **request}
    return serialise_answer(operation_of(f"AnyScaleFrontendService.{name}"), TABLE[name](ctx, asked))  # type: ignore[arg-type]


@pytest.fixture
def scaled(ctx: Context) -> Context:
    call(ctx, "RegisterScalableTarget", MinCapacity=1, MaxCapacity=4)
    call(ctx, "PutScalingPolicy", PolicyName="p", TargetTrackingScalingPolicyConfiguration=TRACKING)
    return ctx


def test_targets_and_policies_are_registered_changed_and_removed(scaled):
    [target] = call(scaled, "DescribeScalableTargets", ResourceIds=[WHERE["ResourceId"]])["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    again = call(scaled, "RegisterScalableTarget", MaxCapacity=6)["ScalableTargetARN"]
    [target] = call(scaled, "DescribeScalableTargets")["ScalableTargets"]
    assert (target["ScalableTargetARN"], target["MinCapacity"], target["MaxCapacity"]) == (again, 1, 6)
    [policy] = call(scaled, "DescribeScalingPolicies", PolicyNames=["p"])["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 100.0
    assert call(scaled, "DescribeScalableTargets", ResourceIds=["endpoint/x/variant/v"])["ScalableTargets"] == []
    call(scaled, "DeregisterScalableTarget")
    assert call(scaled, "DescribeScalingPolicies")["ScalingPolicies"] == []
    for name, more in (("DeregisterScalableTarget", {}), ("DeleteScalingPolicy", {"PolicyName": "p"})):
        with pytest.raises(ObjectNotFoundException):
            call(scaled, name, **more)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("RegisterScalableTarget", {"MinCapacity": 5, "MaxCapacity": 4}),
        ("RegisterScalableTarget", {"MinCapacity": 0, "MaxCapacity": 4}),
        ("RegisterScalableTarget", {"MinCapacity": 1, "MaxCapacity": 4, "ResourceId": "endpoint/e/variant/none"}),
        ("RegisterScalableTarget", {"MinCapacity": 1, "MaxCapacity": 4, "ResourceId": "table/t"}),
        ("RegisterScalableTarget", {"MinCapacity": 1, "MaxCapacity": 4, "ServiceNamespace": "dynamodb"}),
        ("PutScalingPolicy", {"PolicyName": "q", "PolicyType": "StepScaling"}),
        (
            "PutScalingPolicy",
            {
                "PolicyName": "q",
                "TargetTrackingScalingPolicyConfiguration": {**TRACKING, "PredefinedMetricSpecification": {}},
            },
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(scaled, name, request_):
    with pytest.raises(ValidationException):
        call(scaled, name, **request_)


def test_a_new_target_needs_both_capacities(ctx):
    with pytest.raises(ValidationException, match="MaxCapacity is required"):
        call(ctx, "RegisterScalableTarget", MinCapacity=1)


@pytest.mark.parametrize(
    ("per_minute", "current", "scale_in", "wanted"),
    [(0, 2, True, 1), (100, 2, True, 1), (101, 1, True, 2), (399, 1, True, 4), (9000, 2, True, 4), (0, 3, False, 3)],
)
def test_instances_hold_the_target_within_the_capacity(per_minute, current, scale_in, wanted):
    target = {"MinCapacity": 1, "MaxCapacity": 4}
    policy = {"TargetTrackingScalingPolicyConfiguration": {**TRACKING, "DisableScaleIn": not scale_in}}
    assert wanted_instances(target, policy, current, per_minute) == wanted


def test_growing_waits_for_its_own_cooldown():
    body = {"TargetTrackingScalingPolicyConfiguration": TRACKING}
    policy = Resource("k", "n", "a", body, internal={"changed": 1000.0})
    assert [is_cool(policy, wanted, 2, 1100.0) for wanted in (3, 1)] == [True, False]
    assert is_cool(policy, 1, 2, 1300.0)


def test_a_look_gives_the_variant_what_its_invocations_ask_for(scaled, clock, monkeypatch):
    totals: Counter[tuple[str, str]] = Counter()
    endpoints = SimpleNamespace(metrics=SimpleNamespace(totals=totals))
    monkeypatch.setattr(scaled, "use", lambda kind: endpoints)
    asked: list[int] = []

    async def resize(ctx: Context, request: dict[str, Any]) -> None:
        asked.append(request["DesiredWeightsAndCapacities"][0]["DesiredInstanceCount"])

    monkeypatch.setattr(scaler, "update_endpoint_weights_and_capacities", resize)
    looking = scaler.Scaler(scaled)

    def look(invocations: int) -> None:
        totals["e", "v"] += invocations
        clock.now += 60
        [policy] = list(scaled.store.every("scaling-policy"))
        asyncio.run(looking._apply(policy, 60.0))

    totals["e", "v"] = 1_000_000  # before the first look: says nothing of this minute
    look(0)
    assert asked == [1]
    look(350)
    assert asked == [1, 4]
    look(0)
    assert asked == [1, 4], "scaling in has to wait for its cooldown"
    clock.now += 300
    look(0)
    assert asked == [1, 4, 1]
