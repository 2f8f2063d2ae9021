"""The settings that docs/airflow-settings.md gives for an Airflow of one's own, tried against the platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from embedded import environment
from embedded.settings import EmbeddedSettings

LOG = "dag_id=d/attempt=1.log"
PROGRAM = f"""
import json, traceback

def connection():
    from airflow.sdk.bases.hook import BaseHook
    from scones.aws.resources import stack_outputs
    return [BaseHook.get_connection("aws_default").login, stack_outputs()["BucketName"]]

def logs():
    from airflow.logging_config import get_remote_task_log
    logs = get_remote_task_log()
    logs.upload({LOG!r}, None)
    return str(logs.read({LOG!r}, None)[1])

def metrics():
    from airflow.observability import stats
    from airflow.observability.metrics import stats_utils
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    stats.incr("dag_processing.processes")
    return "sent"

def tried(part):
    try:
        return part()
    except Exception:
        return traceback.format_exc()

print("FOUND", json.dumps({{part.__name__: tried(part) for part in (connection, logs, metrics)}}))
"""


class _Collector(BaseHTTPRequestHandler):
    """An OpenTelemetry collector that keeps what it is sent."""

    received: list[tuple[str, bytes]] = []

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def said(
    stack: dict[str, str],
    platform_settings: EmbeddedSettings,
    aws: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What an Airflow with all of the settings answers; in a process of its own, as Airflow reads them once."""
    connection = environment.aws_connection(platform_settings)
    aws("secretsmanager").create_secret(Name="scones/connections/aws_default", SecretString=connection)
    logs = tmp_path_factory.mktemp("logs")
    (logs / LOG).parent.mkdir()
    (logs / LOG).write_text('{"event": "said"}\n')
    # What a role gives on AWS.
    role = {key: value for key, value in environment.platform_environment(platform_settings).items() if "AWS" in key}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        variables = environment.airflow_environment(platform_settings) | {
            "AIRFLOW__SECRETS__BACKEND": "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_prefix": "scones/connections"}),
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{stack['BucketName']}/airflow-logs",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_SERVICE_NAME": "scones",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        }
        del variables["AIRFLOW_CONN_AWS_DEFAULT"]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=variables | role | {"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        server.shutdown()
        thread.join()
    assert "FOUND " in done.stdout, done.stdout[-1500:] + done.stderr[-1500:]
    found: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND ")[2])
    return found


def test_the_dags_connection_comes_from_secrets_manager(
    said: dict[str, Any], stack: dict[str, str], platform_settings: EmbeddedSettings
) -> None:
    login = json.loads(environment.aws_connection(platform_settings))["login"]
    assert said["connection"] == [login, stack["BucketName"]]


def test_logs_go_to_the_stacks_bucket_and_come_back(
    said: dict[str, Any], stack: dict[str, str], aws: Callable[..., Any]
) -> None:
    assert "said" in said["logs"]
    stored = aws("s3").get_object(Bucket=stack["BucketName"], Key=f"airflow-logs/{LOG}")["Body"].read()
    assert stored == b'{"event": "said"}\n'


def test_metrics_go_to_an_opentelemetry_collector(said: dict[str, Any]) -> None:
    assert said["metrics"] == "sent"
    paths = {path for path, _ in _Collector.received}
    assert paths == {"/v1/metrics"}
    sent = b"".join(body for _, body in _Collector.received)
    assert b"airflow.dag_processing.processes" in sent
    assert b"scones" in sent
