"""A stack of its own whose classify function asks a scripted SageMaker Runtime: every fault can be had at will."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from struct import pack
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

from embedded.container import LOCAL_PARAMETERS
from infrastructure.deploy import Deployment
from tests.support.local_service import wait_execution

STACK = "wf-test"
CONFIDENT, UNSURE = [0.98, 0.02], [0.6, 0.4]


def png(red: int) -> bytes:
    """A whole 2x2 PNG; its colour tells the images apart."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes([red, 0, 0]) * 2) * 2
    header = pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@dataclass
class Runtime:
    """SageMaker Runtime's protocol with a script: what to answer, and which faults come first, by the image's key."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, list[tuple[int, str, dict[str, Any]] | str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        self.answers.clear()
        self.faults.clear()
        self.requests.clear()
        self.headers.clear()

    def next(self, key: str) -> tuple[int, str, Any] | str:
        self.requests[key] += 1
        if waiting := self.faults.get(key):
            return waiting.pop(0)
        return 200, "", self.answers.get(key, CONFIDENT)


def _handler(runtime: Runtime) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            key = unquote(self.headers.get("X-Amzn-SageMaker-Custom-Attributes", ""))
            runtime.headers[key] = dict(self.headers.items())
            found = runtime.next(key)
            if found == "hang":
                runtime.released.wait(30)
                self.close_connection = True
                return
            assert not isinstance(found, str)
            status, code, content = found
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            if code:
                self.send_header("x-amzn-ErrorType", code)
            self.send_header("Content-Type", "application/json")
            self.send_header("x-Amzn-Invoked-Production-Variant", "AllTraffic")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep the test's output clean."""

    return Handler


@pytest.fixture(scope="session")
def scripted_runtime() -> Iterator[Runtime]:
    runtime = Runtime()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(runtime))
    server.daemon_threads = True
    runtime.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield runtime
    runtime.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def runtime(scripted_runtime: Runtime) -> Iterator[Runtime]:
    scripted_runtime.reset()
    yield scripted_runtime
    scripted_runtime.released.set()
    scripted_runtime.released = threading.Event()


@dataclass
class Execution:
    """An ended execution: what DescribeExecution says, and its history."""

    description: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def outcome(self) -> tuple[str, str | None]:
        return self.description["status"], self.description.get("error")

    @property
    def cause(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.description["cause"])
        return parsed

    @property
    def output(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.description["output"])
        return parsed

    def count(self, event_type: str) -> int:
        return sum(event["type"] == event_type for event in self.history)


@dataclass
class Workflow:
    """The deployed workflows and a way to run them."""

    outputs: dict[str, str]
    client: Callable[..., Any]

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    def put(self, key: str, content: bytes) -> None:
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=content)

    def start(self, data: Any, machine: str = "StateMachineArn") -> str:
        arn: str = self.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs[machine], input=json.dumps(data)
        )["executionArn"]
        return arn

    def wait(self, arn: str) -> Execution:
        states = self.client("stepfunctions")
        description = wait_execution(states, arn)
        return Execution(description, states.get_execution_history(executionArn=arn, maxResults=1000)["events"])

    def run(self, data: Any, machine: str = "StateMachineArn") -> Execution:
        return self.wait(self.start(data, machine))

    def classify(self, key: str, **optional: Any) -> Execution:
        return self.run({"image_data": "", "s3_bucket": self.bucket, "s3_key": key, **optional})


@pytest.fixture(scope="session")
def workflow(ministack: str, aws: Callable[..., Any], scripted_runtime: Runtime) -> Workflow:
    outputs = Deployment(SimpleNamespace(region_name="us-east-1", client=aws), STACK).deploy(LOCAL_PARAMETERS)
    aws("lambda").update_function_configuration(
        FunctionName=outputs["ClassifyFunctionName"],
        Environment={
            "Variables": {
                "ENDPOINT_NAME": outputs["EndpointName"],
                "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": scripted_runtime.url,
                "ENDPOINT_READ_TIMEOUT": "0.5",
            }
        },
    )
    return Workflow(outputs, aws)


@pytest.fixture(scope="session")
def image() -> bytes:
    return png(200)


@pytest.fixture(scope="session")
def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()
