"""The service killed at any moment and started again: no endpoint lost, none stuck, no process left over."""

from __future__ import annotations

import psutil
import pytest
from botocore.exceptions import ClientError


def children(serving) -> set[int]:
    """Model servers of this service."""
    marker, found = str(serving.service.folder / "data"), set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("SAGEMAKER_LOCAL_DATA_DIR") == marker:
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_endpoints_survive_a_kill_in_every_state(own_serving, until):
    """One service, killed once with an endpoint in each state: in service, creating, updating, deleting, failed."""
    serving = own_serving
    config, bad = serving.config(serving.model(name="blue")), serving.config(serving.model(exit_at_start=1))
    green = serving.config(serving.model(name="green"))
    steady, updating, rolled, deleting = (serving.in_service(config) for _ in range(4))
    failed = serving.create(bad)
    assert serving.settled(failed)["EndpointStatus"] == "Failed"
    baking = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 1},
        }
    }
    serving.sm.update_endpoint(EndpointName=updating, EndpointConfigName=green, DeploymentConfig=baking)
    serving.sm.update_endpoint(EndpointName=rolled, EndpointConfigName=bad)
    creating = serving.create(config)
    serving.sm.delete_endpoint(EndpointName=deleting)
    orphans = children(serving)
    serving.service.kill()
    serving.service.start()
    assert not orphans & children(serving)
    assert serving.invoke(steady)["model"] == "blue"  # waits for its server, instead of failing
    assert serving.describe(steady)["EndpointConfigName"] == config
    assert serving.settled(creating)["EndpointStatus"] == "InService"
    assert serving.invoke(creating)["model"] == "blue"
    assert serving.settled(updating)["EndpointConfigName"] == green
    assert serving.invoke(updating)["model"] == "green"
    found = serving.settled(rolled)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", config)
    assert "exit code 1" in found["FailureReason"]
    until(lambda: not serving.exists(deleting), "the deletion is finished")
    assert serving.describe(failed)["EndpointStatus"] == "Failed"
    serving.service.stop()
    assert children(serving) == set()


def test_an_endpoint_comes_back_without_s3_and_takes_up_its_weights(own_serving, until):
    serving = own_serving
    name = serving.in_service(serving.config(serving.model(name="a"), serving.model(name="b"), count=1))
    wanted = [{"VariantName": "v0", "DesiredWeight": 0.0}, {"VariantName": "v1", "DesiredWeight": 2.0}]
    serving.sm.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    serving.settled(name)
    for page in serving.s3.get_paginator("list_objects_v2").paginate(Bucket=serving.bucket, Prefix="models/"):
        for item in page.get("Contents", ()):
            serving.s3.delete_object(Bucket=serving.bucket, Key=item["Key"])
    serving.service.stop()
    serving.service.start()
    assert {serving.invoke(name)["model"] for _ in range(5)} == {"b"}


def test_an_endpoint_whose_model_server_no_longer_starts_fails_and_says_why(new_serving, until, make_archive):
    """As with an artifact that a newer version of the algorithm does not read: nobody waits for it for ever."""
    serving = new_serving({"SAGEMAKER_LOCAL_REVIVAL_ATTEMPTS": "4", "SAGEMAKER_LOCAL_INVOCATION_TIMEOUT": "2"})
    config = serving.config(serving.model(name="good"))
    name = serving.in_service(config)
    serving.service.stop()
    (archive,) = (serving.service.folder / "data").rglob("model.tar.gz")
    archive.write_bytes(make_archive({"behaviour.json": b'{"name": "bad", "exit_at_start": 3}'}))
    serving.service.start()
    with pytest.raises(ClientError) as refused:  # while it is tried, or after
        serving.invoke(name)
    assert refused.value.response["Error"]["Code"] in ("ServiceUnavailable", "ValidationError")
    until(lambda: serving.describe(name)["EndpointStatus"] == "Failed", "the endpoint fails")
    assert "exit code 3" in serving.describe(name)["FailureReason"]
    serving.delete(name)
    assert serving.invoke(serving.in_service(config))["model"] == "good"
    serving.service.stop()
    assert children(serving) == set()
