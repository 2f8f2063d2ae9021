"""Endpoints and their configs through boto3: created, described, listed, failed, deleted."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from sagemaker_local.protocol import service_model
from tests.support.local_service import unique


def refused(call, **request) -> str:
    """The message of the ValidationException that a call must be answered with."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return caught.value.response["Error"]["Message"]


def test_an_endpoint_from_creation_to_deletion(serving, aws):
    model = serving.model()
    config = serving.config(model, DataCaptureConfig=serving.capture_config(20))
    name = serving.create(config, Tags=[{"Key": "team", "Value": "scones"}])
    first = serving.describe(name)
    assert first["EndpointStatus"] in ("Creating", "InService")
    found = serving.settled(name)
    assert found["EndpointStatus"] == "InService"
    assert found["EndpointConfigName"] == config
    assert found["EndpointArn"].endswith(f":endpoint/{name}")
    assert "FailureReason" not in found
    assert found["DataCaptureConfig"]["CaptureStatus"] == "Started"
    assert found["DataCaptureConfig"]["CurrentSamplingPercentage"] == 20
    [variant] = found["ProductionVariants"]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == "echo-model:1"
    counts = {key: variant[key] for key in variant if key.endswith(("Weight", "InstanceCount"))}
    assert counts == {
        "CurrentWeight": 1.0,
        "DesiredWeight": 1.0,
        "CurrentInstanceCount": 1,
        "DesiredInstanceCount": 1,
    }
    assert serving.invoke(name)["model"] == model
    assert serving.sm.list_tags(ResourceArn=found["EndpointArn"])["Tags"] == [{"Key": "team", "Value": "scones"}]
    listed = serving.sm.list_endpoints(NameContains=name, StatusEquals="InService")["Endpoints"]
    assert [one["EndpointName"] for one in listed] == [name]
    serving.delete(name)
    assert serving.sm.list_endpoints(NameContains=name)["Endpoints"] == []
    serving.sm.create_endpoint(EndpointName=name, EndpointConfigName=config)  # the name is free at once
    assert serving.settled(name)["EndpointStatus"] == "InService"
    assert serving.invoke(name)["model"] == model
    serving.delete(name)
    logs = aws("logs")
    stream, _ = logs.describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["logStreams"]
    assert re.fullmatch(r"AllTraffic/i-[0-9a-f]{17}", stream["logStreamName"])
    events = logs.get_log_events(
        logGroupName=f"/aws/sagemaker/Endpoints/{name}", logStreamName=stream["logStreamName"]
    )["events"]
    assert events[0]["message"] == f"serving {model}"


def test_names_that_are_taken_or_unknown(serving):
    config = serving.config(serving.model())
    name = serving.in_service(config)
    sm = serving.sm
    message = refused(sm.create_endpoint, EndpointName=name, EndpointConfigName="no-such-config")
    assert message.startswith("Cannot create already existing endpoint ")
    described = sm.describe_endpoint_config(EndpointConfigName=config)
    message = refused(
        sm.create_endpoint_config, EndpointConfigName=config, ProductionVariants=described["ProductionVariants"]
    )
    assert message.startswith("Cannot create already existing endpoint configuration ")
    for call in (sm.describe_endpoint, sm.delete_endpoint):
        assert refused(call, EndpointName="ghost").startswith("Could not find endpoint ")
    unknown = "Could not find endpoint configuration "
    for call in (sm.describe_endpoint_config, sm.delete_endpoint_config):
        assert refused(call, EndpointConfigName="ghost").startswith(unknown)
    assert refused(sm.create_endpoint, EndpointName="fresh", EndpointConfigName="ghost").startswith(unknown)
    assert refused(sm.update_endpoint, EndpointName=name, EndpointConfigName="ghost").startswith(unknown)
    variant = {**described["ProductionVariants"][0], "ModelName": "ghost"}
    message = refused(sm.create_endpoint_config, EndpointConfigName="fresh", ProductionVariants=[variant])
    assert message.startswith("Could not find model ")


def test_a_config_in_use_can_be_deleted_and_the_endpoint_goes_on(serving):
    config = serving.config(serving.model())
    name = serving.in_service(config)
    serving.sm.delete_endpoint_config(EndpointConfigName=config)
    message = refused(serving.sm.describe_endpoint_config, EndpointConfigName=config)
    assert message.startswith("Could not find endpoint configuration ")
    assert serving.describe(name)["EndpointConfigName"] == config
    assert serving.invoke(name)["echo"] == 2


def test_a_config_is_described_as_it_was_given(serving):
    capture = serving.capture_config(34)
    config = serving.config(serving.model(), serving.model(), weights=(3.0, 1.0), DataCaptureConfig=capture)
    found = serving.sm.describe_endpoint_config(EndpointConfigName=config)
    assert found["DataCaptureConfig"] == capture
    assert [one["InitialVariantWeight"] for one in found["ProductionVariants"]] == [3.0, 1.0]
    listed = serving.sm.list_endpoint_configs(NameContains=config)["EndpointConfigs"]
    assert [one["EndpointConfigArn"] for one in listed] == [found["EndpointConfigArn"]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, "ServerlessConfig"),
        ({"ManagedInstanceScaling": {"Status": "ENABLED"}}, "ManagedInstanceScaling"),
        ({"RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE"}}, "RoutingStrategy"),
        ({"InstanceType": None}, "InstanceType"),
        ({"InitialInstanceCount": None}, "InitialInstanceCount"),
        ({"ModelName": None}, "ModelName"),
    ],
)
def test_variants_that_cannot_be_honoured_are_refused_by_name(serving, change, named):
    variant = {
        "VariantName": "v",
        "ModelName": serving.model(),
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **change,
    }
    variant = {key: value for key, value in variant.items() if value is not None}
    message = refused(serving.sm.create_endpoint_config, EndpointConfigName="c", ProductionVariants=[variant])
    assert named in message


def test_more_instances_than_the_machine_takes(serving):
    config = serving.config(serving.model(), count=41)
    with pytest.raises(ClientError) as caught:
        serving.create(config)
    assert caught.value.response["Error"]["Code"] == "ResourceLimitExceeded"
    assert "SAGEMAKER_LOCAL_MAX_INSTANCES" in str(caught.value)


def test_a_server_that_exits_at_start_fails_the_endpoint(serving, aws):
    name = serving.create(serving.config(serving.model(exit_at_start=3)))
    found = serving.settled(name)
    assert found["EndpointStatus"] == "Failed"
    assert "exit code 3" in found["FailureReason"]
    assert "ProductionVariants" not in found
    assert "in status Failed" in refused(
        serving.sm.update_endpoint, EndpointName=name, EndpointConfigName=found["EndpointConfigName"]
    )
    with pytest.raises(ClientError, match=f"Endpoint {name} of account .* not found"):
        serving.invoke(name)
    group = f"/aws/sagemaker/Endpoints/{name}"
    [stream] = aws("logs").describe_log_streams(logGroupName=group)["logStreams"]
    events = aws("logs").get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert "the model does not load" in {event["message"] for event in events}
    serving.delete(name)


def test_model_data_that_is_not_there_fails_the_endpoint(serving):
    model = serving.model_of_archive(b"", upload=False)
    found = serving.settled(serving.create(serving.config(model)))
    assert found["EndpointStatus"] == "Failed"
    assert f"models/{model}/model.tar.gz" in found["FailureReason"]


@pytest.mark.parametrize("member", ["../../outside", "a/../../../outside"])
def test_a_hostile_archive_fails_the_endpoint_and_writes_nothing_outside(serving, make_archive, member):
    content = make_archive({"behaviour.json": b"{}", member: b"x"})
    found = serving.settled(serving.create(serving.config(serving.model_of_archive(content))))
    assert found["EndpointStatus"] == "Failed"
    assert "extract" in found["FailureReason"].lower()
    assert not list(serving.service.folder.rglob("outside"))


def test_what_is_no_archive_fails_the_endpoint(serving):
    found = serving.settled(serving.create(serving.config(serving.model_of_archive(b"not a tar"))))
    assert found["EndpointStatus"] == "Failed"
    assert "extract" in found["FailureReason"].lower()


def test_nothing_else_can_be_done_while_creating(serving):
    config = serving.config(serving.model(ping="refuse"))
    name = serving.create(config)
    try:
        for call, more in (
            (serving.sm.delete_endpoint, {}),
            (serving.sm.update_endpoint, {"EndpointConfigName": config}),
        ):
            assert refused(call, EndpointName=name, **more).startswith("Cannot update in-progress endpoint ")
        with pytest.raises(ClientError, match="not found"):
            serving.invoke(name)
    finally:
        serving.endpoints.remove(name)  # it stays Creating for its health check's ten minutes


def test_as_many_processes_as_instances(serving):
    name = serving.in_service(serving.config(serving.model(), count=3))
    assert serving.describe(name)["ProductionVariants"][0]["CurrentInstanceCount"] == 3
    processes = {serving.invoke(name)["process"] for _ in range(60)}
    assert len(processes) == 3


def test_every_answer_has_the_members_of_the_service_model(serving):
    name = serving.in_service(serving.config(serving.model(), DataCaptureConfig=serving.capture_config()))
    shape = service_model().operation_model("DescribeEndpoint").output_shape
    found = serving.describe(name)
    assert set(shape.required_members) <= set(found)
    assert set(found) - {"ResponseMetadata"} <= set(shape.members)


def test_a_serverless_variant_takes_so_many_at_once_and_4_mb(serving, until):
    name = unique("serverless")
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": serving.model(),
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1},
    }
    serving.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    endpoint = serving.in_service(name)
    [described] = serving.describe(endpoint)["ProductionVariants"]
    assert described["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    assert "CurrentInstanceCount" not in described
    with pytest.raises(ClientError, match="less than or equal to 4194304"):
        serving.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x" * (5 << 20))

    def code(request: dict[str, object]) -> str | None:
        """The error code of an invocation, if it is refused."""
        try:
            serving.invoke(endpoint, request)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return None

    with ThreadPoolExecutor(1) as pool:
        # Taken in the end: until then it may have met one of those below.
        slow = pool.submit(lambda: until(lambda: code({"do": "slow", "seconds": 5}) is None, "the slow one is taken"))
        assert until(lambda: code({}), "a second one at once is refused") == "ThrottlingException"
        assert slow.result()
    change = {"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 3}}
    serving.sm.update_endpoint_weights_and_capacities(EndpointName=endpoint, DesiredWeightsAndCapacities=[change])
    [described] = serving.settled(endpoint)["ProductionVariants"]
    assert described["CurrentServerlessConfig"]["MaxConcurrency"] == 3
