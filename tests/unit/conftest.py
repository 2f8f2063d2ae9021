"""Unit tests run with the network closed: a test that needs a service is a contract test."""

from __future__ import annotations

import socket
from typing import Any

import pytest

# Stays open: in-process servers and process pools use it.
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True)
def _closed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    real_connect, real_getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] in LOOPBACK):
            return real_connect(self, address)
        raise OSError(f"The network is closed in unit tests; this one wanted {address!r}")

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in LOOPBACK or host is None:
            return real_getaddrinfo(host, *arguments, **options)
        raise socket.gaierror(f"The network is closed in unit tests; this one asked where {host!r} is")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
