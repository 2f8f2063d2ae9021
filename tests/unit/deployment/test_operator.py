"""EndpointDeployOperator over a whole deployment, step by step, in every direction it can take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from botocore.exceptions import ClientError

from scones.deployment import aws
from scones.deployment import operator as module
from scones.deployment import operator as operator_module
from scones.deployment.endpoint import EndpointDeploymentError, InvalidDeploymentError, ScalingPolicy
from scones.deployment.operator import EndpointDeployOperator
from scones.jobs.trigger import EndpointGoneTrigger, SageMakerWaitTrigger
from tests.support.fake_aws import FakeRegistryHook, FakeSageMaker, FakeScaling, client_error
from tests.support.training import StockHook, context

MODEL = {"model_name": "m", "image": "i", "model_data_url": "s3://b/training/j/output/model.tar.gz"}


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> FakeScaling:
    fake = FakeScaling()
    monkeypatch.setattr(operator_module, "client", lambda *_: fake)
    return fake


@pytest.fixture
def sagemaker(scaling: FakeScaling) -> FakeSageMaker:
    client = FakeSageMaker()
    client.create_model(ModelName="m", PrimaryContainer={"Image": "i", "ModelDataUrl": MODEL["model_data_url"]})
    return client


def operator(sagemaker: FakeSageMaker, **changes: Any) -> EndpointDeployOperator:
    arguments: dict[str, Any] = {"task_id": "deploy_endpoint", "endpoint_name": "courier", "model": MODEL}
    task = EndpointDeployOperator(**{**arguments, "capture": {"uri": "s3://b/capture"}, **changes})
    task.__dict__["hook"] = StockHook(sagemaker)
    task._resources_hook = lambda: FakeRegistryHook(sagemaker)  # type: ignore[method-assign]
    return task


def begin(task: EndpointDeployOperator) -> SageMakerWaitTrigger:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context())
    trigger: SageMakerWaitTrigger = caught.value.trigger
    return trigger


def go_on(sagemaker: FakeSageMaker, trigger: SageMakerWaitTrigger, status: str = "success", **changes: Any) -> Any:
    """What the triggerer and the scheduler do: a fresh operator resumes with the event."""
    return operator(sagemaker, **changes).resume(context(), trigger._event(status, "", "late"))


def deploy(sagemaker: FakeSageMaker, **changes: Any) -> Any:
    trigger = begin(operator(sagemaker, **changes))
    sagemaker.finish_deployment("courier")
    return go_on(sagemaker, trigger, **changes)


def test_the_first_deployment_creates_and_proves(sagemaker: FakeSageMaker) -> None:
    result = deploy(sagemaker)
    assert result["action"] == "created"
    assert (result["endpoint_status"], result["previous_endpoint_config_name"]) == ("InService", "")
    request = sagemaker.called("create_endpoint_config")[0]
    assert request["EndpointConfigName"] == result["endpoint_config_name"]
    assert request["DataCaptureConfig"]["CaptureContentTypeHeader"] == {"JsonContentTypes": ["application/json"]}


def test_the_same_deployment_again_touches_nothing(sagemaker: FakeSageMaker) -> None:
    deploy(sagemaker)
    before = len(sagemaker.calls)
    result = operator(sagemaker).execute(context())
    assert result["action"] == "unchanged"
    assert {name.partition("_")[0] for name, _ in sagemaker.calls[before:]} == {"describe"}


def test_a_retry_after_the_update_still_knows_what_served_before(sagemaker: FakeSageMaker) -> None:
    old = deploy(sagemaker)
    store: dict[str, str] = {}
    state = SimpleNamespace(get=store.get, set=store.__setitem__)
    task = operator(sagemaker, fleet={"instance_count": 2})
    with pytest.raises(TaskDeferred):
        task.execute({**context(), "task_state_store": state})
    # The worker dies while SageMaker goes on: first found at work, then done.
    with pytest.raises(TaskDeferred) as caught:
        operator(sagemaker, fleet={"instance_count": 2}).execute({**context(), "task_state_store": state})
    assert caught.value.trigger.carry["previous"] == old["endpoint_config_name"]
    sagemaker.finish_deployment("courier")
    result = operator(sagemaker, fleet={"instance_count": 2}).execute({**context(), "task_state_store": state})
    assert (result["action"], result["previous_endpoint_config_name"]) == ("unchanged", old["endpoint_config_name"])
    assert len(sagemaker.called("update_endpoint")) == 1


def test_another_config_is_an_update_with_the_asked_shift_of_traffic(sagemaker: FakeSageMaker) -> None:
    old = deploy(sagemaker)
    result = deploy(
        sagemaker,
        fleet={"instance_count": "2"},
        rollout={"strategy": "canary", "canary_percent": "10", "bake_time_s": "60", "alarms": "errors, slow"},
    )
    assert (result["action"], result["previous_endpoint_config_name"]) == ("updated", old["endpoint_config_name"])
    policy = sagemaker.called("update_endpoint")[0]["DeploymentConfig"]
    assert policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"] == {
        "Type": "CANARY",
        "WaitIntervalInSeconds": 60,
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
    }
    assert policy["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "errors"}, {"AlarmName": "slow"}]}


def test_a_silent_rollback_fails_with_sagemakers_reason(sagemaker: FakeSageMaker) -> None:
    old = deploy(sagemaker)
    trigger = begin(operator(sagemaker, fleet={"instance_count": 2}))
    sagemaker.finish_deployment(
        "courier", EndpointConfigName=old["endpoint_config_name"], FailureReason="alarm errors went off"
    )
    with pytest.raises(EndpointDeploymentError, match=r"rolled back.*alarm errors went off"):
        go_on(sagemaker, trigger, fleet={"instance_count": 2})


def test_a_failed_endpoint_is_deleted_waited_away_and_created_anew(
    sagemaker: FakeSageMaker, scaling: FakeScaling
) -> None:
    deploy(sagemaker, fleet={"max_capacity": 3})
    sagemaker.things["endpoint", "courier"]["EndpointStatus"] = "Failed"
    trigger = begin(operator(sagemaker))
    assert isinstance(trigger, EndpointGoneTrigger)
    assert "deregister_scalable_target" in [name for name, _ in scaling.calls]
    with pytest.raises(TaskDeferred) as caught:
        go_on(sagemaker, trigger)
    sagemaker.finish_deployment("courier")
    assert go_on(sagemaker, caught.value.trigger)["action"] == "recreated"


@pytest.mark.parametrize("state", ["Failed", "OutOfService", "UpdateRollbackFailed"])
def test_a_deployment_that_ends_badly_fails_with_the_reason(sagemaker: FakeSageMaker, state: str) -> None:
    deploy(sagemaker)
    trigger = begin(operator(sagemaker, fleet={"instance_count": 2}))
    sagemaker.finish_deployment("courier", EndpointStatus=state, FailureReason="no capacity")
    with pytest.raises(EndpointDeploymentError, match=f"{state}: no capacity"):
        go_on(sagemaker, trigger, fleet={"instance_count": 2})
    assert ("endpoint", "courier") in sagemaker.things


def test_a_short_lived_endpoint_that_fails_is_deleted(sagemaker: FakeSageMaker) -> None:
    trigger = begin(operator(sagemaker, delete_on_failure=True))
    sagemaker.finish_deployment("courier", EndpointStatus="Failed", FailureReason="image not found")
    with pytest.raises(EndpointDeploymentError, match="image not found"):
        go_on(sagemaker, trigger, delete_on_failure=True)
    assert ("endpoint", "courier") not in sagemaker.things


def test_a_deletion_that_is_refused_does_not_hide_the_reason(
    sagemaker: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = begin(operator(sagemaker, delete_on_failure=True))

    def refuse(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        raise client_error("ValidationException", "Cannot update in-progress endpoint")

    monkeypatch.setattr(sagemaker, "_delete", refuse)
    with pytest.raises(EndpointDeploymentError, match="more than 3600 s"):
        go_on(sagemaker, trigger, "timeout", delete_on_failure=True)


def test_a_retry_in_the_middle_of_the_update_goes_on_with_it(sagemaker: FakeSageMaker) -> None:
    deploy(sagemaker)
    begin(operator(sagemaker, fleet={"instance_count": 2}))
    trigger = begin(operator(sagemaker, fleet={"instance_count": 2}))
    assert len(sagemaker.called("update_endpoint")) == 1
    sagemaker.finish_deployment("courier")
    assert go_on(sagemaker, trigger, fleet={"instance_count": 2})["endpoint_status"] == "InService"


def test_somebody_elses_update_is_waited_out_first(sagemaker: FakeSageMaker) -> None:
    deploy(sagemaker)
    sagemaker.update_endpoint(EndpointName="courier", EndpointConfigName="theirs")
    trigger = begin(operator(sagemaker, fleet={"instance_count": 2}))
    assert len(sagemaker.called("update_endpoint")) == 1
    sagemaker.finish_deployment("courier")
    with pytest.raises(TaskDeferred) as caught:
        go_on(sagemaker, trigger, fleet={"instance_count": 2})
    sagemaker.finish_deployment("courier")
    assert (
        go_on(sagemaker, caught.value.trigger, fleet={"instance_count": 2})["previous_endpoint_config_name"] != "theirs"
    )


def test_in_service_is_not_enough_the_model_must_be_the_asked_one(sagemaker: FakeSageMaker) -> None:
    trigger = begin(operator(sagemaker))
    sagemaker.finish_deployment("courier")
    sagemaker.things["model", "m"]["PrimaryContainer"] = {"Image": "i", "ModelDataUrl": "s3://b/other"}
    with pytest.raises(EndpointDeploymentError, match="model artifact is 's3://b/other'"):
        go_on(sagemaker, trigger)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [("timeout", EndpointDeploymentError, "more than 3600 s"), ("error", AirflowException, "can no longer be seen")],
)
def test_waits_that_end_badly_are_failures(
    sagemaker: FakeSageMaker, status: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        go_on(sagemaker, begin(operator(sagemaker)), status)


def test_contradicting_settings_create_nothing(sagemaker: FakeSageMaker) -> None:
    with pytest.raises(InvalidDeploymentError, match="at least 2"):
        operator(sagemaker, rollout={"strategy": "canary"}).execute(context())
    with pytest.raises(AirflowFailException, match="instance_count is 'two'"):
        operator(sagemaker, fleet={"instance_count": "two"}).execute(context())
    assert [kind for kind, _ in sagemaker.things] == ["model"]


def test_autoscaling_is_registered_when_asked_for(sagemaker: FakeSageMaker, scaling: FakeScaling) -> None:
    deploy(sagemaker)
    assert scaling.calls == []
    deploy(sagemaker, fleet={"instance_count": "2", "max_capacity": "5"})
    calls = dict(scaling.calls)
    assert calls["register_scalable_target"]["MaxCapacity"] == 5
    assert calls["put_scaling_policy"]["PolicyType"] == "TargetTrackingScaling"


def test_an_endpoint_is_changed_out_of_autoscaling_and_scales_again_as_the_form_says(
    sagemaker: FakeSageMaker, scaling: FakeScaling
) -> None:
    """SageMaker changes no instance type under a scalable target."""
    deploy(sagemaker, fleet={"max_capacity": 3})
    assert scaling.target == {"MinCapacity": 1, "MaxCapacity": 3}
    changes: dict[str, Any] = {"fleet": {"instance_type": "ml.c5.xlarge", "max_capacity": 4}}
    trigger = begin(operator(sagemaker, **changes))
    assert scaling.target is None
    sagemaker.finish_deployment("courier")
    go_on(sagemaker, trigger, **changes)
    assert scaling.target == {"MinCapacity": 1, "MaxCapacity": 4}
    deploy(sagemaker, fleet={"instance_count": 2})  # nobody says how far: as before
    assert scaling.target == {"MinCapacity": 1, "MaxCapacity": 4}
    deploy(sagemaker, fleet={"instance_count": 1, "max_capacity": 0})
    assert scaling.target is None


def test_a_deployment_that_fails_leaves_the_endpoint_scaling_as_it_did(
    sagemaker: FakeSageMaker, scaling: FakeScaling
) -> None:
    old = deploy(sagemaker, fleet={"max_capacity": 3})
    kept: dict[str, str] = {}
    state = SimpleNamespace(get=kept.get, set=kept.__setitem__)
    changes: dict[str, Any] = {"fleet": {"instance_count": 2, "max_capacity": 9}}
    with pytest.raises(TaskDeferred):
        operator(sagemaker, **changes).execute({**context(), "task_state_store": state})
    assert scaling.target is None
    # The worker dies; another one finds the deployment under way, and then rolled back.
    with pytest.raises(TaskDeferred) as caught:
        operator(sagemaker, **changes).execute({**context(), "task_state_store": state})
    sagemaker.finish_deployment(
        "courier", EndpointConfigName=old["endpoint_config_name"], FailureReason="alarm errors went off"
    )
    with pytest.raises(EndpointDeploymentError, match="alarm errors went off"):
        go_on(sagemaker, caught.value.trigger, **changes)
    assert scaling.target == {"MinCapacity": 1, "MaxCapacity": 3}


def test_a_target_of_a_fixed_number_of_instances_comes_back_too(sagemaker: FakeSageMaker, scaling: FakeScaling) -> None:
    deploy(sagemaker)
    scaling.target = {"MinCapacity": 2, "MaxCapacity": 2}
    deploy(sagemaker, fleet={"instance_count": 2})
    assert scaling.target == {"MinCapacity": 2, "MaxCapacity": 2}
    assert "deregister_scalable_target" in [name for name, _ in scaling.calls]


def test_an_update_that_sagemaker_refuses_leaves_the_endpoint_scaling(
    sagemaker: FakeSageMaker, scaling: FakeScaling
) -> None:
    deploy(sagemaker, fleet={"max_capacity": 3})

    def update_endpoint(**_: Any) -> None:
        raise client_error("ResourceLimitExceeded", "twice the fleet is too much")

    sagemaker.__dict__["update_endpoint"] = update_endpoint
    with pytest.raises(ClientError, match="ResourceLimitExceeded"):
        operator(sagemaker, fleet={"instance_count": 2, "max_capacity": 9}).execute(context())
    assert scaling.target == {"MinCapacity": 1, "MaxCapacity": 3}


def test_the_baking_is_time_that_is_given_on_top(sagemaker: FakeSageMaker) -> None:
    deploy(sagemaker)
    rollout = {"strategy": "linear", "canary_percent": "10", "bake_time_s": "600"}
    progress = begin(operator(sagemaker, fleet={"instance_count": 2}, rollout=rollout)).carry
    assert progress["deadline"] - progress["began"] == pytest.approx(3600 + 6000, abs=1)
    sent = sagemaker.called("update_endpoint")[0]["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert sent["MaximumExecutionTimeoutInSeconds"] > 6000


def test_deregistering_is_quiet_where_there_is_no_autoscaling_and_loud_otherwise() -> None:
    assert aws.deregister("e", FakeScaling(known=True)) == ScalingPolicy(1, 3)
    assert aws.deregister("e", FakeScaling()) is None
    for code in ("InvalidAction", "400"):
        assert aws.deregister("e", FakeScaling(error=code)) is None
    with pytest.raises(Exception, match="AccessDenied"):
        aws.deregister("e", FakeScaling(error="AccessDenied"))


def test_a_kill_leaves_the_real_endpoint_and_takes_the_short_lived_one(sagemaker: FakeSageMaker) -> None:
    begin(operator(sagemaker))
    operator(sagemaker).on_kill()
    assert ("endpoint", "courier") in sagemaker.things
    operator(sagemaker, delete_on_failure=True).on_kill()
    assert ("endpoint", "courier") not in sagemaker.things


def test_what_travels_through_the_triggerer_is_json(sagemaker: FakeSageMaker) -> None:
    import json

    trigger = begin(operator(sagemaker))
    assert json.loads(json.dumps(trigger.serialize()[1])) == trigger.serialize()[1]
    assert trigger.serialize()[1]["stop_on_kill"] is False
    assert module.EndpointDeployOperator.template_fields.count("model") == 1
