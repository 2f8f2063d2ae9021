"""Endpoint configs, the next step of a deployment in every state, and the proof of what is served."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_local.serving.deployment import make_plan
from scones.deployment.endpoint import (
    IN_PROGRESS,
    Capture,
    InvalidDeploymentError,
    Rollout,
    Step,
    deployment_config,
    endpoint_config_request,
    is_deploying,
    next_step,
    parity_problems,
    probability_problems,
    serving_problems,
)
from scones.deployment.golden import golden_keys
from scones.jobs.states import ENDPOINT, TRAINING, TRANSFORM, Waited, poll_delay
from tests.support.training import legal


def config(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model_name": "m",
        "instance_type": "ml.m5.large",
        "instance_count": 1,
        "capture": Capture("s3://b/capture/"),
        "tags": [],
    }
    return endpoint_config_request(**{**arguments, **changes})


def test_the_config_is_legal_and_captures_readable_answers() -> None:
    request = config()
    assert legal("CreateEndpointConfig", request) == ""
    capture = request["DataCaptureConfig"]
    assert capture["CaptureContentTypeHeader"] == {"JsonContentTypes": ["application/json"]}
    assert capture["DestinationS3Uri"] == "s3://b/capture"  # a double slash would break Model Monitor's schedule
    assert capture["InitialSamplingPercentage"] == 100
    assert "DataCaptureConfig" not in config(capture=None)


def test_the_same_settings_have_one_name_and_others_another() -> None:
    name = config()["EndpointConfigName"]
    assert name == config(tags=[{"Key": "run", "Value": "2"}])["EndpointConfigName"]
    others = [config(model_name="n"), config(instance_count=2), config(capture=Capture("s3://b/capture", 50))]
    assert name not in {other["EndpointConfigName"] for other in others}


@pytest.mark.parametrize("bake_time_s", [0, 60, 3600])
@pytest.mark.parametrize("strategy", ["all_at_once", "canary", "linear"])
def test_deployment_configs_are_legal(strategy: str, bake_time_s: int) -> None:
    """SageMaker's: "larger than the total waiting time specified", and at most eight hours."""
    made = deployment_config(Rollout(strategy, bake_time_s=bake_time_s, alarms=["errors"]), 2)
    carried_out = make_plan(made, 10)
    assert sum(step.wait for step in carried_out.steps) < carried_out.timeout <= 28_800
    request = {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": made}
    assert legal("UpdateEndpoint", request) == ""
    assert made["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "errors"}]}
    assert made["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == strategy.upper()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "yolo"}, "choose one of all_at_once, canary, linear"),
        ({"strategy": "canary", "instance_count": 1}, "needs at least 2"),
        ({"strategy": "canary", "canary_percent": 60}, "between 1 and 50"),
        ({"bake_time_s": 4000}, "between 0 and 3600"),
        ({"alarms": [str(number) for number in range(11)]}, "SageMaker takes 10"),
        ({"strategy": "linear", "canary_percent": 10, "bake_time_s": 3600}, "bakes for 36000 s in all"),
    ],
)
def test_contradicting_deployments_are_refused(changes: dict[str, Any], words: str) -> None:
    count = changes.pop("instance_count", 2)
    with pytest.raises(InvalidDeploymentError, match=words):
        deployment_config(Rollout(**changes), count)


def described(status: str, serving: str = "old", **more: Any) -> dict[str, Any]:
    return {"EndpointStatus": status, "EndpointConfigName": serving, **more}


@pytest.mark.parametrize(
    ("description", "submitted", "step"),
    [
        (None, False, Step.CREATE),
        (None, True, Step.FAIL),
        (described("InService", "new"), False, Step.DONE),
        (described("InService", "new"), True, Step.DONE),
        (described("InService"), False, Step.UPDATE),
        (described("InService", FailureReason="alarm errors went off"), True, Step.FAIL),
        (described("Failed"), False, Step.DELETE),
        (described("Failed", "new"), True, Step.FAIL),
        (described("OutOfService"), False, Step.DELETE),
        (described("OutOfService"), True, Step.FAIL),
        (described("UpdateRollbackFailed"), False, Step.UPDATE),
        (described("UpdateRollbackFailed"), True, Step.FAIL),
        *[(described(status), submitted, Step.WAIT) for status in sorted(IN_PROGRESS) for submitted in (False, True)],
    ],
)
def test_every_state_has_its_step(description: dict[str, Any] | None, submitted: bool, step: Step) -> None:
    assert next_step(description, "new", submitted=submitted)[0] is step


def test_a_silent_rollback_is_a_failure_with_sagemakers_reason() -> None:
    step, why = next_step(described("InService", FailureReason="alarm errors went off"), "new", submitted=True)
    assert step is Step.FAIL
    assert "rolled back" in why
    assert "alarm errors went off" in why


def test_no_state_of_the_service_is_forgotten() -> None:
    model = botocore.session.Session().get_service_model("sagemaker")

    def states(shape: str) -> set[str]:
        return set(model.shape_for(shape).enum)

    assert states("EndpointStatus") == IN_PROGRESS | ENDPOINT.ended
    waiting: list[tuple[Waited, str, set[str]]] = [
        (TRAINING, "TrainingJobStatus", {"InProgress", "Stopping"}),
        (TRANSFORM, "TransformJobStatus", {"InProgress", "Stopping"}),
        (ENDPOINT, "EndpointStatus", set(IN_PROGRESS)),
    ]
    for kind, shape, going_on in waiting:
        assert kind.ended | going_on == states(shape)
        assert not kind.ended & going_on


@pytest.mark.parametrize(
    ("description", "yes"),
    [
        (None, False),
        (described("Creating", "new"), True),
        (described("Creating", "old"), False),
        (described("Updating", PendingDeploymentSummary={"EndpointConfigName": "new"}), True),
        (described("Updating", PendingDeploymentSummary={"EndpointConfigName": "other"}), False),
        (described("Updating"), False),
        (described("InService", "new"), False),
    ],
)
def test_a_retry_sees_what_an_earlier_try_began(description: dict[str, Any] | None, yes: bool) -> None:
    assert is_deploying(description, "new") is yes


ASKED = {"config_name": "c", "model_name": "m", "image": "i", "model_data_url": "s3://b/m"}
SERVED = {"EndpointConfigName": "c", "ProductionVariants": []}
CONFIG = {"ProductionVariants": [{"ModelName": "m"}]}
MODEL = {"PrimaryContainer": {"Image": "i", "ModelDataUrl": "s3://b/m"}}


@pytest.mark.parametrize(
    ("endpoint", "endpoint_config", "model", "words"),
    [
        (SERVED, CONFIG, MODEL, ""),
        ({**SERVED, "EndpointConfigName": "old"}, CONFIG, MODEL, "endpoint config is 'old'"),
        (SERVED, {"ProductionVariants": [{"ModelName": "n"}]}, MODEL, "model is 'n'"),
        (SERVED, CONFIG, {"PrimaryContainer": {"Image": "j", "ModelDataUrl": "s3://b/m"}}, "image is 'j'"),
        (
            SERVED,
            CONFIG,
            {"PrimaryContainer": {"Image": "i", "ModelDataUrl": "s3://b/n"}},
            "model artifact is 's3://b/n'",
        ),
        (SERVED, CONFIG, {}, "image is None"),
        (
            {**SERVED, "ProductionVariants": [{"VariantName": "v", "DeployedImages": [{"SpecifiedImage": "j"}]}]},
            CONFIG,
            MODEL,
            "variant v runs",
        ),
        (
            {**SERVED, "ProductionVariants": [{"VariantName": "v", "CurrentInstanceCount": 0}]},
            CONFIG,
            MODEL,
            "no instance",
        ),
    ],
)
def test_what_is_served_is_compared_with_what_was_asked(
    endpoint: dict[str, Any], endpoint_config: dict[str, Any], model: dict[str, Any], words: str
) -> None:
    problems = serving_problems(endpoint, endpoint_config, model, ASKED)
    assert (words in "; ".join(problems)) if words else problems == []


def test_parity_allows_rounding_and_nothing_more() -> None:
    expected = {"a.png": [0.9, 0.1], "b.png": [0.2, 0.8]}
    assert parity_problems(expected, {"a.png": [0.9001, 0.0999], "b.png": [0.2, 0.8]}, 0.005) == []
    assert "differ by 0.8000" in parity_problems(expected, {"a.png": [0.1, 0.9], "b.png": [0.2, 0.8]}, 0.005)[0]
    assert parity_problems(expected, {"a.png": [0.9, 0.1]}, 0.005) == ["b.png: no answer"]
    assert "3 probabilities" in parity_problems(expected, {"a.png": [0.9, 0.1, 0], "b.png": [0.2, 0.8]}, 0.005)[0]
    assert parity_problems({"a": [float("nan"), 1]}, {"a": [0.5, 0.5]}, 0.005) != []


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ([0.5, 0.5], True),
        ([1, 0], True),
        ([0.5], False),
        ([0.9, 0.9], False),
        ([-0.1, 1.1], False),
        (["a", "b"], False),
    ],
)
def test_an_answer_must_be_a_distribution(answer: list[Any], good: bool) -> None:
    assert (probability_problems(answer, 2) == []) is good


def test_golden_images_are_of_every_class_and_of_the_test_split_only() -> None:
    files: list[dict[str, Any]] = [
        {"key": f"{split}/{label}_{n}.png", "split": split, "label": label}
        for split in ("train", "test")
        for label in (0, 1)
        for n in range(9)
    ]
    files.append({"key": "test.lst", "split": "test", "label": None})
    manifest: Any = {"files": files, "dataset_version": "ds-1"}
    keys = golden_keys(manifest, per_class=2)
    assert keys == ["test/0_0.png", "test/0_1.png", "test/1_0.png", "test/1_1.png"]
    with pytest.raises(ValueError, match="no test image"):
        golden_keys(manifest | {"files": files[:18]})


@given(st.integers(min_value=0, max_value=100_000))
def test_polls_begin_at_a_second_and_never_exceed_half_a_minute(polls: int) -> None:
    assert 1 <= poll_delay(polls) <= 30
    assert poll_delay(polls) <= poll_delay(polls + 1)
