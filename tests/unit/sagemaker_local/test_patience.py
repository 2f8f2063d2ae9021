"""What is tried again through an outage of S3, and what is refused at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from sagemaker_local.container_run import exit_status, signal_text
from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException
from sagemaker_local.processes import Processes
from sagemaker_local.s3 import DataError, OutageError, check_uri, patiently


def client_error(status: int, code: str = "X") -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.fixture
def ctx(monkeypatch: pytest.MonkeyPatch) -> Context:
    """A clock that goes on by ten seconds a look, for an outage of a minute, and pauses that take no time."""
    monkeypatch.setattr("threading.Event.wait", lambda self, timeout=None: False)
    moments = iter(range(0, 10_000, 10))
    return cast(Context, SimpleNamespace(now=lambda: next(moments), config=SimpleNamespace(outage_seconds=60.0)))


def tries(ctx: Context, error: Exception) -> tuple[int, type[Exception]]:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1
        raise error

    with pytest.raises((DataError, OutageError)) as caught:
        patiently(ctx, None, "read s3://b/k", call)
    return count, caught.type


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ParamValidationError(report='Invalid bucket name "B"'),
        exceptions.NoCredentialsError(),
        exceptions.PartialCredentialsError(provider="env", cred_var="secret"),
        exceptions.InvalidRegionError(region_name="!"),
        exceptions.ProfileNotFound(profile="absent"),
        client_error(403, "AccessDenied"),
        client_error(404, "NoSuchKey"),
        client_error(400),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_stays_wrong_is_tried_once(ctx, error):
    assert tries(ctx, error) == (1, DataError)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.EndpointConnectionError(endpoint_url="http://s3"),
        exceptions.ConnectTimeoutError(endpoint_url="http://s3"),
        exceptions.ReadTimeoutError(endpoint_url="http://s3"),
        exceptions.ConnectionClosedError(endpoint_url="http://s3"),
        exceptions.ResponseStreamingError(error="broken"),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        client_error(500),
        client_error(503, "SlowDown"),
        client_error(429),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_tried_through_the_outage(ctx, error):
    count, kind = tries(ctx, error)
    assert count > 2
    assert kind is OutageError


@pytest.mark.parametrize(
    "uri", ["s3://Bad_Bucket!/x", "s3://[/x", "s3:///x", "s3://b b/x", "s3://bücket/x", "https://b/x", ""]
)
def test_a_uri_of_no_bucket_is_refused_with_its_member(uri):
    with pytest.raises(ValidationException, match=r"OutputDataConfig\.S3OutputPath: .* is not an S3 URI"):
        check_uri(uri, "OutputDataConfig.S3OutputPath")


@pytest.mark.parametrize("uri", ["s3://bkt", "s3://bkt/", "s3://old_Bucket.name/a b/ä", "s3://bkt//x"])
def test_what_botocore_would_send_is_taken(uri):
    assert check_uri(uri, "x")[0] == uri.split("/")[2]


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("kill -9 $$", 137, "ended by SIGKILL, as the kernel does when memory runs out"),
        ("kill -11 $$", 139, "ended by SIGSEGV"),
        ("exit 7", 7, ""),
    ],
)
def test_a_process_that_was_killed_has_a_reason(script: str, status: int, words: str, tmp_path: Path):
    container = Processes(tmp_path).spawn(["sh", "-c", script], env={}, cwd=tmp_path, log=tmp_path / "log")
    code: Any = container.wait(20)
    assert exit_status(code) == status
    assert signal_text(code) == (f"the container was {words}" if words else "")


def test_a_signal_without_a_name_is_told_by_its_number():
    assert signal_text(-40) == "the container was ended by signal 40"
