"""Endpoint configs, the next step of a deployment, and the proof that an endpoint serves what was asked."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scones.aws.naming import content_hash, sagemaker_name

VARIANT = "AllTraffic"
IN_PROGRESS = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
STRATEGIES = ("all_at_once", "canary", "linear")
_ALARMS_MAX = 10  # SageMaker's limit; the form has it too
# What SageMaker gives a deployment at most, and what one may take beside its baking.
_DEPLOYMENT_MAX_S = 28_800
_WORK_S = 1800


class InvalidDeploymentError(ValueError):
    """The deployment's settings contradict each other or the API's limits."""


class EndpointDeploymentError(RuntimeError):
    """The endpoint does not serve what was asked. The message carries SageMaker's FailureReason."""


@dataclass(frozen=True)
class Capture:
    """Data capture: both sides of each request, the answer readable (JSON, not base64)."""

    destination_uri: str
    sampling_percentage: int = 100

    def as_request(self) -> dict[str, Any]:
        """Return DataCaptureConfig. Without the content-type header SageMaker would base64-encode the JSON answers."""
        return {
            "EnableCapture": True,
            "InitialSamplingPercentage": self.sampling_percentage,
            "DestinationS3Uri": self.destination_uri.rstrip("/"),
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        }


def endpoint_config_request(
    *,
    model_name: str,
    instance_type: str,
    instance_count: int,
    capture: Capture | None,
    tags: list[dict[str, str]],
    prefix: str = "scones",
) -> dict[str, Any]:
    """Return a CreateEndpointConfig request named by a hash of its content: the same settings have one name."""
    request: dict[str, Any] = {
        "ProductionVariants": [
            {
                "VariantName": VARIANT,
                "ModelName": model_name,
                "InstanceType": instance_type,
                "InitialInstanceCount": instance_count,
                "InitialVariantWeight": 1.0,
            }
        ]
    }
    if capture is not None:
        request["DataCaptureConfig"] = capture.as_request()
    return {"EndpointConfigName": sagemaker_name(prefix, content_hash(request)), **request, "Tags": tags}


@dataclass(frozen=True)
class Rollout:
    """How an update shifts traffic from the old fleet to the new one.

    Attributes:
        strategy: "all_at_once", "canary" or "linear".
        canary_percent: share of the fleet that takes traffic first (canary), or each step's share (linear).
        bake_time_s: how long the alarms are watched after each shift, 0 to 3600.
        alarms: CloudWatch alarms that roll the deployment back.
    """

    strategy: str = "all_at_once"
    canary_percent: int = 50
    bake_time_s: int = 0
    alarms: Sequence[str] = ()

    @property
    def step_percent(self) -> int:
        """The share of the fleet that each step of a linear deployment shifts; SageMaker takes no less than 10."""
        return max(10, self.canary_percent)

    @property
    def baking_s(self) -> int:
        """How long the deployment bakes in all: once, after each of two shifts, or after each step."""
        shifts = {"all_at_once": 1, "canary": 2, "linear": -(-100 // self.step_percent)}
        return shifts[self.strategy] * self.bake_time_s


def deployment_config(rollout: Rollout, instance_count: int) -> dict[str, Any]:
    """Return DeploymentConfig of UpdateEndpoint: blue/green with the asked shift of traffic and automatic rollback.

    Raises:
        InvalidDeploymentError: the settings contradict each other, or the ``instance_count`` of the new fleet.
    """
    strategy, percent = rollout.strategy, rollout.canary_percent
    if strategy not in STRATEGIES:
        raise InvalidDeploymentError(f"deployment strategy is {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if not 0 <= rollout.bake_time_s <= 3600:
        raise InvalidDeploymentError(f"bake_time_s is {rollout.bake_time_s}: it must be between 0 and 3600")
    if strategy != "all_at_once" and instance_count < 2:
        raise InvalidDeploymentError(
            f"A {strategy} deployment shifts traffic between instances and needs at least 2, not {instance_count}: "
            "raise endpoint_instance_count, or deploy all_at_once"
        )
    if strategy != "all_at_once" and not 1 <= percent <= 50:
        raise InvalidDeploymentError(f"canary_percent is {percent}: it must be between 1 and 50")
    if len(rollout.alarms) > _ALARMS_MAX:
        raise InvalidDeploymentError(f"{len(rollout.alarms)} alarms are to roll it back: SageMaker takes {_ALARMS_MAX}")
    if rollout.baking_s + _WORK_S > _DEPLOYMENT_MAX_S:
        raise InvalidDeploymentError(
            f"With a bake_time_s of {rollout.bake_time_s} a {strategy} deployment bakes for {rollout.baking_s} s in all"
            f", and SageMaker gives it {_DEPLOYMENT_MAX_S} s: shorten bake_time_s, or raise canary_percent"
        )
    routing: dict[str, Any] = {"Type": strategy.upper(), "WaitIntervalInSeconds": rollout.bake_time_s}
    if strategy == "canary":
        routing["CanarySize"] = {"Type": "CAPACITY_PERCENT", "Value": percent}
    elif strategy == "linear":
        routing["LinearStepSize"] = {"Type": "CAPACITY_PERCENT", "Value": rollout.step_percent}
    config: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 0,
            "MaximumExecutionTimeoutInSeconds": rollout.baking_s + _WORK_S,
        }
    }
    if rollout.alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in rollout.alarms]}
    return config


@dataclass(frozen=True)
class ScalingPolicy:
    """How far an endpoint may scale.

    Attributes:
        min_capacity: fewest instances.
        max_capacity: most instances; at or below ``min_capacity`` means no autoscaling.
        invocations_per_instance: invocations per instance and minute to hold.
    """

    min_capacity: int
    max_capacity: int
    invocations_per_instance: int = 1000

    @property
    def wanted(self) -> bool:
        """Whether there is anything to scale."""
        return self.max_capacity > self.min_capacity


class Step(enum.Enum):
    """What a deployment does next."""

    CREATE = "create"
    UPDATE = "update"
    WAIT = "wait"
    DELETE = "delete"
    DONE = "done"
    FAIL = "fail"


def next_step(description: Mapping[str, Any] | None, config_name: str, *, submitted: bool) -> tuple[Step, str]:
    """Decide what to do, from what DescribeEndpoint says now; return the step and why in words.

    Args:
        description: answer of DescribeEndpoint; None when there is no such endpoint.
        config_name: endpoint config that is asked for.
        submitted: whether this attempt has already asked SageMaker for that config. Only then is a settled endpoint on
            another config a roll-back rather than the endpoint's earlier state.
    """
    if description is None:
        if submitted:
            return Step.FAIL, "the endpoint disappeared while it was being deployed: somebody deleted it"
        return Step.CREATE, "there is no such endpoint"
    status = description["EndpointStatus"]
    serving = description.get("EndpointConfigName")
    reason = description.get("FailureReason") or "SageMaker gave no reason; read the endpoint's log"
    if status in IN_PROGRESS:
        return Step.WAIT, f"the endpoint is {status}"
    if status == "InService":
        if serving == config_name:
            return Step.DONE, "the endpoint serves the asked config"
        if submitted:
            return Step.FAIL, f"the update was rolled back, the endpoint still serves {serving}: {reason}"
        return Step.UPDATE, f"the endpoint serves {serving}"
    if submitted:
        return Step.FAIL, f"the endpoint is {status}: {reason}"
    if status == "UpdateRollbackFailed":
        return Step.UPDATE, f"the endpoint is {status} and is given a whole config: {reason}"
    # Failed and OutOfService endpoints accept no update (UpdateEndpoint answers ValidationException).
    return Step.DELETE, f"the endpoint is {status} and cannot be updated: {reason}"


def is_deploying(description: Mapping[str, Any] | None, config_name: str) -> bool:
    """Return whether SageMaker is already bringing up exactly this config (an earlier attempt asked for it)."""
    if description is None:
        return False
    if description["EndpointStatus"] == "Creating":
        return bool(description.get("EndpointConfigName") == config_name)
    pending = description.get("PendingDeploymentSummary") or {}
    return bool(description["EndpointStatus"] == "Updating" and pending.get("EndpointConfigName") == config_name)


def serving_problems(
    endpoint: Mapping[str, Any], config: Mapping[str, Any], model: Mapping[str, Any], asked: Mapping[str, str]
) -> list[str]:
    """Return how what is served differs from what was asked; empty when it does not.

    Args:
        endpoint: DescribeEndpoint.
        config: DescribeEndpointConfig of the config the endpoint names.
        model: DescribeModel of the config's model.
        asked: {"config_name", "model_name", "image", "model_data_url"}.
    """
    problems = []

    def compare(what: str, got: Any, wanted: str) -> None:
        if got != wanted:
            problems.append(f"{what} is {got!r}, asked for {wanted!r}")

    compare("endpoint config", endpoint.get("EndpointConfigName"), asked["config_name"])
    compare("model", config["ProductionVariants"][0].get("ModelName"), asked["model_name"])
    container = model.get("PrimaryContainer") or (model.get("Containers") or [{}])[0]
    compare("image", container.get("Image"), asked["image"])
    compare("model artifact", container.get("ModelDataUrl"), asked["model_data_url"])
    for variant in endpoint.get("ProductionVariants", []):
        images = [image.get("SpecifiedImage") for image in variant.get("DeployedImages", [])]
        if images and asked["image"] not in images:
            problems.append(f"variant {variant['VariantName']} runs {images}, asked for {asked['image']!r}")
        if variant.get("CurrentInstanceCount") == 0:
            problems.append(f"variant {variant['VariantName']} has no instance")
    return problems


def parity_problems(
    expected: Mapping[str, Sequence[float]], answered: Mapping[str, Sequence[float]], tolerance: float
) -> list[str]:
    """Return how the endpoint's answers differ from the batch transform's on the same images; empty when they agree.

    Args:
        expected: file name -> probabilities from the transform job.
        answered: file name -> probabilities from the endpoint.
        tolerance: largest allowed difference of one probability.
    """
    problems = []
    for name, want in sorted(expected.items()):
        got = answered.get(name)
        if got is None:
            problems.append(f"{name}: no answer")
        elif len(got) != len(want):
            problems.append(f"{name}: {len(got)} probabilities, expected {len(want)}")
        else:
            worst = max(abs(a - b) for a, b in zip(got, want, strict=True))
            if not worst <= tolerance:
                problems.append(f"{name}: answers differ by {worst:.4f}, allowed {tolerance}")
    return problems


def probability_problems(probabilities: Sequence[Any], classes: int) -> list[str]:
    """Return what is wrong with one answer as a probability distribution over ``classes``; empty when nothing is."""
    if len(probabilities) != classes:
        return [f"{len(probabilities)} probabilities for {classes} classes"]
    if not all(isinstance(p, int | float) and 0 <= p <= 1 for p in probabilities):
        return [f"not all are numbers between 0 and 1: {list(probabilities)}"]
    total = sum(probabilities)
    return [] if abs(total - 1) < 0.01 else [f"they add up to {total:.4f}, not 1"]
