"""Who is let in: requests as boto3 really sends them, as a browser sends them, and as an attacker would."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import boto3
import botocore.parsers
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config

from sagemaker_local.guard import Guard
from tests.support.asgi import ask, scope_of

SECRET = "a-secret-of-ones-own"


class Inner:
    """What is guarded: remembers the body it was given, and answers 200."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Captured(Exception):
    """Instead of sending."""


def signed(service: str, call: Callable[[Any], Any], secret: str = SECRET, **config: Any) -> AWSPreparedRequest:
    """The request that boto3 makes of a call."""
    sent: list[AWSPreparedRequest] = []

    def keep(request: AWSPreparedRequest, **_: Any) -> None:
        sent.append(request)
        raise Captured

    client = boto3.client(
        service,
        region_name="eu-west-1",
        aws_access_key_id="anyone",
        aws_secret_access_key=secret,
        endpoint_url="http://127.0.0.1:4566",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )
    client.meta.events.register("before-send", keep)
    with pytest.raises(Captured):
        call(client)
    return sent[0]


def body_of(request: AWSPreparedRequest) -> bytes:
    body = request.body
    if body is None:
        return b""
    if hasattr(body, "read"):
        body.seek(0)
        return bytes(body.read())
    return body.encode() if isinstance(body, str) else bytes(body)


def replay(guard: Guard, request: AWSPreparedRequest, body: bytes | None = None) -> int:
    scope = scope_of(request.method, request.url, dict(request.headers.items()))
    return ask(guard, scope, body_of(request) if body is None else body)[0]


CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "json": ("sagemaker", lambda c: c.describe_model(ModelName="a")),
    "rest json with a body": (
        "sagemaker-runtime",
        lambda c: c.invoke_endpoint(EndpointName="e", Body=b"\x89PNG...", ContentType="image/png"),
    ),
    "query": ("cloudformation", lambda c: c.describe_stacks(StackName="s t/ö")),
    "rest path": ("lambda", lambda c: c.get_function(FunctionName="arn:aws:lambda:eu-west-1:111122223333:function:f")),
    "s3 object": ("s3", lambda c: c.put_object(Bucket="b", Key="a b/ä+&=%25//..x.png", Body=b"content")),
    "s3 listing": ("s3", lambda c: c.list_objects_v2(Bucket="bkt", Prefix="a b/ä&", Delimiter="/", MaxKeys=5)),
}


@pytest.mark.parametrize("kind", CALLS)
def test_what_boto3_signs_is_let_in_and_with_another_secret_is_not(kind):
    service, call = CALLS[kind]
    inner = Inner()
    guard = Guard(inner, secret_key=SECRET)
    request = signed(service, call)
    assert replay(guard, request) == 200
    assert inner.bodies == [body_of(request)]
    assert replay(guard, signed(service, call, secret="test")) == 403
    assert replay(Guard(inner), signed(service, call, secret="test")) == 200
    assert len(inner.bodies) == 2


def test_a_changed_body_path_or_date_is_refused():
    guard = Guard(Inner(), secret_key=SECRET)
    request = signed(*CALLS["json"])
    assert replay(guard, request, b'{"ModelName": "b"}') == 403
    scope = scope_of("POST", "http://127.0.0.1:4566/other", dict(request.headers.items()))
    assert ask(guard, scope, body_of(request))[0] == 403
    late = Guard(Inner(), secret_key=SECRET, now=lambda: time.time() + 1000)
    assert replay(late, request) == 403


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_work_until_they_expire_and_only_for_what_they_name(version):
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="anyone",
        aws_secret_access_key=SECRET,
        endpoint_url="http://127.0.0.1:4566",
        config=Config(signature_version=version),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bkt", "Key": "a b/ä.png"}, ExpiresIn=60)
    guard = Guard(Inner(), secret_key=SECRET)
    assert ask(guard, scope_of("GET", url, {}))[0] == 200
    assert ask(guard, scope_of("GET", url, {"Sec-Fetch-Site": "same-site"}))[0] == 200, "a link in a page of Airflow"
    assert ask(guard, scope_of("DELETE", url, {}))[0] == 403
    assert ask(guard, scope_of("GET", url.replace("a%20b", "other"), {}))[0] == 403
    late = Guard(Inner(), secret_key=SECRET, now=lambda: time.time() + 61)
    assert ask(late, scope_of("GET", url, {}))[0] == 403


BROWSER = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host"}


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"Origin": "http://evil.example"}),
        ("POST", {"Origin": "null"}),
        ("POST", {"Origin": "http://127.0.0.1:8080"}),
        ("OPTIONS", {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}),
        ("POST", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", {"Sec-Fetch-Site": "same-site"}),
        ("GET", {"Sec-Fetch-Site": "cross-site"}),
        ("POST", {"Host": "evil.example:4566"}),
        ("POST", {"Host": "127.0.0.1.evil.example"}),
        ("POST", {"Host": "localhost.evil.example"}),
        ("POST", {"Host": "user@127.0.0.1:80@evil.example"}),
        ("POST", {"Host": ""}),
        ("POST", {"Host": "[::1"}),
        ("POST", {"Host": "\xb2"}),
    ],
)
def test_what_a_page_of_another_site_sends_is_refused_signed_or_not(method, headers):
    inner = Inner()
    status, answered, _ = ask(Guard(inner), scope_of(method, "http://127.0.0.1:4566/", {**BROWSER, **headers}))
    assert (status, inner.bodies) == (403, [])
    assert not [name for name in answered if name.startswith(b"access-control")]
    assert answered[b"x-amzn-requestid"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:4566", "localhost", "LOCALHOST:1", "[::1]:4566", "b.localhost", "127.9.8.7", "172.18.0.1:4566"]
)
def test_this_machines_own_names_are_let_in(host):
    assert ask(Guard(Inner()), scope_of("POST", "http://x/", {**BROWSER, "Host": host}))[0] == 200


def test_other_names_are_let_in_when_they_are_listed():
    guard = Guard(Inner(), allowed_hosts=["ministack", "*.example.net"])
    ask_for = lambda host: ask(guard, scope_of("POST", "http://x/", {**BROWSER, "Host": host}))[0]  # noqa: E731
    assert [ask_for(host) for host in ("ministack:4566", "a.example.net", "example.net", "ministack2")] == [
        200,
        200,
        403,
        403,
    ]


def test_the_service_own_origin_is_let_in():
    headers = {**BROWSER, "Origin": "http://127.0.0.1:4566", "Sec-Fetch-Site": "same-origin"}
    assert ask(Guard(Inner()), scope_of("POST", "http://127.0.0.1:4566/", headers))[0] == 200


def test_unsigned_requests_are_refused_but_health_checks_are_not():
    guard = Guard(Inner(), open_paths=("/health",))
    status, headers, body = ask(guard, scope_of("POST", "http://127.0.0.1/", {}))
    assert status == 403
    assert headers[b"x-amzn-errortype"] == b"MissingAuthenticationTokenException"
    assert json.loads(body)["__type"] == "MissingAuthenticationTokenException"
    assert ask(guard, scope_of("GET", "http://127.0.0.1/health", {}))[0] == 200
    assert ask(guard, scope_of("GET", "http://127.0.0.1/health", {"Host": "evil.example"}))[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "AWS4-HMAC-SHA256 "},
        {"Authorization": "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=;, Signature=\xff"},
        {"Authorization": "AWS4-HMAC-SHA256 Credential=////, SignedHeaders=host, Signature=x", "X-Amz-Date": "now"},
        {"Authorization": "AWS4-HMAC-SHA256 =,=,,", "X-Amz-Date": "20260101T000000Z"},
        {"Authorization": "Bearer x"},
    ],
)
def test_a_malformed_signature_is_refused_and_never_an_error(headers):
    inner = Inner()
    assert ask(Guard(inner, secret_key=SECRET), scope_of("POST", "http://127.0.0.1/", headers))[0] == 403
    assert inner.bodies == []


@pytest.mark.parametrize(
    "query", ["X-Amz-Signature=", "Signature=&AWSAccessKeyId=a&Expires=²", "X-Amz-Signature=a&X-Amz-Expires=²"]
)
def test_a_malformed_presigned_url_is_refused(query):
    scope = scope_of("GET", "http://127.0.0.1/b/k", {})
    scope["query_string"] = query.encode("latin-1")
    assert ask(Guard(Inner(), secret_key=SECRET), scope)[0] == 403


def test_clients_read_the_refusal():
    """botocore's own parsers: JSON, query and S3 errors keep their code."""
    guard = Guard(Inner(), secret_key=SECRET)
    for kind, protocol in (("json", "json"), ("query", "query"), ("s3 object", "rest-xml"), ("rest path", "rest-json")):
        request = signed(*CALLS[kind], secret="test")
        scope = scope_of(request.method, request.url, dict(request.headers.items()))
        status, headers, body = ask(guard, scope, body_of(request))
        response = {
            "status_code": status,
            "headers": {name.decode(): value.decode() for name, value in headers.items()},
            "body": body,
        }
        parsed = botocore.parsers.create_parser(protocol).parse(response, None)
        assert parsed["Error"]["Code"] == "SignatureDoesNotMatch", kind


def test_a_websocket_is_held_to_the_same_and_lifespan_passes():
    seen: list[Any] = []

    async def inner(scope, receive, send) -> None:
        seen.append(scope["type"])

    async def send(message: Any) -> None:
        seen.append(message["type"])

    scope = {**scope_of("GET", "http://evil.example/", {}), "type": "websocket"}
    asyncio.run(Guard(inner)(scope, lambda: None, send))  # type: ignore[arg-type, return-value]
    asyncio.run(Guard(inner)({"type": "lifespan"}, lambda: None, send))  # type: ignore[arg-type, return-value]
    assert seen == ["websocket.close", "lifespan"]


def test_a_refusal_is_logged_without_the_signature(caplog):
    with caplog.at_level(logging.WARNING):
        ask(Guard(Inner()), scope_of("POST", "http://evil.example/x", {**BROWSER}))
    assert "refused POST /x" in caplog.text
    assert "Credential" not in caplog.text


def test_an_upload_by_presigned_url_keeps_its_content_type():
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="anyone",
        aws_secret_access_key=SECRET,
        endpoint_url="http://127.0.0.1:4566",
    )
    parameters = {"Bucket": "bkt", "Key": "k", "ContentType": "image/png"}
    url = client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=60)
    guard = Guard(Inner(), secret_key=SECRET)
    assert ask(guard, scope_of("PUT", url, {"Content-Type": "image/png"}), b"x" * 10)[0] == 200
    assert ask(guard, scope_of("PUT", url, {"Content-Type": "text/html"}), b"x" * 10)[0] == 403
