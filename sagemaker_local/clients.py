"""boto3 clients of the services around this one: S3, CloudWatch Logs and metrics, EventBridge, STS.

They follow botocore's own configuration (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, credentials chain). Made once and
shared: boto3 clients are thread-safe, sessions are not.
"""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config as BotoConfig

from sagemaker_local.config import Config

USER_AGENT = "sagemaker_local"  # by which an emulated EventBridge may know who sends as aws.sagemaker
_LOCAL_CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Clients:
    """Lazily made boto3 clients. `get("s3")`, `get("logs")`, `get("cloudwatch")`, `get("events")`, `get("sts")`."""

    def __init__(self, config: Config) -> None:
        self._region = config.region
        self._clients: dict[str, Any] = {}
        self._guard = threading.Lock()

    def get(self, service: str) -> Any:
        """The client of a service. It retries throttling and connection errors a few times within seconds."""
        with self._guard:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    @cached_property  # one for all, under the guard: each would read botocore's endpoints anew
    def _session(self) -> Any:
        return boto3.session.Session(region_name=self._region)

    def _make(self, service: str) -> Any:
        # An emulator takes any credentials, but botocore does not send a request without some.
        emulated = "AWS_ENDPOINT_URL" in os.environ and self._session.get_credentials() is None
        settings = BotoConfig(
            retries={"mode": "standard", "max_attempts": 3},
            connect_timeout=3,
            read_timeout=60,
            max_pool_connections=32,
            user_agent_extra=USER_AGENT,
            s3={"addressing_style": "path"} if "AWS_ENDPOINT_URL" in os.environ else {},
        )
        return self._session.client(service, config=settings, **(_LOCAL_CREDENTIALS if emulated else {}))

    def close(self) -> None:
        """Close the connections."""
        with self._guard:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
