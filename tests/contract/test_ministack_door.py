"""Who is let in to MiniStack: whoever signs, and with a secret of one's own, whoever signs with that.

And to `sagemaker_local` as the platform starts it; a browser is turned away from it in tests/browser/test_next_door.py.
"""

from __future__ import annotations

import http.client
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from embedded import services
from embedded.container import LOCAL_PARAMETERS
from embedded.environment import client
from embedded.processes import end_leftovers, stop_all
from embedded.settings import EmbeddedSettings, free_port

SECRET = "a-secret-of-my-own"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/x/aws4_request"}
HANDLER = """
import boto3
def handler(event, context):
    boto3.client("s3").put_object(Bucket=event["bucket"], Key="from-a-function", Body=b"x")
"""


def _answer(url: str, method: str, path: str, headers: dict[str, str], body: str = "") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(method, path, body=body.encode() if body else None, headers=headers)
    return connection.getresponse()


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("POST", "/", FORM, "Action=CreateStack&StackName=mine&TemplateBody={}"),
        ("POST", "/", {"Content-Type": "text/plain"}, "Action=CreateStack&StackName=mine&TemplateBody={}"),
        ("POST", "/_ministack/reset", {}, ""),
        ("POST", "/_ministack/reset", SIGNED | {"Origin": "http://evil.example"}, ""),
        ("POST", "/_ministack/reset", SIGNED | {"Sec-Fetch-Site": "cross-site"}, ""),
        ("POST", "/_ministack/reset", SIGNED | {"Host": "evil.example"}, ""),
        ("POST", "/_ministack/config", {}, "{}"),
        ("GET", "/some-bucket/some-key", {}, ""),
        ("OPTIONS", "/", {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}, ""),
    ],
)
def test_what_a_page_can_send_is_refused(
    ministack: str, method: str, path: str, headers: dict[str, str], body: str
) -> None:
    answer = _answer(ministack, method, path, headers, body)
    assert answer.status == 403
    assert not [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        (SIGNED | {"Origin": "http://evil.example"}, 403),
        (SIGNED | {"Sec-Fetch-Site": "cross-site"}, 403),
        (SIGNED | {"Host": "evil.example"}, 403),
        (SIGNED, 200),
    ],
)
def test_sagemaker_local_has_the_same_door(sagemaker_local: str, headers: dict[str, str], status: int) -> None:
    asked = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}
    assert _answer(sagemaker_local, "POST", "/", asked | headers, "{}").status == status


def test_no_page_may_read_an_answer(ministack: str, aws: Callable[..., Any]) -> None:
    answer = aws("s3").list_buckets()["ResponseMetadata"]["HTTPHeaders"]
    assert "access-control-allow-origin" not in answer


def test_health_needs_no_signature(ministack: str) -> None:
    assert _answer(ministack, "GET", "/_ministack/health", {}).status == 200


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, platform_settings: EmbeddedSettings
) -> Iterator[EmbeddedSettings]:
    """A MiniStack with a secret of its own."""
    settings = replace(
        platform_settings, run_dir=tmp_path_factory.mktemp("guarded"), aws_port=free_port(), aws_secret_key=SECRET
    )
    service = services.ministack(settings)
    service.start()
    try:
        service.wait_ready()
        yield settings
    finally:
        stop_all([service])
        end_leftovers(settings.run_dir)


def test_another_secret_is_refused_and_ones_own_is_not(guarded: EmbeddedSettings) -> None:
    stranger = boto3.Session("test", "test", region_name="us-east-1").client("s3", endpoint_url=guarded.aws_url)
    with pytest.raises(ClientError) as caught:
        stranger.list_buckets()
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    for service, call in (("s3", "list_buckets"), ("stepfunctions", "list_state_machines"), ("sns", "list_topics")):
        assert getattr(client(guarded, service), call)()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_presigned_urls_go_on_working(guarded: EmbeddedSettings) -> None:
    s3 = client(guarded, "s3")
    s3.create_bucket(Bucket="presigned")
    where = {"Bucket": "presigned", "Key": "a b/ü.txt"}
    assert requests.put(s3.generate_presigned_url("put_object", where), b"content", timeout=30).status_code == 200
    url = s3.generate_presigned_url("get_object", where)
    assert requests.get(url, timeout=30).content == b"content"
    assert requests.get(url.replace(".txt", ".TXT"), timeout=30).status_code == 403


def test_a_function_has_the_secret_too(guarded: EmbeddedSettings) -> None:
    client(guarded, "s3").create_bucket(Bucket="of-a-function")
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as content:
        content.writestr("code.py", HANDLER)
    client(guarded, "lambda").create_function(
        FunctionName="writes",
        Runtime=LOCAL_PARAMETERS["FunctionRuntime"],
        Role=f"arn:aws:iam::{client(guarded, 'sts').get_caller_identity()['Account']}:role/unused",
        Handler="code.handler",
        Timeout=60,
        Code={"ZipFile": package.getvalue()},
    )
    answer = client(guarded, "lambda").invoke(FunctionName="writes", Payload=json.dumps({"bucket": "of-a-function"}))
    assert "FunctionError" not in answer, answer["Payload"].read()
    assert client(guarded, "s3").head_object(Bucket="of-a-function", Key="from-a-function")["ContentLength"] == 1


def test_the_stack_is_deployed_with_it(guarded: EmbeddedSettings) -> None:
    services.deploy(guarded)
    found = client(guarded, "cloudformation").describe_stacks(StackName=guarded.stack_name)["Stacks"][0]
    assert found["StackStatus"] == "CREATE_COMPLETE"
    outputs = {item["OutputKey"]: item["OutputValue"] for item in found["Outputs"]}
    event = json.dumps({"s3_bucket": outputs["BucketName"], "s3_key": "absent.png"})
    answer = client(guarded, "lambda").invoke(FunctionName=outputs["SerializeFunctionName"], Payload=event)
    assert json.loads(answer["Payload"].read())["errorType"] == "ImageNotFoundError", "it was let in to S3"
