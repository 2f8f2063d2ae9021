"""The operations on endpoints: create, describe, list, update, resize and delete."""

from __future__ import annotations

import asyncio
from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ResourceLimitExceeded, ValidationException
from sagemaker_local.listing import list_resources
from sagemaker_local.models import find_model
from sagemaker_local.serving import deployment, states
from sagemaker_local.serving.controller import Endpoints
from sagemaker_local.serving.describe import describe
from sagemaker_local.serving.specs import FleetSpec, VariantSpec, new_fleet_id
from sagemaker_local.store import AlreadyExists, Resource
from sagemaker_local.tags import tag_dict


async def create_endpoint(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """An endpoint; Creating until every instance of every variant passes its health check, else Failed."""
    endpoint = await asyncio.to_thread(_create, ctx, request)
    _announced(ctx, endpoint).begin_create(endpoint.name)
    return {"EndpointArn": endpoint.arn}


async def describe_endpoint(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Status, variants as they run, data capture, and the deployment under way."""
    endpoint = await asyncio.to_thread(states.find_endpoint, ctx, request["EndpointName"])
    return description(ctx, endpoint)


def list_endpoints(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the endpoints, by name, status or time of creation."""
    endpoints, token = list_resources(ctx, states.ENDPOINT, request, _summary)
    return {"Endpoints": endpoints, "NextToken": token}


async def update_endpoint(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Deploys another config, blue/green or rolling; what can't start or rings an alarm is rolled back."""
    endpoint = await asyncio.to_thread(_update, ctx, request)
    _announced(ctx, endpoint).begin_update(endpoint.name)
    return {"EndpointArn": endpoint.arn}


async def update_endpoint_weights_and_capacities(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Other traffic weights and instance counts for the variants that run."""
    endpoint = await asyncio.to_thread(_resize, ctx, request)
    _announced(ctx, endpoint).begin_update(endpoint.name)
    return {"EndpointArn": endpoint.arn}


async def delete_endpoint(ctx: Context, request: dict[str, Any]) -> None:
    """Ends the endpoint: invocations under way are answered, captures delivered, then it is gone."""
    endpoint = await asyncio.to_thread(_delete, ctx, request)
    _announced(ctx, endpoint).begin_delete(endpoint.name)


def description(ctx: Context, endpoint: Resource) -> dict[str, Any]:
    """The members that Describe answers."""
    return describe(endpoint, ctx.use(Endpoints).live.get(endpoint.name))


def _announced(ctx: Context, endpoint: Resource) -> Endpoints:
    endpoints = ctx.use(Endpoints)
    endpoints.announce(endpoint)
    return endpoints


def _create(ctx: Context, request: dict[str, Any]) -> Resource:
    name, chosen = request["EndpointName"], request.get("DeploymentConfig")
    tags = tag_dict(request.get("Tags"))
    arn = ctx.arn("endpoint", name.lower())
    if ctx.store.get(states.ENDPOINT, name) is not None:  # before all else: the provider's operator depends on it
        raise _already_exists(arn)
    _check_deployment(chosen)
    fleet = _resolve(ctx, request["EndpointConfigName"])
    pending = {"kind": "deploy", "fleet": fleet.as_dict(), "deployment": chosen}
    body = {"EndpointName": name, "EndpointConfigName": fleet.config_name}
    try:
        return ctx.store.create(Resource(states.ENDPOINT, name, arn, body, states.CREATING, {"pending": pending}), tags)
    except AlreadyExists as error:
        raise _already_exists(arn) from error


def _update(ctx: Context, request: dict[str, Any]) -> Resource:
    endpoint = states.find_endpoint(ctx, request["EndpointName"])
    states.require_in_service(endpoint)
    chosen = request.get("DeploymentConfig")
    if chosen is None and request.get("RetainDeploymentConfig"):
        chosen = endpoint.body.get("LastDeploymentConfig")
    _check_deployment(chosen)
    fleet = _resolve(ctx, request["EndpointConfigName"])
    excluded = frozenset(one["VariantPropertyType"] for one in request.get("ExcludeRetainedVariantProperties") or ())
    if excluded and not request.get("RetainAllVariantProperties"):
        raise ValidationException(
            "ExcludeRetainedVariantProperties can only be given together with RetainAllVariantProperties."
        )

    def change(record: Resource) -> None:
        states.require_in_service(record)
        current = FleetSpec.from_dict(record.internal["current"])
        wanted = fleet.retaining(current, excluded) if request.get("RetainAllVariantProperties") else fleet
        _check_scaled(ctx, current, wanted, endpoint.name)
        record.status = states.UPDATING
        record.body.pop("FailureReason", None)
        record.internal["pending"] = {
            "kind": "deploy",
            "fleet": wanted.as_dict(),
            "deployment": chosen,
            "since": ctx.now(),
        }

    return _changed(ctx, endpoint.name, change)


def _check_scaled(ctx: Context, old: FleetSpec, new: FleetSpec, endpoint: str) -> None:
    """Raise `ValidationException` where a variant that is a scalable target goes, or changes its instance type."""
    before, after = ({one.name: one.instance_type for one in fleet.variants} for fleet in (old, new))
    for target in ctx.store.children(states.SCALABLE_TARGET, endpoint):
        variant = target.name.rpartition("/")[2]
        if variant in before and after.get(variant) != before[variant]:
            raise ValidationException(
                f'The variant "{variant}" of endpoint "{endpoint}" is a scalable target of Application Auto Scaling: '
                "call DeregisterScalableTarget before you change its instance type or remove it."
            )


def _resize(ctx: Context, request: dict[str, Any]) -> Resource:
    endpoint = states.find_endpoint(ctx, request["EndpointName"])
    _check_wanted(request["DesiredWeightsAndCapacities"])

    def change(record: Resource) -> None:
        states.require_in_service(record)
        current = FleetSpec.from_dict(record.internal["current"])
        try:
            resized = current.with_desired(request["DesiredWeightsAndCapacities"])
        except KeyError as error:
            raise ValidationException(
                f'Could not find production variant "{error.args[0]}" of endpoint "{record.arn}".'
            ) from error
        except ValueError as error:
            name, member = error.args
            raise ValidationException(f"{member} does not apply to production variant {name}.") from error
        if not resized.async_inference and not all(variant.instance_count for variant in resized.variants):
            raise ValidationException("DesiredInstanceCount must be at least 1 for a variant of a real-time endpoint.")
        _check_quota(ctx, resized)
        record.status = states.UPDATING
        record.body.pop("FailureReason", None)
        record.internal["pending"] = {"kind": "resize", "fleet": resized.as_dict(), "since": ctx.now()}

    return _changed(ctx, endpoint.name, change)


def _check_wanted(changes: list[dict[str, Any]]) -> None:
    names = [wanted["VariantName"] for wanted in changes]
    for wanted in changes:
        name = wanted["VariantName"]
        if names.count(name) > 1:
            raise ValidationException(f"Production variant {name} is given more than once.")
        if not wanted.keys() & {"DesiredWeight", "DesiredInstanceCount", "ServerlessUpdateConfig"}:
            raise ValidationException(f"DesiredWeight or DesiredInstanceCount is required for variant {name}.")


def _delete(ctx: Context, request: dict[str, Any]) -> Resource:
    name = states.find_endpoint(ctx, request["EndpointName"]).name

    def change(record: Resource) -> None:
        states.require_settled(record)
        record.status = states.DELETING

    return _changed(ctx, name, change)


def _changed(ctx: Context, name: str, change: Any) -> Resource:
    endpoint = ctx.store.update(states.ENDPOINT, name, change)
    if endpoint is None:
        raise states.no_endpoint(ctx, name)
    return endpoint


def _resolve(ctx: Context, config_name: str) -> FleetSpec:
    config = states.find_config(ctx, config_name)
    variants = tuple(
        VariantSpec.resolve(variant, find_model(ctx, variant["ModelName"]).internal["container"])
        for variant in config.body["ProductionVariants"]
    )
    fleet = FleetSpec(
        id=new_fleet_id(),
        config_name=config.name,
        created=ctx.now(),
        variants=variants,
        data_capture=config.body.get("DataCaptureConfig"),
        async_inference=config.body.get("AsyncInferenceConfig"),
    )
    for variant in variants:
        ctx.images.find(variant.image)
    _check_quota(ctx, fleet)
    return fleet


def _check_quota(ctx: Context, fleet: FleetSpec) -> None:
    limit = ctx.use(Endpoints).settings.max_instances
    if fleet.instances > limit:
        kind = fleet.variants[0].instance_type
        raise ResourceLimitExceeded(
            f"The account-level service limit '{kind} for endpoint usage' is {limit} Instances, with a request delta "
            f"of {fleet.instances} Instances. Set SAGEMAKER_LOCAL_MAX_INSTANCES to allow more of them here."
        )


def _check_deployment(config: dict[str, Any] | None) -> None:
    try:
        deployment.validate(config)
    except ValueError as error:
        raise ValidationException(str(error)) from error


def _already_exists(arn: str) -> ValidationException:
    return ValidationException(f'Cannot create already existing endpoint "{arn}".')


def _summary(endpoint: Resource) -> dict[str, Any]:
    return {**endpoint.described("Endpoint"), "EndpointStatus": endpoint.status}


OPERATIONS = operations(
    create_endpoint,
    describe_endpoint,
    list_endpoints,
    update_endpoint,
    update_endpoint_weights_and_capacities,
    delete_endpoint,
)
