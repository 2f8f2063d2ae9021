"""Application Auto Scaling through boto3: a variant grows under load and shrinks without it."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError


def test_a_variant_grows_with_its_invocations_and_shrinks_again(new_serving: Any, until: Any) -> None:
    serving = new_serving({"SAGEMAKER_LOCAL_SCALING_PERIOD": "1"})
    name = serving.in_service(serving.config(serving.model()))
    scaling = boto3.client("application-autoscaling", endpoint_url=serving.service.url, region_name="us-east-1")
    where = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**where, MinCapacity=1, MaxCapacity=2)
    scaling.put_scaling_policy(
        **where,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 60.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            "ScaleOutCooldown": 0,
            "ScaleInCooldown": 0,
        },
    )

    def instances() -> int:
        return int(serving.describe(name)["ProductionVariants"][0]["CurrentInstanceCount"])

    def busy() -> bool:
        for _ in range(10):
            serving.invoke(name)
        return instances() == 2

    until(busy, "a second instance is there")
    until(lambda: instances() == 1, "without invocations there is one again")
    # The count falls while the change is still under way, in which nothing may be deleted.
    serving.settled(name)
    larger = serving.config(serving.model(), kind="ml.m5.xlarge")
    with pytest.raises(ClientError, match="DeregisterScalableTarget before you change its instance type"):
        serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=larger)
    scaling.deregister_scalable_target(**where)
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=larger)
    serving.settled(name)
    with pytest.raises(ClientError, match="No scalable target"):
        scaling.deregister_scalable_target(**where)
    serving.delete(name)
