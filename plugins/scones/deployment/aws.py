"""What a deployment asks AWS for: its autoscaling, its answers, and the inventory of what costs money."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from scones.aws import layout
from scones.aws.lineage import PROJECT_TAG
from scones.aws.resources import client
from scones.aws.sagemaker import models_of
from scones.deployment.cleanup_plan import Config, Endpoint, Folder, Inventory, Model
from scones.deployment.endpoint import VARIANT, ScalingPolicy
from scones.evaluation.store import EvaluationStore
from scones.training.costs import monthly_cost
from scones.training.model_package import MODEL_PACKAGE_GROUP, artifact_of
from scones.training.registry import ModelRegistryHook
from scones.training.served import container_of

_NO_SUCH_SERVICE = frozenset({"InvalidAction", "UnknownOperationException", "NotImplemented", "400"})
_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
# So long CloudWatch keeps a metric.
_METRICS_KEPT_DAYS = 455


@dataclass(frozen=True)
class DeploymentAws:
    """What the tasks around an endpoint ask, all through one Airflow connection; tests pass their own.

    Attributes:
        store: the project's bucket.
        sagemaker: endpoints, their configs and models, and the registry.
        client: a boto3 client of a service, by its name.
    """

    store: EvaluationStore
    sagemaker: ModelRegistryHook
    client: Callable[[str], Any] = client

    @classmethod
    def connect(cls, bucket: str) -> DeploymentAws:
        """Connect through Airflow's AWS connection."""
        return cls(EvaluationStore(bucket), ModelRegistryHook())


# ---- autoscaling: target tracking on invocations per instance


def _target(endpoint_name: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint_name}/variant/{VARIANT}",
        "ScalableDimension": _DIMENSION,
    }


def register(endpoint_name: str, policy: ScalingPolicy, scaling: Any) -> None:
    """Register the variant and its policy with Application Auto Scaling; repeating it changes nothing."""
    target = _target(endpoint_name)
    scaling.register_scalable_target(**target, MinCapacity=policy.min_capacity, MaxCapacity=policy.max_capacity)
    scaling.put_scaling_policy(
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


def deregister(endpoint_name: str, scaling: Any) -> ScalingPolicy | None:
    """Deregister the variant, if it is registered, and return how far it could scale.

    SageMaker changes no instance type under a scaling target, and deletes no endpoint cleanly.
    """
    target = _target(endpoint_name)
    try:
        found = scaling.describe_scalable_targets(
            ServiceNamespace=target["ServiceNamespace"], ResourceIds=[target["ResourceId"]]
        )["ScalableTargets"]
    except ClientError as error:
        # Where the service does not exist nothing is registered (a stand-in that lacks it answers a bare 400, without a
        # code); anything else is a real fault.
        if error.response["Error"]["Code"] in _NO_SUCH_SERVICE:
            return None
        raise
    if not found:
        return None
    scaling.deregister_scalable_target(**target)
    return ScalingPolicy(found[0]["MinCapacity"], found[0]["MaxCapacity"])


# ---- inventory


def take_inventory(aws: DeploymentAws, *, now: datetime, traffic_days: float) -> Inventory:
    """Return what there is. Only what carries the project's tag counts as ours.

    Args:
        traffic_days: an endpoint without requests in this many days counts as unused.
    """
    hook, store, cloudwatch = aws.sagemaker, aws.store, aws.client("cloudwatch")
    configs = {
        item["EndpointConfigName"]: found
        for item in hook.pages("list_endpoint_configs", "EndpointConfigs")
        if (found := hook.endpoint_config(item["EndpointConfigName"])) is not None
    }
    models = [
        found for item in hook.pages("list_models", "Models") if (found := hook.model(item["ModelName"])) is not None
    ]
    artifacts = {container_of(model).get("ModelDataUrl", "") for model in models}
    registered = {artifact_of(package)[1] for package in hook.packages(MODEL_PACKAGE_GROUP)}
    endpoints = [
        _endpoint(hook, item["EndpointName"], configs, cloudwatch, now, traffic_days)
        for item in hook.pages("list_endpoints", "Endpoints")
    ]
    return Inventory(
        endpoints=[endpoint for endpoint in endpoints if endpoint is not None],
        configs=[
            Config(
                name,
                tuple(models_of(config)),
                config["CreationTime"],
                is_ours(hook, config.get("EndpointConfigArn")),
            )
            for name, config in configs.items()
        ],
        models=[
            Model(
                model["ModelName"],
                container_of(model).get("ModelDataUrl", ""),
                model["CreationTime"],
                is_ours(hook, model.get("ModelArn")),
            )
            for model in models
        ],
        folders=[*_training_folders(store, artifacts, registered), *_capture_folders(store)],
    )


def is_ours(hook: ModelRegistryHook, arn: str | None) -> bool:
    """Return whether a resource carries the project's tag."""
    return PROJECT_TAG in hook.tags_of(arn)


def _endpoint(
    hook: ModelRegistryHook, name: str, configs: dict[str, Any], cloudwatch: Any, now: datetime, days: float
) -> Endpoint | None:
    description = hook.endpoint(name)
    if description is None:
        return None
    serving = configs.get(description.get("EndpointConfigName", ""))
    pending = (description.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", "")
    used = tuple(config for config in (description.get("EndpointConfigName", ""), pending) if config)
    variants = [variant for config in used for variant in configs.get(config, {}).get("ProductionVariants", [])]
    return Endpoint(
        name=name,
        configs=used,
        created=description["CreationTime"],
        invocations=_invocations(cloudwatch, name, [v["VariantName"] for v in variants] or [VARIANT], now, days),
        monthly_usd=monthly_cost(description, serving) if serving else None,
        ours=is_ours(hook, description["EndpointArn"]),
    )


def _invocations(cloudwatch: Any, endpoint: str, variants: Iterable[str], now: datetime, days: float) -> float:
    total = 0.0
    if days <= 0:
        return total  # CloudWatch takes no window without length, and nothing happened in it
    for variant in set(variants):
        answer = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}],
            StartTime=now - timedelta(days=min(days, _METRICS_KEPT_DAYS)),
            EndTime=now,
            Period=86400,
            Statistics=["Sum"],
        )
        total += sum(point["Sum"] for point in answer["Datapoints"])
    return total


def _grouped(store: EvaluationStore, prefix: str, depth: int) -> dict[str, Folder]:
    """Sum up objects under ``prefix`` by their first ``depth`` path parts."""
    folders: dict[str, Folder] = {}
    for item in store.objects(prefix):
        parts = item["Key"].split("/")
        if len(parts) > depth:
            name = "/".join(parts[:depth]) + "/"
            one = Folder(name, 1, item["Size"], item["LastModified"])
            folders[name] = folders[name].joined(one) if name in folders else one
    return folders


def _training_folders(store: EvaluationStore, artifacts: set[str], registered: set[str]) -> list[Folder]:
    """Outputs of training jobs: kept while a model or a registered version needs the artifact."""
    folders = []
    for name, folder in _grouped(store, layout.TRAINING, 2).items():
        if name == layout.FINGERPRINTS:
            continue
        artifact = f"s3://{store.bucket}/{name}output/model.tar.gz"
        why = "a registered version" if artifact in registered else "a model" if artifact in artifacts else ""
        folders.append(replace(folder, why_kept=why and f"{why} needs it"))
    return folders


def _capture_folders(store: EvaluationStore) -> list[Folder]:
    """Captures by day: capture/<endpoint>/<variant>/yyyy/mm/dd/."""
    return list(_grouped(store, layout.CAPTURE, 6).values())
