"""Unit tests run with the network closed: a test that needs a service is a contract test."""

from __future__ import annotations

import socket
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _closed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        # Loopback stays open: in-process servers and process pools use it.
        if self.family == socket.AF_UNIX or (
            isinstance(address, tuple) and address[0] in {"127.0.0.1", "::1", "localhost"}
        ):
            return real(self, address)
        raise OSError(f"The network is closed in unit tests; this one wanted {address!r}")

    monkeypatch.setattr(socket.socket, "connect", connect)
