"""Functions and Lambda tasks on the real platform, as Lambda's and Step Functions' documentation has them."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded.container import LOCAL_PARAMETERS
from tests.support.local_service import wait_execution, wait_until

ROLE = "arn:aws:iam::111122223333:role/unused"

CODE = """
import base64

def handler(event, context):
    kind = event.get("kind") if isinstance(event, dict) else None
    if kind == "bytes":
        return {"statusCode": 200, "body": base64.b64encode(b"png")}
    if kind == "text":
        return '{"a": 1}'
    if kind == "raise":
        raise LookupError("nothing there")
    if kind == "recurse":
        import boto3
        client = boto3.client("lambda")
        answer = client.invoke(FunctionName=context.function_name, Payload='{"kind": "trace"}')
        return answer["Payload"].read().decode()
    if kind == "trace":
        import os
        return os.environ["_X_AMZN_TRACE_ID"]
    print("seen", kind)
    return [type(event).__name__, event]
"""

SIZES = """
import os

def handler(event, context):
    files = "/var/task/python/code.bin", "/opt/python/layer.bin"
    return {name: os.path.getsize(name) for name in files}
"""


def package(code: str = CODE) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("code.py", code)
    return archive.getvalue()


@pytest.fixture(scope="module")
def function(ministack: str, aws: Callable[..., Any]) -> str:
    name = f"probe-{uuid.uuid4().hex[:8]}"
    aws("lambda").create_function(
        FunctionName=name,
        Runtime=LOCAL_PARAMETERS["FunctionRuntime"],
        Role=ROLE,
        Handler="code.handler",
        Code={"ZipFile": package()},
    )
    return name


def test_answers_errors_and_the_log_come_through_the_api(aws: Callable[..., Any], function: str) -> None:
    client = aws("lambda")
    answer = client.invoke(FunctionName=function, Payload='{"kind": "bytes"}')
    assert json.loads(answer["Payload"].read()) == {"statusCode": 200, "body": "cG5n"}
    failed = client.invoke(FunctionName=function, Payload='{"kind": "raise"}', LogType="Tail")
    told = json.loads(failed["Payload"].read())
    assert (failed["FunctionError"], told["errorType"], told["errorMessage"]) == (
        "Unhandled", "LookupError", "nothing there",
    )  # fmt: skip
    log = base64.b64decode(failed["LogResult"]).decode()
    assert log.startswith("START RequestId: ")
    assert "[ERROR] LookupError: nothing there\nTraceback" in log
    assert "\tMax Memory Used: " in log


def test_an_environments_invocations_share_a_log_stream(aws: Callable[..., Any], function: str) -> None:
    for _ in range(2):
        aws("lambda").invoke(FunctionName=function, Payload='{"kind": "here"}')
    group = {"logGroupName": f"/aws/lambda/{function}"}
    (stream,) = aws("logs").describe_log_streams(**group)["logStreams"]
    events = aws("logs").get_log_events(**group, logStreamName=stream["logStreamName"])["events"]
    assert [event["message"] for event in events].count("seen here") == 2


def test_functions_that_call_one_another_are_counted(aws: Callable[..., Any], function: str) -> None:
    answer = aws("lambda").invoke(FunctionName=function, Payload='{"kind": "recurse"}')
    assert json.loads(answer["Payload"].read()).rstrip('"').endswith(":2")


@pytest.mark.slow
def test_code_and_layers_may_be_as_large_as_on_aws(ministack: str, aws: Callable[..., Any]) -> None:
    """250 MiB unpacked, layers included (Lambda's quotas); zips over 50 MB come by S3."""
    s3, client, name = aws("s3"), aws("lambda"), f"large-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    megabytes = {"code": 120, "layer": 120, "too-much": 20}
    for what, size in megabytes.items():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr(f"python/{what}.bin", random.Random(what).randbytes(size << 20))
            content.writestr("code.py", SIZES)
        s3.put_object(Bucket=name, Key=what, Body=archive.getvalue())

    def layer(what: str) -> str:
        content = {"S3Bucket": name, "S3Key": what}
        return str(client.publish_layer_version(LayerName=f"{name}-{what}", Content=content)["LayerVersionArn"])

    asked = {
        "Runtime": LOCAL_PARAMETERS["FunctionRuntime"],
        "Role": ROLE,
        "Handler": "code.handler",
        "Timeout": 60,
        "Code": {"S3Bucket": name, "S3Key": "code"},
    }
    layers = [layer("layer")]
    client.create_function(FunctionName=name, Layers=layers, **asked)
    sizes = json.loads(client.invoke(FunctionName=name)["Payload"].read())
    assert sizes == {"/var/task/python/code.bin": 120 << 20, "/opt/python/layer.bin": 120 << 20}
    with pytest.raises(ClientError, match="must be smaller than 262144000 bytes") as refused:
        client.create_function(FunctionName=f"{name}-2", Layers=[*layers, layer("too-much")], **asked)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_a_version_of_python_that_is_not_here_is_refused_at_creation(ministack: str, aws: Callable[..., Any]) -> None:
    asked = {"FunctionName": "absent", "Runtime": "python3.99", "Role": ROLE, "Handler": "code.handler"}
    here = re.escape(str(LOCAL_PARAMETERS["FunctionRuntime"]))
    with pytest.raises(ClientError, match=rf"python3\.99 is not installed on this machine.*{here}") as refused:
        aws("lambda").create_function(**asked, Code={"ZipFile": package()})
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_a_function_does_not_change_to_a_version_that_is_not_here(aws: Callable[..., Any], function: str) -> None:
    with pytest.raises(ClientError, match="not installed"):
        aws("lambda").update_function_configuration(FunctionName=function, Runtime="python3.99")


def test_a_stack_with_a_version_that_is_not_here_says_so(ministack: str, aws: Callable[..., Any]) -> None:
    properties = {"Runtime": "python3.99", "Role": ROLE, "Handler": "index.handler", "Code": {"ZipFile": "x = 1"}}
    template = {"Resources": {"F": {"Type": "AWS::Lambda::Function", "Properties": properties}}}
    client, name = aws("cloudformation"), f"absent-{uuid.uuid4().hex[:8]}"
    client.create_stack(StackName=name, TemplateBody=json.dumps(template))

    def ended() -> str | None:
        status: str = client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        return None if status == "CREATE_IN_PROGRESS" else status

    assert wait_until(ended, "the stack's creation ends") in {"ROLLBACK_COMPLETE", "CREATE_FAILED"}
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    assert any("python3.99 is not installed" in event.get("ResourceStatusReason", "") for event in events)


Run = Callable[[dict[str, Any], Any], dict[str, Any]]


@pytest.fixture(scope="module")
def run(ministack: str, aws: Callable[..., Any]) -> Run:
    """Run a state machine of one task on an input, to its end."""
    client = aws("stepfunctions")

    def run(state: dict[str, Any], data: Any) -> dict[str, Any]:
        definition = {"StartAt": "T", "States": {"T": {"Type": "Task", "End": True, **state}}}
        machine = client.create_state_machine(
            name=f"probe-{uuid.uuid4().hex[:8]}", roleArn=ROLE, definition=json.dumps(definition)
        )["stateMachineArn"]
        arn = client.start_execution(stateMachineArn=machine, input=json.dumps(data))["executionArn"]
        return wait_execution(client, arn)

    return run


def task(function: str, **more: Any) -> dict[str, Any]:
    return {
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload.$": "$.body"},
        **more,
    }


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"a": 1}, ["dict", {"a": 1}]),
        ('{"a": 1}', ["dict", {"a": 1}]),
        ("[1]", ["list", [1]]),
        ("plain", ["str", "plain"]),
        (7, ["int", 7]),
    ],
)
def test_a_json_text_is_the_event_itself(run: Run, function: str, body: Any, seen: Any) -> None:
    """Three published runs of the course's project rest on it: `"Payload.$": "$.body"` gives the handler a dict."""
    ended = run(task(function, OutputPath="$.Payload"), {"body": body})
    assert json.loads(ended["output"]) == seen


def test_an_answer_that_is_a_text_stays_one(run: Run, function: str) -> None:
    ended = run(task(function, OutputPath="$.Payload"), {"body": {"kind": "text"}})
    assert json.loads(ended["output"]) == '{"a": 1}'


def test_a_result_has_the_fields_of_the_integration(run: Run, function: str) -> None:
    """docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html"""
    result = json.loads(run(task(function), {"body": {}})["output"])
    assert set(result) == {"ExecutedVersion", "Payload", "SdkHttpMetadata", "SdkResponseMetadata", "StatusCode"}
    assert (result["ExecutedVersion"], result["StatusCode"]) == ("$LATEST", 200)
    metadata = result["SdkHttpMetadata"]
    assert metadata["HttpHeaders"]["x-amzn-RequestId"] == result["SdkResponseMetadata"]["RequestId"]
    assert metadata["AllHttpHeaders"]["Content-Type"] == ["application/json"]


def test_a_task_fails_under_the_handlers_error(run: Run, function: str) -> None:
    ended = run(task(function), {"body": {"kind": "raise"}})
    assert (ended["status"], ended["error"]) == ("FAILED", "LookupError")
    assert json.loads(ended["cause"])["errorMessage"] == "nothing there"


def test_no_payload_is_an_empty_event(run: Run, function: str) -> None:
    state = {"Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": function}}
    assert json.loads(run(state | {"OutputPath": "$.Payload"}, {"x": 1})["output"]) == ["dict", {}]
