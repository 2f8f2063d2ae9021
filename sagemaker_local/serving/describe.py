"""What DescribeEndpoint answers: the stored record together with what runs of it."""

from __future__ import annotations

from typing import Any

from sagemaker_local.serving import states
from sagemaker_local.serving.fleet import Fleet
from sagemaker_local.serving.live import LiveEndpoint
from sagemaker_local.serving.specs import FleetSpec
from sagemaker_local.store import Resource


def describe(endpoint: Resource, live: LiveEndpoint | None) -> dict[str, Any]:
    """DescribeEndpoint's answer. A deployment under way is a PendingDeploymentSummary beside the current variants."""
    answer = {**endpoint.described("Endpoint"), "EndpointStatus": endpoint.status}
    current, pending = endpoint.internal.get("current"), endpoint.internal.get("pending") or {}
    traffic = live.traffic if live else None
    if current:
        spec = FleetSpec.from_dict(current)
        desired = FleetSpec.from_dict(pending["fleet"]) if pending.get("kind") == "resize" else spec
        answer["ProductionVariants"] = _variants(spec, desired, traffic.current if traffic else None, live, None)
        answer["DataCaptureConfig"] = _capture(endpoint.status, spec)
        answer["AsyncInferenceConfig"] = spec.async_inference
    if pending.get("kind") == "deploy" and endpoint.status in (states.UPDATING, states.ROLLING_BACK):
        coming = FleetSpec.from_dict(pending["fleet"])
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": coming.config_name,
            "ProductionVariants": _variants(
                coming, coming, traffic.incoming if traffic else None, live, live.stage if live else None
            ),
            "StartTime": pending.get("since", endpoint.modified),
        }
    return answer


def _variants(
    spec: FleetSpec, desired: FleetSpec, fleet: Fleet | None, live: LiveEndpoint | None, stage: str | None
) -> list[dict[str, Any]]:
    wanted = {variant.name: variant for variant in desired.variants}
    described = []
    for variant in spec.variants:
        running = fleet.variants.get(variant.name) if fleet else None
        one: dict[str, Any] = {
            "VariantName": variant.name,
            "DeployedImages": [
                {"SpecifiedImage": variant.image, "ResolvedImage": variant.image, "ResolutionTime": spec.created}
            ],
            "CurrentWeight": running.weight if running else variant.weight,
            "DesiredWeight": wanted[variant.name].weight,
        }
        if variant.serverless:
            one["CurrentServerlessConfig"] = (running.spec if running else variant).serverless
            one["DesiredServerlessConfig"] = wanted[variant.name].serverless
        else:
            one["CurrentInstanceCount"] = running.instance_count if running else 0
            one["DesiredInstanceCount"] = wanted[variant.name].instance_count
        if stage and live:
            one["VariantStatus"] = [{"Status": stage, "StartTime": live.stage_since}]
            one["InstanceType"] = variant.instance_type or None
        described.append(one)
    return described


def _capture(status: str, spec: FleetSpec) -> dict[str, Any] | None:
    config = spec.data_capture
    if not config:
        return None
    enabled = config.get("EnableCapture", True)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled and status in states.SERVING else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
