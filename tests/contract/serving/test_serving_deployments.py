"""UpdateEndpoint: blue/green and rolling, and every way back."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from botocore.exceptions import ClientError


def blue_green(kind: str, wait: int, termination_wait: int = 0, **sizes) -> dict:
    routing = {
        "Type": kind,
        "WaitIntervalInSeconds": wait,
        **{key: {"Type": "CAPACITY_PERCENT", "Value": value} for key, value in sizes.items()},
    }
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination_wait}
    return {"BlueGreenUpdatePolicy": policy}


class Caller:
    """Invokes an endpoint all the time, and leaves some to its fleets; keeps who answered, or the error."""

    def __init__(self, serving, name):
        self.answers: list[str] = []
        self._serving, self._name = serving, name
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ending.wait(0.01):
            try:
                self.answers.append(self._serving.invoke(self._name)["model"])
            except ClientError as error:
                self.answers.append(f"error: {error}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()


@pytest.fixture
def blue(serving):
    """An endpoint in service on the model `blue`, and the configs of both models."""
    old, new = serving.config(serving.model(name="blue")), serving.config(serving.model(name="green"))
    return serving.in_service(old), old, new


def stage(description: dict) -> list[str]:
    """The statuses of the variants under way; a variant has none yet in the moment in which its fleet is made."""
    variants = description.get("PendingDeploymentSummary", {}).get("ProductionVariants", ())
    return [status["Status"] for one in variants for status in one.get("VariantStatus", ())]


def test_all_at_once_answers_every_invocation_and_keeps_the_rest(serving, blue, until):
    name, old, new = blue
    created = serving.describe(name)["CreationTime"]

    def under_way():
        described = serving.describe(name)
        return described if stage(described) else None

    with Caller(serving, name) as caller:
        serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new)
        pending = until(under_way, "the new fleet has a status", 20)
        found = serving.settled(name)
        until(lambda: "green" in caller.answers, "the new fleet answers", 20)
    assert (pending["EndpointStatus"], pending["EndpointConfigName"]) == ("Updating", old)
    assert pending["PendingDeploymentSummary"]["EndpointConfigName"] == new
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", new)
    assert "FailureReason" not in found
    assert "PendingDeploymentSummary" not in found
    assert found["CreationTime"] == created
    assert serving.invoke(name)["model"] == "green"
    assert set(caller.answers) == {"blue", "green"}
    assert caller.answers == sorted(caller.answers)  # never back to blue


def test_a_canary_takes_its_share_and_then_all(serving, blue, until):
    name, _, new = blue
    # Long enough for the counting, which takes a quarter of a second, on a machine that is busy; it waits twice.
    config = blue_green("CANARY", 6, CanarySize=25)
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=config)
    until(lambda: stage(serving.describe(name)) == ["Baking"], "the canary bakes", 20)
    counts = Counter(serving.invoke(name)["model"] for _ in range(120))
    assert stage(serving.describe(name)) == ["Baking"], "counted while the canary had its share"
    assert 8 < counts["green"] < 58  # 30 expected; outside by chance less than once in 100,000
    found = serving.settled(name)
    assert found["EndpointConfigName"] == new
    assert found["LastDeploymentConfig"] == config
    assert {serving.invoke(name)["model"] for _ in range(10)} == {"green"}


@pytest.mark.parametrize(
    "config",
    [
        blue_green("LINEAR", 0, LinearStepSize=50),
        {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
                "WaitIntervalInSeconds": 0,
            }
        },
    ],
    ids=["linear", "rolling"],
)
def test_linear_and_rolling_reach_the_new_fleet_without_a_lost_invocation(serving, until, config):
    old = serving.config(serving.model(name="blue"), count=2)
    name = serving.in_service(old)
    new = serving.config(serving.model(name="green"), count=2)
    with Caller(serving, name) as caller:
        serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=config)
        found = serving.settled(name)
        until(lambda: "green" in caller.answers, "the new fleet answers", 20)
    assert found["EndpointConfigName"] == new
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert set(caller.answers) == {"blue", "green"}


def test_a_fleet_that_cannot_start_is_rolled_back_with_its_reason(serving, blue):
    name, old, _ = blue
    bad = serving.config(serving.model(exit_at_start=3))
    with Caller(serving, name) as caller:
        serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=bad)
        found = serving.settled(name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
    assert "exit code 3" in found["FailureReason"]
    assert "PendingDeploymentSummary" not in found
    assert set(caller.answers) == {"blue"}


def test_an_alarm_that_rings_while_the_new_fleet_bakes_rolls_back(serving, blue, aws):
    """The endpoint's own metric, as users watch it: its errors ring its alarm, and not that of another endpoint."""
    name, old, new = blue
    alarm, other = f"errors-of-{name}", f"errors-beside-{name}"
    common = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocation5XXErrors",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    cloudwatch = aws("cloudwatch")
    for alarm_name, endpoint in ((alarm, name), (other, f"{name}-other")):
        dimensions = {"EndpointName": endpoint, "VariantName": "AllTraffic"}
        cloudwatch.put_metric_alarm(
            AlarmName=alarm_name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            **common,
        )
    config = {**blue_green("ALL_AT_ONCE", 60), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]}}
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=config)
    deadline = time.monotonic() + 20
    while serving.invoke(name)["model"] != "green":
        assert time.monotonic() < deadline
    with pytest.raises(ClientError, match="ModelError"):
        serving.invoke(name, {"do": "status", "status": 500, "message": "out of order"})
    found = serving.settled(name)
    states = cloudwatch.describe_alarms(AlarmNames=[alarm, other])["MetricAlarms"]
    assert {one["AlarmName"]: one["StateValue"] == "ALARM" for one in states} == {alarm: True, other: False}
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", old)
    assert alarm in found["FailureReason"]
    assert serving.invoke(name)["model"] == "blue"


def test_an_alarm_that_does_not_exist_rolls_back(serving, blue):
    name, old, new = blue
    config = {
        **blue_green("ALL_AT_ONCE", 0),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "ghost-alarm"}]},
    }
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=config)
    found = serving.settled(name)
    assert found["EndpointConfigName"] == old
    assert "ghost-alarm" in found["FailureReason"]


def test_properties_and_deployment_config_can_be_retained(serving, until):
    capture = serving.capture_config(34)
    name = serving.in_service(serving.config(serving.model(), DataCaptureConfig=capture))
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2, "DesiredWeight": 5.0}]
    serving.sm.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    serving.settled(name)
    new, deployment = serving.config(serving.model()), blue_green("ALL_AT_ONCE", 0)
    serving.sm.update_endpoint(
        EndpointName=name,
        EndpointConfigName=new,
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
        DeploymentConfig=deployment,
    )
    found = serving.settled(name)
    [variant] = found["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (2, 1.0)
    assert found["DataCaptureConfig"]["CurrentSamplingPercentage"] == 34
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new, RetainDeploymentConfig=True)
    found = serving.settled(name)
    assert found["LastDeploymentConfig"] == deployment
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert "DataCaptureConfig" not in found


def test_new_instances_that_cannot_start_leave_the_counts_as_they_were(serving, until):
    model = serving.model()
    name = serving.in_service(serving.config(model))
    before = serving.invoke(name)["process"]
    archive = next((serving.service.folder / "data" / "endpoints" / name).rglob("model.tar.gz"))
    archive.write_bytes(b"spoiled")
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
    serving.sm.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    found = serving.settled(name)
    assert found["EndpointStatus"] == "InService"
    assert found["FailureReason"]
    assert found["ProductionVariants"][0]["DesiredInstanceCount"] == 1
    assert serving.invoke(name)["process"] == before


def test_wrong_deployment_configs_are_refused(serving, blue):
    name, _, new = blue
    with pytest.raises(ClientError, match="CanarySize"):
        serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=new, DeploymentConfig=blue_green("CANARY", 0))
    with pytest.raises(ClientError, match="RetainAllVariantProperties"):
        serving.sm.update_endpoint(
            EndpointName=name,
            EndpointConfigName=new,
            ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
        )
    assert serving.describe(name)["EndpointStatus"] == "InService"
