"""CreateModel, DescribeModel, ListModels, DeleteModel."""

from __future__ import annotations

from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ValidationException, unsupported
from sagemaker_local.listing import list_resources
from sagemaker_local.s3 import check_uri
from sagemaker_local.store import AlreadyExists, Resource
from sagemaker_local.tags import tag_dict

KIND = "model"


def create_model(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """A model of one container, given as image and artifact or as a model package."""
    tags = tag_dict(request.get("Tags"))
    containers = request.get("Containers") or []
    if containers and "PrimaryContainer" in request:
        raise ValidationException("You cannot provide both PrimaryContainer and Containers.")
    if len(containers) > 1:
        raise unsupported("Containers", "an inference pipeline or a model of several containers")
    primary = request.get("PrimaryContainer") or (containers[0] if containers else None)
    if primary is None:
        raise ValidationException("One of PrimaryContainer or Containers is required.")
    if primary.get("Mode") == "MultiModel":
        raise unsupported("Mode", "multi-model endpoints")
    container = resolve_container(ctx, primary)
    name = request["ModelName"]
    body = {
        "ModelName": name,
        "ExecutionRoleArn": request.get("ExecutionRoleArn"),
        "VpcConfig": request.get("VpcConfig"),
        "EnableNetworkIsolation": request.get("EnableNetworkIsolation", False),
    }
    if containers:
        body["Containers"] = [primary]
    else:
        body["PrimaryContainer"] = {"Mode": "SingleModel", **primary}
    arn = ctx.arn("model", name.lower())
    try:
        ctx.store.create(Resource(KIND, name, arn, body, "Available", {"container": container}), tags)
    except AlreadyExists as error:
        raise ValidationException(f'Cannot create already existing model "{arn}".') from error
    return {"ModelArn": arn}


def describe_model(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The model as it was created."""
    return _described(find_model(ctx, request["ModelName"]))


def list_models(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the models, by name or time of creation."""
    models, token = list_resources(ctx, KIND, request, _described)
    return {"Models": models, "NextToken": token}


def delete_model(ctx: Context, request: dict[str, Any]) -> None:
    """Removes the model; its artifact in S3 stays, and so do endpoints that serve it, as on AWS."""
    model = find_model(ctx, request["ModelName"])
    ctx.store.delete(KIND, model.name)


def find_model(ctx: Context, name: str) -> Resource:
    """The stored model. `internal["container"]` holds what to run: Image, ModelDataUrl, Environment.

    Raises:
        ValidationException: there is none of that name; the message has AWS's words.
    """
    model = ctx.store.get(KIND, name)
    if model is None:
        raise ValidationException(f'Could not find model "{ctx.arn("model", name.lower())}".')
    return model


def resolve_container(ctx: Context, definition: dict[str, Any]) -> dict[str, Any]:
    """What a ContainerDefinition runs, through its model package if it names one.

    The result has `Image`, `ModelDataUrl` (or None) and `Environment`.

    Whether the image has a command here is asked by what would run it.

    Raises:
        ValidationException: the package is unknown or has no containers, there is no image, or the artifact is
            uncompressed or not in S3.
    """
    environment = definition.get("Environment") or {}
    if package_name := definition.get("ModelPackageName"):
        package = ctx.store.by_arn(package_name) or ctx.store.get("model-package", package_name)
        if package is None or package.kind != "model-package":
            raise ValidationException(f"ModelPackage {package_name} does not exist.")
        containers = (package.body.get("InferenceSpecification") or {}).get("Containers") or []
        if not containers:
            raise ValidationException(f"ModelPackage {package_name} has no InferenceSpecification.")
        source = containers[0]
        environment = {**(source.get("Environment") or {}), **environment}
    else:
        source = definition
    if "Image" not in source:
        raise ValidationException("Either Image or ModelPackageName must be given for a container.")
    artifact = model_data_url(source)
    if artifact is not None:
        check_uri(artifact, "ModelDataUrl")
    return {"Image": source["Image"], "ModelDataUrl": artifact, "Environment": environment}


def model_data_url(container: dict[str, Any]) -> str | None:
    """Where a container's artifact lies: ModelDataUrl, or a gzipped ModelDataSource. Refuses uncompressed ones."""
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source is None:
        return container.get("ModelDataUrl")
    if source["CompressionType"] != "Gzip":
        raise unsupported("ModelDataSource.S3DataSource.CompressionType", f"{source['CompressionType']}, only Gzip")
    return str(source["S3Uri"])


def _described(model: Resource) -> dict[str, Any]:
    return model.described("Model")


OPERATIONS = operations(create_model, describe_model, list_models, delete_model)
