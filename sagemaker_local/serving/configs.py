"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig."""

from __future__ import annotations

from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ValidationException, unsupported
from sagemaker_local.listing import list_resources
from sagemaker_local.models import find_model
from sagemaker_local.s3 import DataError, check_uri
from sagemaker_local.serving.capture import CaptureSettings
from sagemaker_local.serving.routing import LEAST_OUTSTANDING_REQUESTS, RANDOM
from sagemaker_local.serving.states import CONFIG, find_config
from sagemaker_local.store import AlreadyExists, Resource
from sagemaker_local.tags import tag_dict

_REFUSED = {
    "ExplainerConfig": "explanations (SageMaker Clarify)",
    "ShadowProductionVariants": "shadow variants",
}
_REFUSED_OF_VARIANT = {
    "InstancePools": "instance pools; give InstanceType and InitialInstanceCount",
    "AcceleratorType": "Elastic Inference accelerators",
    "CoreDumpConfig": "core dumps",
    "ManagedInstanceScaling": "managed instance scaling",
    "CapacityReservationConfig": "capacity reservations",
}


def create_endpoint_config(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """An endpoint config of instance-backed variants, with data capture."""
    tags = tag_dict(request.get("Tags"))
    for member, what in _REFUSED.items():
        if request.get(member):
            raise unsupported(member, what)
    metrics = request.get("MetricsConfig") or {}
    if metrics.get("EnableEnhancedMetrics") or metrics.get("EnableDetailedObservability"):
        raise unsupported("MetricsConfig", "enhanced metrics; the standard endpoint metrics are delivered")
    _check_variants(ctx, request["ProductionVariants"])
    asynchronous = request.get("AsyncInferenceConfig")
    if asynchronous and "S3OutputPath" not in asynchronous["OutputConfig"]:
        raise ValidationException("AsyncInferenceConfig.OutputConfig.S3OutputPath is required.")
    for member in ("S3OutputPath", "S3FailurePath"):
        if asynchronous and member in asynchronous["OutputConfig"]:
            check_uri(asynchronous["OutputConfig"][member], f"AsyncInferenceConfig.OutputConfig.{member}")
    if asynchronous and len(request["ProductionVariants"]) > 1:
        raise ValidationException("An asynchronous endpoint can have only one production variant.")
    capture = request.get("DataCaptureConfig")
    if (asynchronous or capture) and any("ServerlessConfig" in variant for variant in request["ProductionVariants"]):
        raise ValidationException("DataCaptureConfig and AsyncInferenceConfig do not go with serverless variants.")
    if capture:
        try:
            CaptureSettings.from_config({**capture, "EnableCapture": True})
        except DataError as error:
            raise ValidationException(f"DataCaptureConfig.DestinationS3Uri: {error}") from error
    name = request["EndpointConfigName"]
    arn = ctx.arn("endpoint-config", name.lower())
    body = {key: value for key, value in request.items() if key != "Tags"}
    body["ProductionVariants"] = [{"InitialVariantWeight": 1.0, **one} for one in request["ProductionVariants"]]
    if capture:
        body["DataCaptureConfig"] = {"EnableCapture": True, **capture}
    try:
        ctx.store.create(Resource(CONFIG, name, arn, body), tags)
    except AlreadyExists as error:
        raise ValidationException(f'Cannot create already existing endpoint configuration "{arn}".') from error
    return {"EndpointConfigArn": arn}


def describe_endpoint_config(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The config as it was created."""
    return _described(find_config(ctx, request["EndpointConfigName"]))


def list_endpoint_configs(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the configs, by name or time of creation."""
    configs, token = list_resources(ctx, CONFIG, request, _described)
    return {"EndpointConfigs": configs, "NextToken": token}


def delete_endpoint_config(ctx: Context, request: dict[str, Any]) -> None:
    """Removes the config, also one in use: as on AWS its endpoints go on, but it can no longer be described."""
    config = find_config(ctx, request["EndpointConfigName"])
    ctx.store.delete(CONFIG, config.name)


def _check_variants(ctx: Context, variants: list[dict[str, Any]]) -> None:
    names = [variant["VariantName"] for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ValidationException(f"Production variant names must be unique; {name} is given more than once.")
    for variant in variants:
        for member, what in _REFUSED_OF_VARIANT.items():
            if variant.get(member):
                raise unsupported(f"ProductionVariants.{member}", what)
        if "ModelName" not in variant:
            raise unsupported("ProductionVariants without ModelName", "inference components")
        _check_capacity(variant)
        strategy = (variant.get("RoutingConfig") or {}).get("RoutingStrategy", RANDOM)
        if strategy not in (RANDOM, LEAST_OUTSTANDING_REQUESTS):
            raise unsupported("RoutingConfig.RoutingStrategy", strategy)
        find_model(ctx, variant["ModelName"])


def _check_capacity(variant: dict[str, Any]) -> None:
    name, serverless = variant["VariantName"], variant.get("ServerlessConfig")
    for member in ("InstanceType", "InitialInstanceCount"):
        if (member in variant) == bool(serverless):
            need = "cannot be combined with ServerlessConfig" if serverless else "is required"
            raise ValidationException(f"{member} {need} for production variant {name}.")
    if serverless and serverless["MemorySizeInMB"] % 1024:
        raise ValidationException(f"MemorySizeInMB of production variant {name} must be a multiple of 1024.")
    if serverless and serverless.get("ProvisionedConcurrency", 0) > serverless["MaxConcurrency"]:
        raise ValidationException(f"ProvisionedConcurrency of production variant {name} exceeds its MaxConcurrency.")


def _described(config: Resource) -> dict[str, Any]:
    return {"EnableNetworkIsolation": False, **config.described("EndpointConfig")}


OPERATIONS = operations(create_endpoint_config, describe_endpoint_config, list_endpoint_configs, delete_endpoint_config)
