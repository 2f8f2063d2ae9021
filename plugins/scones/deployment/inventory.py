"""Looking around for what costs money: endpoints, configs, models, and the objects in the bucket."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from scones.aws.lineage import PROJECT_TAG
from scones.aws.store import ObjectStore
from scones.defaults import AWS_CONN_ID, MODEL_PACKAGE_GROUP
from scones.deployment.cleanup_plan import Config, Endpoint, Folder, Inventory, Model
from scones.deployment.endpoint import VARIANT
from scones.training.registry import ModelRegistryHook


def take_inventory(
    *,
    bucket: str,
    endpoint_name: str,
    now: datetime,
    traffic_days: float,
    hook: ModelRegistryHook | None = None,
    store: ObjectStore | None = None,
    cloudwatch: Any = None,
) -> Inventory:
    """Return what there is. Only what carries the project's tag counts as ours.

    Args:
        endpoint_name: the production endpoint, which is protected.
        traffic_days: an endpoint without requests in this many days counts as unused.
    """
    hook = hook or ModelRegistryHook()
    store = store or ObjectStore(bucket)
    cloudwatch = cloudwatch or AwsBaseHook(aws_conn_id=AWS_CONN_ID, client_type="cloudwatch").conn
    configs = {
        item["EndpointConfigName"]: found
        for item in hook.pages("list_endpoint_configs", "EndpointConfigs")
        if (found := hook.endpoint_config(item["EndpointConfigName"])) is not None
    }
    models = [
        found for item in hook.pages("list_models", "Models") if (found := hook.model(item["ModelName"])) is not None
    ]
    artifacts = {model["PrimaryContainer"].get("ModelDataUrl", "") for model in models if "PrimaryContainer" in model}
    registered = {
        package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        for package in hook.packages(MODEL_PACKAGE_GROUP)
    }
    endpoints = [
        _endpoint(hook, item["EndpointName"], configs, cloudwatch, now, traffic_days)
        for item in hook.pages("list_endpoints", "Endpoints")
    ]
    return Inventory(
        endpoints=[endpoint for endpoint in endpoints if endpoint is not None],
        configs=[
            Config(
                name,
                tuple(variant["ModelName"] for variant in config["ProductionVariants"]),
                config["CreationTime"],
                is_ours(hook, config.get("EndpointConfigArn", "")),
            )
            for name, config in configs.items()
        ],
        models=[
            Model(
                model["ModelName"],
                model.get("PrimaryContainer", {}).get("ModelDataUrl", ""),
                model["CreationTime"],
                is_ours(hook, model.get("ModelArn", "")),
            )
            for model in models
        ],
        folders=[*_training_folders(store, artifacts, registered), *_capture_folders(store)],
        protected=frozenset({endpoint_name}),
    )


def is_ours(hook: ModelRegistryHook, arn: str) -> bool:
    """Return whether a resource carries the project's tag."""
    if not arn:
        return False
    tags = hook.conn.list_tags(ResourceArn=arn)["Tags"]
    return any(tag["Key"] == PROJECT_TAG for tag in tags)


def _endpoint(
    hook: ModelRegistryHook, name: str, configs: dict[str, Any], cloudwatch: Any, now: datetime, days: float
) -> Endpoint | None:
    description = hook.endpoint(name)
    if description is None:
        return None
    pending = (description.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", "")
    used = tuple(config for config in (description.get("EndpointConfigName", ""), pending) if config)
    variants = [variant for config in used for variant in configs.get(config, {}).get("ProductionVariants", [])]
    return Endpoint(
        name=name,
        configs=used,
        created=description["CreationTime"],
        invocations=_invocations(cloudwatch, name, [v["VariantName"] for v in variants] or [VARIANT], now, days),
        instances=tuple((v.get("InstanceType", ""), int(v.get("InitialInstanceCount", 0))) for v in variants),
        ours=is_ours(hook, description["EndpointArn"]),
    )


def _invocations(cloudwatch: Any, endpoint: str, variants: Iterable[str], now: datetime, days: float) -> float:
    total = 0.0
    for variant in set(variants):
        answer = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}],
            StartTime=now - timedelta(days=days),
            EndTime=now,
            Period=86400,
            Statistics=["Sum"],
        )
        total += sum(point["Sum"] for point in answer["Datapoints"])
    return total


def _grouped(store: ObjectStore, prefix: str, depth: int) -> dict[str, Folder]:
    """Sum up objects under ``prefix`` by their first ``depth`` path parts."""
    folders: dict[str, Folder] = {}
    for item in store.objects(prefix):
        parts = item["Key"].split("/")
        name = "/".join(parts[:depth]) + "/"
        if len(parts) <= depth:
            continue
        seen = folders.get(name, Folder(name, 0, 0, item["LastModified"]))
        folders[name] = Folder(
            name, seen.keys + 1, seen.size_bytes + item["Size"], max(seen.newest, item["LastModified"])
        )
    return folders


def _training_folders(store: ObjectStore, artifacts: set[str], registered: set[str]) -> list[Folder]:
    """Outputs of training jobs: kept while a model or a registered version needs the artifact."""
    folders = []
    for name, folder in _grouped(store, "training/", 2).items():
        if name == "training/fingerprints/":
            continue
        artifact = f"s3://{store.bucket}/{name}output/model.tar.gz"
        why = "a registered version needs it" if artifact in registered else ""
        why = why or ("a model needs it" if artifact in artifacts else "")
        folders.append(Folder(name, folder.keys, folder.size_bytes, folder.newest, why))
    return folders


def _capture_folders(store: ObjectStore) -> list[Folder]:
    """Captures by day: capture/<endpoint>/<variant>/yyyy/mm/dd/."""
    return list(_grouped(store, "capture/", 6).values())
