"""What a fleet runs, resolved once from its endpoint config and models, and kept with the endpoint.

Kept whole because an endpoint goes on serving when its config or its models are deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sagemaker_local.serving.capture import CaptureSettings
from sagemaker_local.serving.routing import RANDOM


@dataclass(frozen=True)
class VariantSpec:
    """One production variant as it is to run. Timeouts in seconds; None means the service's default.

    `instance_count` and `weight` are the desired ones: UpdateEndpointWeightsAndCapacities changes them. A variant with
    `serverless` (its ServerlessConfig) has one instance.
    """

    name: str
    model_name: str
    image: str
    model_data_url: str | None
    environment: dict[str, str]
    instance_type: str
    instance_count: int
    weight: float
    strategy: str = RANDOM
    startup_timeout: float | None = None
    serverless: dict[str, int] | None = None

    @classmethod
    def resolve(cls, variant: Mapping[str, Any], container: Mapping[str, Any]) -> VariantSpec:
        """From a ProductionVariant and its model's container (Image, ModelDataUrl, Environment)."""
        return cls(
            name=variant["VariantName"],
            model_name=variant["ModelName"],
            image=container["Image"],
            model_data_url=container.get("ModelDataUrl"),
            environment=dict(container.get("Environment") or {}),
            instance_type=variant.get("InstanceType", ""),
            instance_count=variant.get("InitialInstanceCount", 1),
            weight=variant.get("InitialVariantWeight", 1.0),
            strategy=(variant.get("RoutingConfig") or {}).get("RoutingStrategy", RANDOM),
            startup_timeout=variant.get("ContainerStartupHealthCheckTimeoutInSeconds"),
            serverless=variant.get("ServerlessConfig"),
        )


@dataclass(frozen=True)
class FleetSpec:
    """All variants of one endpoint config, and its DataCaptureConfig. `id` names the fleet's directory."""

    id: str
    config_name: str
    created: float
    variants: tuple[VariantSpec, ...]
    data_capture: dict[str, Any] | None = None
    async_inference: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> FleetSpec:
        """The inverse of `as_dict`."""
        return cls(**{**document, "variants": tuple(VariantSpec(**item) for item in document["variants"])})

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "variants": [asdict(variant) for variant in self.variants]}

    @property
    def instances(self) -> int:
        """How many instances all variants together want."""
        return sum(variant.instance_count for variant in self.variants)

    def capture_settings(self) -> CaptureSettings | None:
        """The capture that is on, if any."""
        return CaptureSettings.from_config(self.data_capture)

    def retaining(self, old: FleetSpec, excluded: frozenset[str]) -> FleetSpec:
        """This fleet with the old one's variant properties, as RetainAllVariantProperties means.

        Source: UpdateEndpoint in the API reference. `excluded` holds VariantPropertyTypes to take from the new
        config. A variant that the old fleet lacks keeps its own.
        """
        before = {variant.name: variant for variant in old.variants}

        def kept(variant: VariantSpec) -> VariantSpec:
            earlier = before.get(variant.name)
            if earlier is None:
                return variant
            if "DesiredInstanceCount" not in excluded:
                variant = replace(variant, instance_count=earlier.instance_count)
            if "DesiredWeight" not in excluded:
                variant = replace(variant, weight=earlier.weight)
            return variant

        capture = self.data_capture if "DataCaptureConfig" in excluded else old.data_capture
        return replace(self, variants=tuple(map(kept, self.variants)), data_capture=capture)

    def with_desired(self, changes: list[dict[str, Any]]) -> FleetSpec:
        """This fleet with DesiredWeightsAndCapacities.

        Raises:
            KeyError: it does not have one of the variants; the error holds that one's name.
            ValueError: a variant is serverless, or is not, and was given the other's capacity; the error holds its name
                and the member.
        """
        wanted = {change["VariantName"]: change for change in changes}
        unknown = set(wanted) - {variant.name for variant in self.variants}
        if unknown:
            raise KeyError(sorted(unknown)[0])

        def changed(variant: VariantSpec) -> VariantSpec:
            change = wanted.get(variant.name, {})
            foreign = "ServerlessUpdateConfig" if variant.serverless is None else "DesiredInstanceCount"
            if foreign in change:
                raise ValueError(variant.name, foreign)
            serverless = {**(variant.serverless or {}), **change.get("ServerlessUpdateConfig", {})} or None
            return replace(
                variant,
                weight=change.get("DesiredWeight", variant.weight),
                instance_count=change.get("DesiredInstanceCount", variant.instance_count),
                serverless=serverless,
            )

        return replace(self, variants=tuple(map(changed, self.variants)))


def new_fleet_id() -> str:
    """A short unique name for a fleet's directory."""
    return uuid.uuid4().hex[:12]
