"""InvokeEndpoint through boto3: what is passed on, what goes wrong, and who notices."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

LIMIT = 6 * 1024 * 1024


@pytest.fixture(scope="module")
def endpoint(shared_serving):
    """An endpoint that the tests of this module share."""
    name = shared_serving.in_service(shared_serving.config(shared_serving.model(name="plain")))
    yield name
    shared_serving.delete(name)
    shared_serving.endpoints.remove(name)


def model_error(serving, endpoint, request) -> ClientError:
    with pytest.raises(ClientError) as caught:
        serving.invoke(endpoint, request)
    error = caught.value
    assert error.response["Error"]["Code"] == "ModelError"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error.response["LogStreamArn"].endswith(f"log-group:/aws/sagemaker/Endpoints/{endpoint}")
    return error


def validation_error(call) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return caught.value.response["Error"]["Message"]


def test_what_the_caller_sends_reaches_the_model_and_back(serving, endpoint):
    answer = serving.runtime.invoke_endpoint(
        EndpointName=endpoint,
        Body=b"\x89PNG\x00\xff",
        ContentType="image/png",
        Accept="application/json;verbose",
        CustomAttributes="test%2Fa.png",
        InferenceId="run-7",
    )
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "seen:test%2Fa.png"
    seen = json.loads(answer["Body"].read())
    assert seen["content_type"] == "image/png"
    assert seen["accept"] == "application/json;verbose"
    assert seen["custom_attributes"] == "test%2Fa.png"
    assert seen["echo"] == 6


@pytest.mark.parametrize(("status", "kind"), [(400, "client"), (415, "client"), (500, "server"), (503, "server")])
def test_an_error_of_the_model_comes_with_its_status_and_body(serving, endpoint, status, kind):
    error = model_error(serving, endpoint, {"do": "status", "status": status, "message": "not my day"})
    assert error.response["OriginalStatusCode"] == status
    assert error.response["OriginalMessage"] == "not my day"
    assert f'Received {kind} error ({status}) from primary with message "not my day"' in str(error)


@pytest.mark.parametrize("wish", ["garbage", "silence"])
def test_an_answer_that_is_none(serving, endpoint, wish):
    error = model_error(serving, endpoint, {"do": wish})
    assert error.response["OriginalStatusCode"] == 0
    assert "gave no answer" in error.response["OriginalMessage"]
    assert serving.invoke(endpoint)["model"] == "plain"


def test_an_answer_over_the_limit(serving, endpoint):
    error = model_error(serving, endpoint, {"do": "large", "bytes": LIMIT + 1})
    assert str(LIMIT) in error.response["OriginalMessage"]
    answer = serving.runtime.invoke_endpoint(
        EndpointName=endpoint, Body=json.dumps({"do": "large", "bytes": LIMIT}), ContentType="application/json"
    )
    assert len(answer["Body"].read()) == LIMIT


def test_payloads_up_to_the_limit_and_over_it(serving, endpoint):
    answer = serving.runtime.invoke_endpoint(EndpointName=endpoint, Body=bytes(LIMIT), ContentType="image/png")
    assert json.loads(answer["Body"].read())["echo"] == LIMIT
    message = validation_error(lambda: serving.runtime.invoke_endpoint(EndpointName=endpoint, Body=bytes(LIMIT + 1)))
    assert "'body'" in message
    assert str(LIMIT) in message


def test_requests_that_cannot_be_honoured(serving, endpoint):
    def invoke(name=endpoint, **more):
        return lambda: serving.runtime.invoke_endpoint(EndpointName=name, Body=b"x", **more)

    assert validation_error(invoke("ghost")).startswith("Endpoint ghost of account ")
    assert validation_error(invoke("ghost")).endswith(" not found.")
    assert "Variant ghost" in validation_error(invoke(TargetVariant="ghost"))
    assert "inferenceId" in validation_error(invoke(InferenceId="x" * 65))
    assert "customAttributes" in validation_error(invoke(CustomAttributes="x" * 1025))
    assert "TargetModel" in validation_error(invoke(TargetModel="a.tar.gz"))
    message = validation_error(
        lambda: serving.runtime.invoke_endpoint_async(EndpointName=endpoint, InputLocation="s3://b/k")
    )
    assert "is not an asynchronous endpoint" in message


def test_a_crash_costs_the_request_under_way_and_no_other(serving):
    """Requests before, beside and after the one that kills the server: all but that one are answered."""
    name = serving.in_service(serving.config(serving.model()))
    before = serving.invoke(name)["process"]

    def call(number):
        try:
            wish = {"do": "crash", "after": 0.2} if number == 5 else {"do": "slow", "seconds": 0.3, "number": number}
            return serving.invoke(name, wish)["echo"]["number"]
        except ClientError as error:
            return error.response["Error"]["Code"]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(call, range(12)))
    assert answers == [number if number != 5 else "ModelError" for number in range(12)]
    assert serving.invoke(name)["process"] != before
    assert serving.describe(name)["EndpointStatus"] == "InService"


def test_a_server_that_does_not_come_back_is_service_unavailable(serving, until):
    name = serving.in_service(serving.config(serving.model()))
    model_error(serving, name, {"do": "status", "status": 500, "message": "still here"})
    [behaviour] = (serving.service.folder / "data" / "endpoints" / name).rglob("behaviour.json")
    healthy = behaviour.read_bytes()
    behaviour.write_text('{"exit_at_start": 1}')
    model_error(serving, name, {"do": "crash"})
    with pytest.raises(ClientError) as caught:
        serving.invoke(name)
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert serving.describe(name)["ProductionVariants"][0]["CurrentInstanceCount"] == 0
    behaviour.write_bytes(healthy)  # it is tried for ever, so it comes back with its cause gone
    until(lambda: serving.describe(name)["ProductionVariants"][0]["CurrentInstanceCount"], "the server is back")
    assert serving.invoke(name)["model"]


def test_a_hung_server_times_out_and_is_replaced(serving, until):
    name = serving.in_service(serving.config(serving.model()))
    before = serving.invoke(name)["process"]
    error = model_error(serving, name, {"do": "hang"})
    assert error.response["OriginalStatusCode"] == 0
    assert "Your invocation timed out" in error.response["OriginalMessage"]

    def another_answers() -> bool:
        try:
            return serving.invoke(name)["process"] != before
        except ClientError as error:  # the invocation that is under way when the hung process is killed
            if error.response["Error"]["Code"] != "ModelError":
                raise
            return False

    until(another_answers, "another process answers")


def test_traffic_follows_the_weights_and_can_be_aimed(serving):
    models = [serving.model(), serving.model()]
    name = serving.in_service(serving.config(*models, weights=(3.0, 1.0)))
    counts = Counter(serving.invoke(name)["model"] for _ in range(200))
    assert 110 < counts[models[0]] < 185  # 150 expected; outside by chance less than once in a million
    for variant, model in zip(("v0", "v1"), models, strict=True):
        assert {serving.invoke(name, TargetVariant=variant)["model"] for _ in range(5)} == {model}
    wanted = [{"VariantName": "v0", "DesiredWeight": 0.0}, {"VariantName": "v1", "DesiredInstanceCount": 2}]
    serving.sm.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    found = {one["VariantName"]: one for one in serving.settled(name)["ProductionVariants"]}
    assert (found["v0"]["CurrentWeight"], found["v1"]["CurrentInstanceCount"]) == (0.0, 2)
    assert {serving.invoke(name)["model"] for _ in range(20)} == {models[1]}
    assert serving.invoke(name, TargetVariant="v0")["model"] == models[0]
    with pytest.raises(ClientError, match="Could not find production variant"):
        serving.sm.update_endpoint_weights_and_capacities(
            EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "ghost", "DesiredWeight": 1}]
        )


def test_200_concurrent_invocations_never_mix_answers(serving):
    name = serving.in_service(serving.config(serving.model(), count=2))
    payloads = [{"number": number, "filler": "x" * (number * 37 % 4000)} for number in range(200)]
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda payload: serving.invoke(name, payload)["echo"], payloads))
    assert answers == payloads


def test_a_slow_model_does_not_hold_up_other_callers(serving, endpoint):
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(serving.invoke, endpoint, {"do": "slow", "seconds": 2}) for _ in range(4)]
        started = time.monotonic()
        serving.invoke(endpoint)
        assert time.monotonic() - started < 1.5
        assert all(call.result()["model"] == "plain" for call in slow)
