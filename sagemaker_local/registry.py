"""The model registry: groups of model packages, their versions, approval, metrics."""

from __future__ import annotations

from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ConflictException, ValidationException, unsupported
from sagemaker_local.listing import list_resources
from sagemaker_local.models import model_data_url
from sagemaker_local.store import AlreadyExists, Resource
from sagemaker_local.tags import tag_dict

GROUP = "model-package-group"
PACKAGE = "model-package"
_WORDS = {GROUP: "ModelPackageGroup", PACKAGE: "ModelPackage"}
_NOT_DESCRIBED = ("Tags", "ClientToken")


# --- groups ---


def create_model_package_group(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """A group that numbers the versions of one model."""
    tags = tag_dict(request.get("Tags"))
    name = request["ModelPackageGroupName"]
    arn = ctx.arn(GROUP, name.lower())
    body = {
        "ModelPackageGroupName": name,
        "ModelPackageGroupDescription": request.get("ModelPackageGroupDescription"),
        "ModelPackageGroupStatus": "Completed",
        "CreatedBy": {},
    }
    try:
        ctx.store.create(Resource(GROUP, name, arn, body, "Completed"), tags)
    except AlreadyExists as error:
        raise ValidationException(f"Model Package Group already exists: {arn}") from error
    return {"ModelPackageGroupArn": arn}


def describe_model_package_group(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The group, by name or ARN."""
    return group_description(_find(ctx, GROUP, request["ModelPackageGroupName"]))


def list_model_package_groups(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the groups by name or time."""
    if request.get("CrossAccountFilterOption") == "CrossAccount":
        return {"ModelPackageGroupSummaryList": []}
    groups, token = list_resources(ctx, GROUP, request, group_description, default_order="Ascending")
    return {"ModelPackageGroupSummaryList": groups, "NextToken": token}


def delete_model_package_group(ctx: Context, request: dict[str, Any]) -> None:
    """Removes an empty group; one with versions in it is refused."""
    with ctx.store.transaction():
        group = _find(ctx, GROUP, request["ModelPackageGroupName"])
        if ctx.store.count(PACKAGE, group.name):
            raise ConflictException(f"Model Package Group {group.arn} cannot be deleted: it contains model packages.")
        ctx.store.delete(GROUP, group.name)


# --- packages ---


def create_model_package(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """A numbered version in a group, or a named package; idempotent by ClientToken."""
    for member in ("ManagedStorageType", "ModelPackageRegistrationType"):
        if request.get(member) not in (None, "Registered"):
            raise unsupported(member, f"{request[member]}")
    grouped = "ModelPackageGroupName" in request
    if grouped == ("ModelPackageName" in request):
        raise ValidationException("Exactly one of ModelPackageName and ModelPackageGroupName must be provided.")
    if grouped and request.get("Tags"):
        raise ValidationException("Tags cannot be given for a version of a model package group, which has the group's.")
    tags = tag_dict(request.get("Tags"))
    _check_specification(request)
    body = {member: value for member, value in request.items() if member not in _NOT_DESCRIBED}
    status: dict[str, Any] = {"ValidationStatuses": [], "ImageScanStatuses": []}
    body.update(ModelPackageStatus="Completed", ModelPackageStatusDetails=status, CreatedBy={})
    token = request.get("ClientToken")
    with ctx.store.transaction():
        if token and (known := ctx.store.fact(f"package-token/{token}")) and ctx.store.by_arn(known):
            return {"ModelPackageArn": known}
        package = (_insert_version if grouped else _insert_named)(ctx, request, body, tags)
        if token:
            ctx.store.remember(f"package-token/{token}", package.arn)
    _announce(ctx, package)
    return {"ModelPackageArn": package.arn}


def describe_model_package(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The package with its specification, metrics, properties and approval, by ARN or name."""
    return package_description(_find(ctx, PACKAGE, request["ModelPackageName"]))


def package_description(package: Resource) -> dict[str, Any]:
    """The members that Describe answers."""
    return package.described("ModelPackage")


def list_model_packages(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the versions of a group or of all, or the packages without one, by approval, name or time."""
    kind = request.get("ModelPackageType", "Unversioned")
    parent, among = (None if kind == "Both" else ""), None
    if group := request.get("ModelPackageGroupName"):
        parent = _find(ctx, GROUP, group).name
    elif kind == "Versioned":
        parent, among = None, [row.name for row in ctx.store.every(PACKAGE) if row.parent]
    # The row's status column holds the approval, which is what this operation filters by.
    filters = {**request, "StatusEquals": request.get("ModelApprovalStatus")}
    packages, token = list_resources(
        ctx, PACKAGE, filters, package_description, parent=parent, among=among, default_order="Ascending"
    )
    return {"ModelPackageSummaryList": packages, "NextToken": token}


def update_model_package(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Approval (with an EventBridge event), customer properties, life cycle, card, source."""
    package = _find(ctx, PACKAGE, request["ModelPackageArn"])
    if request.get("InferenceSpecification"):
        _check_specification(request)
    before = package.status

    def change(row: Resource) -> None:
        _apply_update(row, request)

    changed = ctx.store.update(PACKAGE, package.name, change)
    if changed is None:
        raise ValidationException(f"ModelPackage {package.arn} does not exist.")
    if changed.status != before or "ModelLifeCycle" in request:
        _announce(ctx, changed)
    return {"ModelPackageArn": changed.arn}


def batch_describe_model_package(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Versions by their ARNs, at most 100; what is wrong with the others."""
    found, errors = {}, {}
    for arn in request["ModelPackageArnList"]:
        try:
            found[arn] = package_description(_find(ctx, PACKAGE, arn))
        except ValidationException as error:
            errors[arn] = {"ErrorCode": error.code, "ErrorResponse": error.message}
    versions = {arn: package for arn, package in found.items() if "ModelPackageGroupName" in package}
    for arn in found.keys() - versions.keys():
        errors[arn] = {"ErrorCode": "ValidationException", "ErrorResponse": f"{arn} is not a version of a group."}
    return {"ModelPackageSummaries": versions, "BatchDescribeModelPackageErrorMap": errors}


def delete_model_package(ctx: Context, request: dict[str, Any]) -> None:
    """Removes a package; its number is not given out again while later ones exist."""
    ctx.store.delete(PACKAGE, _find(ctx, PACKAGE, request["ModelPackageName"]).name)


def _insert_version(ctx: Context, request: dict[str, Any], body: dict[str, Any], tags: dict[str, str]) -> Resource:
    group = _find(ctx, GROUP, request["ModelPackageGroupName"])
    last = max(ctx.store.last_version(PACKAGE, group.name), int(group.internal.get("last_version", 0)))
    version = last + 1
    approval = request.get("ModelApprovalStatus", "PendingManualApproval")
    name = f"{group.name}/{version}"
    body.update(ModelPackageGroupName=group.name, ModelPackageVersion=version, ModelApprovalStatus=approval)
    arn = ctx.arn(PACKAGE, f"{group.name.lower()}/{version}")
    # The number is remembered with the group, so that a deleted last version's number does not come back.
    ctx.store.update(GROUP, group.name, lambda row: row.internal.update(last_version=version), touch=False)
    package = Resource(PACKAGE, name, arn, body, approval, parent=group.name, version=version)
    return ctx.store.create(package, tags)


def _insert_named(ctx: Context, request: dict[str, Any], body: dict[str, Any], tags: dict[str, str]) -> Resource:
    if "ModelApprovalStatus" in request:
        raise ValidationException("ModelApprovalStatus is only for versioned packages: give ModelPackageGroupName.")
    name = request["ModelPackageName"]
    arn = ctx.arn(PACKAGE, name.lower())
    body["ModelPackageName"] = name
    try:
        return ctx.store.create(Resource(PACKAGE, name, arn, body), tags)
    except AlreadyExists as error:
        raise ConflictException(f"Model Package already exists: {arn}") from error


def _apply_update(row: Resource, request: dict[str, Any]) -> None:
    if "ModelApprovalStatus" in request:
        if not row.parent:
            raise ValidationException("ModelApprovalStatus is only for versioned packages.")
        row.status = row.body["ModelApprovalStatus"] = request["ModelApprovalStatus"]
        row.body["LastModifiedBy"] = {}
    for member in (
        "ApprovalDescription",
        "InferenceSpecification",
        "SourceUri",
        "ModelCard",
        "ModelLifeCycle",
    ):
        if member in request:
            row.body[member] = request[member]
    properties = {**row.body.get("CustomerMetadataProperties", {}), **request.get("CustomerMetadataProperties", {})}
    for key in request.get("CustomerMetadataPropertiesToRemove", ()):
        properties.pop(key, None)
    if properties:
        row.body["CustomerMetadataProperties"] = properties
    else:
        row.body.pop("CustomerMetadataProperties", None)
    if added := request.get("AdditionalInferenceSpecificationsToAdd"):
        row.body["AdditionalInferenceSpecifications"] = [
            *row.body.get("AdditionalInferenceSpecifications", []),
            *added,
        ]


def _check_specification(request: dict[str, Any]) -> None:
    for container in (request.get("InferenceSpecification") or {}).get("Containers", ()):
        if "Image" not in container:
            raise ValidationException("Each container of an InferenceSpecification needs an Image.")
        model_data_url(container)


def _find(ctx: Context, kind: str, reference: str) -> Resource:
    """A group or a package by ARN or name.

    Raises:
        ValidationException: there is none; the message has AWS's words.
    """
    is_arn = reference.startswith("arn:")
    found = ctx.store.by_arn(reference) if is_arn else ctx.store.get(kind, reference)
    if found is None or found.kind != kind:
        arn = reference if is_arn else ctx.arn(kind, reference.lower())
        raise ValidationException(f"{_WORDS[kind]} {arn} does not exist.")
    return found


def _announce(ctx: Context, package: Resource) -> None:
    if not package.parent:
        return
    detail = {
        "ModelPackageName": package.name,
        "ModelPackageGroupName": package.parent,
        "ModelPackageVersion": package.version,
        "ModelPackageArn": package.arn,
        "ModelPackageDescription": package.body.get("ModelPackageDescription"),
        "CreationTime": package.created,
        "ModelPackageStatus": package.body["ModelPackageStatus"],
        "InferenceSpecification": package.body.get("InferenceSpecification"),
        "ModelApprovalStatus": package.status,
    }
    ctx.events.publish("SageMaker Model Package State Change", package.arn, detail)


def group_description(group: Resource) -> dict[str, Any]:
    """The members that Describe answers."""
    return group.described("ModelPackageGroup")


OPERATIONS = operations(
    create_model_package_group,
    describe_model_package_group,
    list_model_package_groups,
    delete_model_package_group,
    create_model_package,
    describe_model_package,
    batch_describe_model_package,
    list_model_packages,
    update_model_package,
    delete_model_package,
)
