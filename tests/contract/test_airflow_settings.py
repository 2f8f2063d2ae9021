"""The settings that docs/airflow-settings.md gives for an Airflow of one's own, tried against the platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from embedded import environment
from embedded.settings import EmbeddedSettings


def say(program: str, variables: dict[str, str]) -> str:
    """Run a program in a process of its own, as Airflow reads its settings once; return what it says after FOUND."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=variables | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert "FOUND " in done.stdout, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout.rpartition("FOUND ")[2].strip()


def test_the_dags_connection_comes_from_secrets_manager(
    stack: dict[str, str], platform_settings: EmbeddedSettings, aws: Callable[..., Any]
) -> None:
    connection = environment.aws_connection(platform_settings)
    aws("secretsmanager").create_secret(Name="scones/connections/aws_default", SecretString=connection)
    variables = environment.airflow_environment(platform_settings) | {
        "AIRFLOW__SECRETS__BACKEND": "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_prefix": "scones/connections"}),
    }
    del variables["AIRFLOW_CONN_AWS_DEFAULT"]
    # What a role gives on AWS.
    role = {key: value for key, value in environment.platform_environment(platform_settings).items() if "AWS" in key}
    program = (
        "from airflow.sdk.bases.hook import BaseHook; from scones.aws.resources import stack_outputs;"
        "print('FOUND', BaseHook.get_connection('aws_default').login, stack_outputs()['BucketName'])"
    )
    assert say(program, variables | role) == f"{json.loads(connection)['login']} {stack['BucketName']}"


def test_logs_go_to_the_stacks_bucket_and_come_back(
    stack: dict[str, str], platform_settings: EmbeddedSettings, aws: Callable[..., Any], tmp_path: Path
) -> None:
    bucket = stack["BucketName"]
    variables = environment.airflow_environment(platform_settings) | {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{bucket}/airflow-logs",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path),
    }
    (tmp_path / "dag_id=d").mkdir()
    (tmp_path / "dag_id=d" / "attempt=1.log").write_text('{"event": "said"}\n')
    program = (
        "from airflow.logging_config import get_remote_task_log; logs = get_remote_task_log();"
        "logs.upload('dag_id=d/attempt=1.log', None);"
        "print('FOUND', logs.read('dag_id=d/attempt=1.log', None)[1])"
    )
    assert "said" in say(program, variables)
    stored = aws("s3").get_object(Bucket=bucket, Key="airflow-logs/dag_id=d/attempt=1.log")["Body"].read()
    assert stored == b'{"event": "said"}\n'


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


def test_metrics_go_to_an_opentelemetry_collector(platform_settings: EmbeddedSettings) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        variables = environment.airflow_environment(platform_settings) | {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_SERVICE_NAME": "scones",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        }
        program = (
            "from airflow.observability import stats; from airflow.observability.metrics import stats_utils;"
            "stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True);"
            "stats.incr('dag_processing.processes'); print('FOUND sent')"
        )
        assert say(program, variables) == "sent"
        server.shutdown()
        thread.join()
    paths = {path for path, _ in _Collector.received}
    assert paths == {"/v1/metrics"}
    sent = b"".join(body for _, body in _Collector.received)
    assert b"airflow.dag_processing.processes" in sent
    assert b"scones" in sent
