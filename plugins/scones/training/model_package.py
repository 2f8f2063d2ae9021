"""Model, model package group and model package requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scones.aws.lineage import training_job_of_artifact
from scones.aws.naming import content_hash, sagemaker_name
from scones.aws.resources import vpc_config

MODEL_PACKAGE_GROUP = "scones-courier"
APPROVED = "Approved"
PENDING = "PendingManualApproval"
REJECTED = "Rejected"
# Metadata of a package: the person who approved it.
APPROVED_BY = "approved_by"
CONTENT_TYPES = ["image/png", "image/jpeg", "application/x-image"]
RESPONSE_TYPES = ["application/json", "application/jsonlines"]


class UnknownVersionError(ValueError):
    """No approved model package answers to the version that was asked for."""


def model_request(
    image: str, model_data_url: str, stack: Mapping[str, str], tags: list[dict[str, str]]
) -> dict[str, Any]:
    """Return a CreateModel request whose name is a hash of what runs, and in which network: the same has one name.

    Args:
        stack: the stack's outputs: SageMakerRoleArn, and SubnetIds and SecurityGroupIds if models run in a VPC.
    """
    network = vpc_config(stack)
    digest = content_hash([image, model_data_url, *([network] if network else [])])
    return {
        "ModelName": sagemaker_name("scones", digest),
        "PrimaryContainer": {"Image": image, "ModelDataUrl": model_data_url},
        "ExecutionRoleArn": stack["SageMakerRoleArn"],
        "Tags": tags,
        **network,
    }


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the evaluation's headline numbers as metadata strings (absent ones left out)."""
    names = ("test_accuracy", "log_loss", "expected_calibration_error", "recommended_threshold", "images")
    return {name: str(evaluation[name]) for name in names if evaluation.get(name) is not None}


@dataclass(frozen=True)
class PackageSpec:
    """What a version in the model registry is made of.

    Attributes:
        image, model_data_url: the container and the artifact of a training job.
        evaluation_uri: the evaluation's document.
        baseline_uri: folder of the training data's statistics.json and constraints.json.
        metadata: lineage and figures.
        approval_status: `APPROVED` or `PENDING`.
        group, instance_types: where it belongs, and what it may run on.
    """

    image: str
    model_data_url: str
    evaluation_uri: str
    baseline_uri: str
    metadata: Mapping[str, str]
    approval_status: str
    group: str = MODEL_PACKAGE_GROUP
    instance_types: tuple[str, ...] = ("ml.m5.large", "ml.m5.xlarge", "ml.c5.xlarge")


def model_package_request(spec: PackageSpec) -> dict[str, Any]:
    """Return a CreateModelPackage request with metrics, drift baselines and lineage.

    ``ClientToken`` is a hash of the artifact, so that AWS itself answers a repeated request with the first package.
    """

    def document(uri: str) -> dict[str, str]:
        return {"ContentType": "application/json", "S3Uri": uri}

    baseline = spec.baseline_uri.rstrip("/")
    return {
        "ModelPackageGroupName": spec.group,
        "ModelPackageDescription": f"Trained by {training_job_of_artifact(spec.model_data_url)}",
        "InferenceSpecification": {
            "Containers": [{"Image": spec.image, "ModelDataUrl": spec.model_data_url}],
            "SupportedContentTypes": CONTENT_TYPES,
            "SupportedResponseMIMETypes": RESPONSE_TYPES,
            "SupportedRealtimeInferenceInstanceTypes": list(spec.instance_types),
            "SupportedTransformInstanceTypes": list(spec.instance_types),
        },
        "ModelApprovalStatus": spec.approval_status,
        "ModelMetrics": {
            "ModelQuality": {"Statistics": document(spec.evaluation_uri)},
            "ModelDataQuality": {
                "Statistics": document(f"{baseline}/statistics.json"),
                "Constraints": document(f"{baseline}/constraints.json"),
            },
        },
        "CustomerMetadataProperties": dict(spec.metadata),
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "ClientToken": content_hash([spec.group, spec.model_data_url], length=32),
    }


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
