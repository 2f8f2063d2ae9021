"""Application Auto Scaling of an endpoint's variant: target tracking on invocations per instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.exceptions import ClientError

from scones.defaults import AWS_CONN_ID
from scones.deployment.endpoint import VARIANT

_NO_SUCH_SERVICE = frozenset({"InvalidAction", "UnknownOperationException", "NotImplemented", "400"})
_DIMENSION = "sagemaker:variant:DesiredInstanceCount"


@dataclass(frozen=True)
class ScalingPolicy:
    """How far an endpoint may scale.

    Attributes:
        min_capacity: fewest instances.
        max_capacity: most instances; at or below ``min_capacity`` means no autoscaling.
        invocations_per_instance: invocations per instance and minute to hold.
    """

    min_capacity: int
    max_capacity: int
    invocations_per_instance: int = 1000

    @property
    def wanted(self) -> bool:
        """Whether there is anything to scale."""
        return self.max_capacity > self.min_capacity


def _target(endpoint_name: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint_name}/variant/{VARIANT}",
        "ScalableDimension": _DIMENSION,
    }


def _client(aws_conn_id: str | None) -> Any:
    return AwsBaseHook(aws_conn_id=aws_conn_id, client_type="application-autoscaling").conn


def register(
    endpoint_name: str, policy: ScalingPolicy, aws_conn_id: str | None = AWS_CONN_ID, client: Any = None
) -> None:
    """Register the variant and its policy; repeating it changes nothing."""
    client = client or _client(aws_conn_id)
    target = _target(endpoint_name)
    client.register_scalable_target(**target, MinCapacity=policy.min_capacity, MaxCapacity=policy.max_capacity)
    client.put_scaling_policy(
        **target,
        PolicyName="scones-invocations-per-instance",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": float(policy.invocations_per_instance),
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance",
            },
            "ScaleInCooldown": 300,
            "ScaleOutCooldown": 60,
        },
    )


def deregister(endpoint_name: str, aws_conn_id: str | None = AWS_CONN_ID, client: Any = None) -> bool:
    """Deregister the variant, if it is registered: an endpoint with a scaling target cannot be deleted cleanly.

    Returns whether there was a target.
    """
    client = client or _client(aws_conn_id)
    target = _target(endpoint_name)
    try:
        found = client.describe_scalable_targets(
            ServiceNamespace=target["ServiceNamespace"], ResourceIds=[target["ResourceId"]]
        )["ScalableTargets"]
    except ClientError as error:
        # Where the service does not exist nothing is registered (a stand-in that lacks it answers a bare 400, without a
        # code); anything else is a real fault.
        if error.response["Error"]["Code"] in _NO_SUCH_SERVICE:
            return False
        raise
    if not found:
        return False
    client.deregister_scalable_target(**target)
    return True
