"""Model, model package group and model package requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scones.aws.lineage import training_job_of_artifact
from scones.aws.naming import content_hash, sagemaker_name
from scones.aws.resources import vpc_config

APPROVED = "Approved"
PENDING = "PendingManualApproval"
REJECTED = "Rejected"
CONTENT_TYPES = ["image/png", "image/jpeg", "application/x-image"]
RESPONSE_TYPES = ["application/json", "application/jsonlines"]


class UnknownVersionError(ValueError):
    """No approved model package answers to the version that was asked for."""


def model_request(
    image: str, model_data_url: str, stack: Mapping[str, str], tags: list[dict[str, str]], prefix: str = "scones"
) -> dict[str, Any]:
    """Return a CreateModel request whose name is a hash of what runs, and in which network: the same has one name.

    Args:
        stack: the stack's outputs: SageMakerRoleArn, and SubnetIds and SecurityGroupIds if models run in a VPC.
    """
    network = vpc_config(stack)
    digest = content_hash([image, model_data_url, *([network] if network else [])])
    return {
        "ModelName": sagemaker_name(prefix, digest),
        "PrimaryContainer": {"Image": image, "ModelDataUrl": model_data_url},
        "ExecutionRoleArn": stack["SageMakerRoleArn"],
        "Tags": tags,
        **network,
    }


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the evaluation's headline numbers as metadata strings (absent ones left out)."""
    names = ("test_accuracy", "log_loss", "expected_calibration_error", "recommended_threshold", "images")
    return {name: str(evaluation[name]) for name in names if evaluation.get(name) is not None}


def model_package_request(
    *,
    group: str,
    image: str,
    model_data_url: str,
    evaluation_uri: str,
    statistics_uri: str,
    constraints_uri: str,
    metadata: Mapping[str, str],
    approval_status: str,
    sample_image_uri: str = "",
    instance_types: Sequence[str] = ("ml.m5.large", "ml.m5.xlarge", "ml.c5.xlarge"),
) -> dict[str, Any]:
    """Return a CreateModelPackage request with metrics, drift baselines and lineage.

    ``ClientToken`` is a hash of the artifact, so that AWS itself answers a repeated request with the first package.
    """
    job = training_job_of_artifact(model_data_url)
    request: dict[str, Any] = {
        "ModelPackageGroupName": group,
        "ModelPackageDescription": f"Trained by {job}",
        "InferenceSpecification": {
            "Containers": [{"Image": image, "ModelDataUrl": model_data_url}],
            "SupportedContentTypes": CONTENT_TYPES,
            "SupportedResponseMIMETypes": RESPONSE_TYPES,
            "SupportedRealtimeInferenceInstanceTypes": list(instance_types),
            "SupportedTransformInstanceTypes": list(instance_types),
        },
        "ModelApprovalStatus": approval_status,
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": evaluation_uri}},
            "ModelDataQuality": {
                "Statistics": {"ContentType": "application/json", "S3Uri": statistics_uri},
                "Constraints": {"ContentType": "application/json", "S3Uri": constraints_uri},
            },
        },
        "CustomerMetadataProperties": dict(metadata),
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "ClientToken": content_hash([group, model_data_url], length=32),
    }
    if sample_image_uri:
        request["SamplePayloadUrl"] = sample_image_uri
    return request


def artifact_of(package: Mapping[str, Any]) -> tuple[str, str]:
    """Return (image, model data address) of a described model package."""
    container = package["InferenceSpecification"]["Containers"][0]
    return container["Image"], container["ModelDataUrl"]


def choose_rollback_version(
    versions: Sequence[tuple[int, str, str]], live_artifact: str | None, wanted: int | None
) -> int:
    """Return the version number to go back to.

    Args:
        versions: (version, approval status, model data address), in any order.
        live_artifact: address of the model the endpoint serves now; None when there is no endpoint.
        wanted: a version number, or None for the newest approved one older than the live one.

    Raises:
        UnknownVersionError: there is no such version, or it is not approved; says which ones there are.
    """
    ordered = sorted(versions, reverse=True)
    approved = [number for number, status, _ in ordered if status == APPROVED]
    shown = ", ".join(map(str, approved)) or "none"
    if wanted is not None:
        if wanted not in {number for number, _, _ in ordered}:
            raise UnknownVersionError(f"There is no model version {wanted}. Approved versions: {shown}.")
        if wanted not in approved:
            raise UnknownVersionError(
                f"Model version {wanted} is not approved, so it is not deployed. Approved versions: {shown}."
            )
        return wanted
    live = next((number for number, _, artifact in ordered if artifact == live_artifact), None)
    older = [number for number in approved if live is None or number < live]
    if not older:
        serving = "no registered version" if live is None else f"version {live}"
        raise UnknownVersionError(
            f"There is no approved version to go back to: the endpoint serves {serving}, approved are: {shown}."
        )
    return older[0]
