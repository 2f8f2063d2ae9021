"""Each function may do what it does and no more: its AWS calls, recorded as they leave, against its role's policy."""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from infrastructure.artifacts import FUNCTIONS, ROOT, zip_function
from lambdas import common
from lambdas.classify_image import handler as classify
from lambdas.filter_inferences import handler as filter_
from lambdas.record_result import handler as record
from lambdas.serialize_image import handler as serialize
from tests.support.template import as_list, unconditional

BUCKET, REGION, ACCOUNT, ENDPOINT = "the-bucket", "us-east-1", "ACCOUNT", "scones-courier"
NAMES = {
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "EndpointName": ENDPOINT,
    "ProjectName": "scones",
    "DataBucket.Arn": f"arn:aws:s3:::{BUCKET}",
}
# Allowed though no call is made with it: the function's own log, its trace, and what makes S3 say NoSuchKey.
SILENT = {"logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTraceSegments", "xray:PutTelemetryRecords"}
FOR_THE_ANSWER = {"s3:ListBucket"}


def resolve(value: Any) -> str:
    """A policy's resource with the template's names filled in."""
    if isinstance(value, str):
        return value
    ((form, content),) = value.items()
    if form == "!Sub":
        for name, filled in NAMES.items():
            content = content.replace("${" + name + "}", filled)
        assert "${" not in content, content
        return str(content)
    return NAMES.get(str(content), f"<{content}>")


def policy(role: str) -> list[tuple[str, str]]:
    """(action, resource pattern) pairs that a role allows."""
    return [
        (action, resolve(resource))
        for statement in unconditional(role)
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]


class Raw(io.BytesIO):
    """What urllib3 would hand to botocore."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


Call = tuple[str, str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, Any, bytes], list[Call]]]:
    """Run a handler with real clients whose requests are answered before they leave; returns (action, resource)."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("ENDPOINT_NAME", ENDPOINT)
    monkeypatch.setenv("BUCKET_NAME", BUCKET)
    real = boto3.client

    def run(module: Any, event: Any, answer: bytes) -> list[Call]:
        made: list[Call] = []

        def before_send(request: Any, event_name: str, **_: Any) -> AWSResponse:
            service, operation = event_name.split(".")[1:]
            path = unquote(request.url.split("/", 3)[3].split("?")[0])
            host = request.url.split("/")[2]
            if service == "s3":
                in_host = host.split(".s3.")[0] if ".s3." in host else ""
                resource = f"arn:aws:s3:::{in_host}/{path}" if in_host else f"arn:aws:s3:::{path}"
            else:
                resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{path.split('/')[1]}"
            made.append((f"{'sagemaker' if 'sagemaker' in service else service}:{operation}", resource))
            content = b"[0.9, 0.1]" if service == "sagemaker-runtime" else answer
            headers = {"Content-Length": str(len(content)), "Content-Type": "application/json", "ETag": "e"}
            return AWSResponse(request.url, 200, headers, Raw(content))

        def client(name: str, **options: Any) -> Any:
            made_client = real(name, **options)
            made_client.meta.events.register("before-send", before_send)
            return made_client

        monkeypatch.setattr(boto3, "client", client)
        for cached in (common.s3_client, classify.runtime_client):
            cached.cache_clear()
        module.handler(event, None)
        return made

    yield run
    for cached in (common.s3_client, classify.runtime_client):
        cached.cache_clear()


def example(function: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "lambdas" / function / "event.json").read_text())
    return loaded


def image() -> bytes:
    return base64.b64decode(example("classify_image")["image_data"])


CASES = [
    pytest.param(
        "SerializeRole",
        serialize,
        example("serialize_image") | {"s3_bucket": BUCKET, "s3_key": "photos/a b.png"},
        image(),
        [("s3:GetObject", f"arn:aws:s3:::{BUCKET}/photos/a b.png")],
        id="serialize_image",
    ),
    pytest.param(
        "ClassifyRole",
        classify,
        {"image_data": "", "image_etag": "e", "s3_bucket": BUCKET, "s3_key": "photos/a b.png"},
        image(),
        [
            ("s3:GetObject", f"arn:aws:s3:::{BUCKET}/photos/a b.png"),
            ("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{ENDPOINT}"),
        ],
        id="classify_image",
    ),
    pytest.param(
        "FilterRole",
        filter_,
        {"s3_key": "k", "inferences": [0.95, 0.05]},
        b'{"threshold": 0.9, "version": 1}',
        [("s3:GetObject", f"arn:aws:s3:::{BUCKET}/config/threshold.json")],
        id="filter_inferences",
    ),
    pytest.param(
        "RecordRole",
        record,
        {"execution_arn": "x", "item": {"s3_bucket": BUCKET, "s3_key": "k", "batch_id": "day-1"}},
        b"",
        None,
        id="record_result",
    ),
]


@pytest.mark.parametrize(("role", "module", "event", "answer", "expected"), CASES)
def test_a_function_may_do_what_it_does_and_no_more(
    calls: Callable[[Any, Any, bytes], list[Call]],
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    module: Any,
    event: Any,
    answer: bytes,
    expected: list[Call] | None,
) -> None:
    monkeypatch.setattr(filter_, "_cached", None)
    made = calls(module, event, answer)
    if expected is not None:
        assert made == expected
    allowed = policy(role)
    assert made
    for action, resource in made:
        assert any(action == may and fnmatchcase(resource, pattern) for may, pattern in allowed), (action, resource)
    used = {action for action, _ in made}
    unused = {action for action, _ in allowed} - used - SILENT
    assert unused <= (FOR_THE_ANSWER if role in {"SerializeRole", "ClassifyRole"} else set())
    elsewhere = [("s3:GetObject", "arn:aws:s3:::another-bucket/k"), ("s3:PutObject", f"arn:aws:s3:::{BUCKET}/config/x")]
    for action, resource in [*elsewhere, ("s3:DeleteObject", f"arn:aws:s3:::{BUCKET}/k"), ("iam:PassRole", "*")]:
        assert not any(action == may and fnmatchcase(resource, pattern) for may, pattern in allowed)


@pytest.mark.parametrize("name", FUNCTIONS.values())
def test_a_package_is_the_functions_code_alone_and_always_the_same(name: str) -> None:
    package = zip_function(name)
    assert package == zip_function(name)
    with zipfile.ZipFile(io.BytesIO(package)) as content:
        own = [f"lambdas/{name}/{file}.py" for file in ("__init__", "core", "handler")]
        assert sorted(content.namelist()) == sorted([*own, "lambdas/common.py"])
        assert {entry.date_time for entry in content.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("name", FUNCTIONS.values())
def test_a_package_runs_alone(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(zip_function(name))) as content:
        content.extractall(tmp_path)
    allowed = {*sys.stdlib_module_names, "boto3", "botocore"}
    for source in tmp_path.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                packed = tmp_path / f"{module.replace('.', '/')}.py"
                assert module.split(".")[0] in allowed or packed.exists(), f"{source}: {module}"
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, source


def test_the_folders_hold_the_same_files() -> None:
    for name in FUNCTIONS.values():
        files = {path.name for path in (ROOT / "lambdas" / name).iterdir() if path.name != "__pycache__"}
        assert files == {"__init__.py", "handler.py", "core.py", "event.json"}
