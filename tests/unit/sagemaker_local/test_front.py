"""What the service answers to what no client sends: an error in AWS's form with a request id, and never a 500."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from botocore.exceptions import EndpointConnectionError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sagemaker_local import app
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceError, ServiceUnavailable
from sagemaker_local.protocol import SERVICES, service_model
from sagemaker_local.serving import runtime
from sagemaker_local.serving.runtime import InvokeEndpointAsync
from sagemaker_local.slow_clients import TimedProtocol
from tests.support.asgi import ask, scope_of

URL = "http://127.0.0.1/"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application, its areas not started: what is refused before they are asked."""
    ctx = Context(Config(data_dir=tmp_path_factory.mktemp("front"), account_id="1" * 12))
    yield app.create_app(ctx)
    ctx.close()


def call(service: Any, operation: str, body: bytes) -> tuple[int, str, dict[str, Any]]:
    """Status, error code and body, after checking that the answer has AWS's form."""
    status, headers, answer = ask(service, scope_of("POST", URL, {"X-Amz-Target": f"SageMaker.{operation}"}), body)
    document = json.loads(answer)
    assert headers[b"x-amzn-requestid"]
    if status != 200:
        assert document["__type"] == headers[b"x-amzn-errortype"].decode()
        assert document["message"]
    return status, headers.get(b"x-amzn-errortype", b"").decode(), document


MODEL = '{"ModelName": %s}'
TRAINING = '{"TrainingJobName": "a", "StoppingCondition": {"MaxRuntimeInSeconds": %s}}'
LISTING = '{"CreationTimeAfter": %s}'


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("DescribeModel", MODEL % r'"\ud800"'),
        ("DescribeModel", MODEL % r'"a\u0000b"'),
        ("DescribeModel", "[" * 200_000),
        ("DescribeModel", '{"a":' * 100_000),
        ("DescribeModel", "NaN"),
        ("DescribeModel", '{"ModelName": "a"'),
        ("DescribeModel", "\xff"),
        ("CreateTrainingJob", TRAINING % "1e400"),
        ("CreateTrainingJob", TRAINING % "NaN"),
        ("CreateTrainingJob", TRAINING % "-Infinity"),
        ("CreateTrainingJob", TRAINING % ("9" * 400)),
        ("CreateTrainingJob", TRAINING % ("9" * 5000)),
        ("CreateTrainingJob", TRAINING % "10000000000"),
        ("ListModels", LISTING % "1e400"),
        ("ListModels", LISTING % ("9" * 400)),
        ("ListModels", LISTING % "true"),
        ("ListModels", LISTING % '"0000-00-00"'),
        ("CreateModel", r'{"ModelName": "m", "PrimaryContainer": {"Environment": {"\udfff": "x"}}}'),
        ("Search", '{"Resource": "Endpoint", "SearchExpression": ' + '{"SubExpressions": [' * 400 + "]}" * 400 + "}"),
    ],
)
def test_what_is_no_json_of_this_world_is_a_serialization_error(service, operation, body):
    status, code, _ = call(service, operation, body.encode("latin-1"))
    assert (status, code) == (400, "SerializationException")


def test_a_next_token_of_nobody_is_refused(service):
    for token in ("[" * 3000, "[]", '["x"]', '["x", {}, []]', "1e999", '["' + "9" * 999 + '"]'):
        body = json.dumps({"NextToken": base64.urlsafe_b64encode(token.encode()).decode()}).encode()
        assert call(service, "ListModels", body)[:2] == (400, "ValidationException"), token


def test_a_large_body_is_refused_before_it_is_whole(service):
    sent = []

    async def receive() -> dict[str, Any]:
        sent.append(1)
        return {"type": "http.request", "body": b" " * (1 << 20), "more_body": True}

    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    scope = scope_of("POST", URL, {"X-Amz-Target": "SageMaker.ListModels"})
    asyncio.run(service(scope, receive, send))
    assert answers[0]["status"] == 413
    assert json.loads(answers[1]["body"])["__type"] == "RequestEntityTooLargeException"
    assert len(sent) == app.MAX_BODY // (1 << 20) + 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "", 405), ("PUT", "", 405), ("POST", "nowhere", 404), ("GET", "endpoints/e/invocations", 405)],
)
def test_404_and_405_have_awss_form(service, method, path, status):
    got, headers, body = ask(service, scope_of(method, URL + path))
    assert got == status
    assert headers[b"x-amzn-requestid"]
    assert json.loads(body)["__type"] == "UnknownOperationException"


@pytest.mark.parametrize("value", ["²", "٣".encode().decode("latin-1"), "9" * 5000, "-60", "1e3", "", "59", "21601"])
def test_a_time_to_live_that_is_no_number_is_refused(value):
    with pytest.raises(runtime.ValidationError):
        runtime._number("RequestTTLSeconds", value, 60, 21_600)
    assert runtime._number("RequestTTLSeconds", "60", 60, 21_600) == 60
    assert InvokeEndpointAsync.max_body == 128_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["s3://[x", "²"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request_of(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Documents that are nearly right: the shape's members, each right, missing, or anything at all."""
    if shape.type_name == "structure" and depth < 5:
        members = {name: request_of(member, depth + 1) for name, member in shape.members.items()}
        required = {name: members[name] for name in shape.required_members}
        return st.fixed_dictionaries(required, optional={k: v for k, v in members.items() if k not in required})
    if shape.type_name == "list" and depth < 5:
        return st.lists(request_of(shape.member, depth + 1), min_size=1, max_size=2)
    if shape.type_name == "map":
        return st.dictionaries(st.text("ab²", min_size=1, max_size=3), request_of(shape.value, depth + 1), max_size=2)
    if shape.type_name == "string":
        enum = getattr(shape, "enum", None)
        words = [
            "a",
            "s3://b/x",
            "s3://[",
            "https://[",
            "arn:aws:iam::" + "1" * 12 + ":role/r",
            "NOW",
            "P9999999999D",
            "\0",
        ]
        return st.sampled_from(enum or words)
    if shape.type_name in ("integer", "long"):
        return st.sampled_from([0, 1, 2, 60, 3600, 10**9, 10**400, -1])
    if shape.type_name == "boolean":
        return st.booleans()
    return st.sampled_from([0, 1.5, 1e308, "0001-01-01T00:00:00Z", "x"])


OPERATIONS = app.operations(app.areas())


@cache
def call_of(name: str) -> tuple[str, st.SearchStrategy[Any]]:
    """An operation's name as `answer` takes it, and documents for it."""
    [service] = [one for one in SERVICES if name in service_model(SERVICES[one]).operation_names]
    shape = service_model(SERVICES[service]).operation_model(name).input_shape
    return f"{service}.{name}", st.one_of(request_of(shape), JSON) if shape else JSON


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application with nothing behind it: S3, STS and the areas' queues are not there."""
    folder: Path = tmp_path_factory.mktemp("quiet")
    ctx = Context(Config(data_dir=folder, account_id="1" * 12))

    def use(kind: type) -> Any:
        raise ServiceUnavailable(f"{kind.__name__} has not started")

    def absent(service: str) -> Any:
        raise EndpointConnectionError(endpoint_url=service)

    ctx.use, ctx.clients.get = use, absent  # type: ignore[method-assign]
    yield ctx
    ctx.close()


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_document_makes_a_handler_stumble(quiet, data):
    """Every operation, given what is nearly right."""
    name, documents = call_of(data.draw(st.sampled_from(sorted(OPERATIONS))))
    document = data.draw(documents)
    try:
        body = json.dumps(document).encode()
    except ValueError:
        return
    with contextlib.suppress(ServiceError):
        asyncio.run(app.answer(quiet, OPERATIONS, name, body))


def test_slow_and_half_open_connections_are_ended_and_quick_ones_are_not():
    """Raw sockets against the real server: nothing sent, half a head, half a body, an endless head."""

    class Hasty(TimedProtocol):
        request_seconds, look_seconds = 0.3, 0.05

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ended(port: int, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def run() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            config = uvicorn.Config(application, http=Hasty, lifespan="off", log_level="error", timeout_keep_alive=60)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listener]))
            port = listener.getsockname()[1]
            async with asyncio.timeout(20):
                head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n"
                unfinished = (b"", head, head + b"\r\nab", head + b"x: " + b"y" * 400_000)
                assert await asyncio.gather(*(ended(port, sent) for sent in unfinished)) == [b""] * 4
                refused, _, body = (await ended(port, b"no HTTP at all\r\n\r\n")).partition(b"\r\n\r\n")
                assert refused.startswith(b"HTTP/1.1 400 ")
                assert b"x-amzn-requestid: " in refused
                assert json.loads(body)["__type"] == "MalformedHttpRequestException"
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                for _ in range(3):  # on one connection, idle for longer than a request may take
                    writer.write(head + b"\r\nabcde")
                    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
                    await reader.readuntil(b"ok")
                    await asyncio.sleep(0.4)
                writer.close()
            server.should_exit = True
            await serving

    asyncio.run(run())
