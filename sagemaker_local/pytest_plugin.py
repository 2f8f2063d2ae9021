"""Fixtures for tests of code that talks to SageMaker; pytest finds them where this package is installed.

`sagemaker_local` is the URL of a service started for the session, `sagemaker_client` and `sagemaker_runtime_client` are
boto3's clients of it. The services around it (S3, Logs, STS) are those of AWS_ENDPOINT_URL, an emulator's by default:
real AWS is never asked.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

EMULATOR = "http://127.0.0.1:4566"
START_SECONDS = 60.0


@pytest.fixture(scope="session")
def sagemaker_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running service with no resources in it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("sagemaker-local")
    environment = {
        "AWS_ENDPOINT_URL": EMULATOR,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "SAGEMAKER_LOCAL_ACCOUNT_ID": "0" * 12,
        **os.environ,
    }
    command = [sys.executable, "-m", "sagemaker_local", "--port", str(port), "--data-dir", str(folder)]
    url = f"http://127.0.0.1:{port}"
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def sagemaker_client(sagemaker_local: str) -> Any:
    """boto3's `sagemaker` client of the service."""
    return _client("sagemaker", sagemaker_local)


@pytest.fixture(scope="session")
def sagemaker_runtime_client(sagemaker_local: str) -> Any:
    """boto3's `sagemaker-runtime` client of the service."""
    return _client("sagemaker-runtime", sagemaker_local)


def _client(service: str, url: str) -> Any:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    secret = os.environ.get("SAGEMAKER_LOCAL_SECRET_KEY") or "test"
    session = boto3.session.Session("test", secret, region_name=region)
    return session.client(service, endpoint_url=url)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service answers.

    Raises:
        RuntimeError: it ends before that, or takes longer than START_SECONDS.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            opener.open(f"{url}/health", timeout=2).close()
            return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"sagemaker_local ended with exit code {process.returncode}") from None
            time.sleep(0.05)
    raise RuntimeError(f"sagemaker_local did not answer within {START_SECONDS:g} s")
