"""Alerts reach whoever the settings name, and one who can't be reached keeps nothing from the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from scones.aws.alerts import notify_others

HTTP = "airflow.providers.http.notifications.HttpNotifier"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What a webhook on this machine was sent."""
    bodies: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AIRFLOW_CONN_TEAM_CHAT", f"http://127.0.0.1:{server.server_port}")
    yield bodies
    server.shutdown()
    thread.join()
    server.server_close()


def notifiers(monkeypatch: pytest.MonkeyPatch, *wanted: Any) -> None:
    monkeypatch.setenv("SCONES_ALERT_NOTIFIERS", json.dumps(wanted))


def test_a_webhook_gets_the_alert_in_its_own_form(monkeypatch: pytest.MonkeyPatch, received: list[Any]) -> None:
    body = {"text": "*{{ subject }}* ({{ event }})\n{{ text }}"}
    chat = {"notifier": HTTP, "arguments": {"http_conn_id": "team_chat", "endpoint": "hook", "json": body}}
    notifiers(monkeypatch, {"notifier": "no.such.Notifier"}, chat)
    assert notify_others("run_failed", "train_and_deploy failed", "the log says why {{ 1 }}") == 1
    assert received == [{"text": "*train_and_deploy failed* (run_failed)\nthe log says why {{ 1 }}"}]


@pytest.mark.parametrize("value", ["", "[", "5", "[5]", "{}", '[{"notifier": "os.system", "arguments": {"x": 1}}]'])
def test_a_setting_that_is_not_right_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCONES_ALERT_NOTIFIERS", value)
    assert notify_others("e", "s", "t") == 0
