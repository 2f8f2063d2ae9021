"""Alerts reach whoever the settings name, and one who can't be reached keeps nothing from the others."""

from __future__ import annotations

import email
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from scones.aws.alerts import notify_others

SMTP = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AIRFLOW_CONN_TEAM_CHAT", f"http://127.0.0.1:{server.server_port}")
    yield bodies
    server.shutdown()
    thread.join()
    server.server_close()


class _Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as one mail takes."""

    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(email.message_from_bytes(b"".join(lines)))  # type: ignore[attr-defined]
            self._say("221 bye" if verb == "QUIT" else "250 fine")
            if verb == "QUIT":
                return

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What a mail server on this machine took."""
    server = socketserver.TCPServer(("127.0.0.1", 0), _Mailbox)
    server.mails = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.server_address[1]}
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "scones@example.com", "retry_limit": 1}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection | {"extra": extra}))
    yield server.mails  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def notifiers(monkeypatch: pytest.MonkeyPatch, *wanted: Any) -> None:
    monkeypatch.setenv("SCONES_ALERT_NOTIFIERS", json.dumps(wanted))


def test_a_webhook_gets_the_alert_in_its_own_form(monkeypatch: pytest.MonkeyPatch, received: list[Any]) -> None:
    body = {"text": "*{{ alert.subject }}* ({{ alert.event }})\n{{ alert.text }}"}
    chat = {"notifier": HTTP, "arguments": {"http_conn_id": "team_chat", "endpoint": "hook", "json": body}}
    notifiers(monkeypatch, {"notifier": "no.such.Notifier"}, chat)
    assert notify_others("run_failed", "train_and_deploy failed", "the log says why {{ 1 }}") == 1
    assert received == [{"text": "*train_and_deploy failed* (run_failed)\nthe log says why {{ 1 }}"}]


def test_a_mail_is_sent_as_the_documentation_has_it(monkeypatch: pytest.MonkeyPatch, mails: list[Any]) -> None:
    body = "<pre>{{ alert.text | e }}</pre>"
    arguments = {"to": "team@example.com", "subject": "{{ alert.subject }}", "html_content": body}
    notifiers(monkeypatch, {"notifier": SMTP, "arguments": arguments})
    assert notify_others("run_failed", "train_and_deploy failed", "1 < 2") == 1
    (mail,) = mails
    assert (mail["Subject"], mail["To"], mail["From"]) == (
        "train_and_deploy failed",
        "team@example.com",
        "scones@example.com",
    )
    (html,) = mail.get_payload()
    assert "<pre>1 &lt; 2</pre>" in html.get_payload(decode=True).decode()


@pytest.mark.parametrize("value", ["", "[", "5", "[5]", "{}", '[{"notifier": "os.system", "arguments": {"x": 1}}]'])
def test_a_setting_that_is_not_right_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCONES_ALERT_NOTIFIERS", value)
    assert notify_others("e", "s", "t") == 0
