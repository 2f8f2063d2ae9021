"""A model server for the length of one transform job, and plain HTTP calls to it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable

from sagemaker_local.container import Container
from sagemaker_local.container_run import JobFailed, signal_text

START_SECONDS = 300.0
_POLL = 0.05


class ModelServer:
    """A started `serve` container; `connect` connects to it. Each thread keeps a connection of its own."""

    def __init__(self, container: Container, connect: Callable[[], socket.socket], timeout: float) -> None:
        self._container = container
        self._connect = connect
        self._timeout = timeout
        self._local = threading.local()

    def wait_ready(self, cancelled: threading.Event) -> None:
        """Wait until `/ping` answers 200, the container ends (`JobFailed`) or the job is cancelled."""
        deadline = time.monotonic() + START_SECONDS
        while not cancelled.is_set():
            if (code := self._container.exit_code()) is not None:
                why = signal_text(code) or f"the model server ended with exit code {code}"
                raise JobFailed(f"AlgorithmError: {why} before it answered /ping")
            connection = http.client.HTTPConnection("127.0.0.1")
            try:
                connection.sock = self._connected(2)
                connection.request("GET", "/ping")
                if connection.getresponse().status == http.client.OK:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            if time.monotonic() > deadline:
                raise JobFailed(f"AlgorithmError: the model server did not answer /ping within {START_SECONDS:.0f} s")
            cancelled.wait(_POLL)

    def invoke(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body of one `/invocations`.

        Raises:
            OSError: the server refuses the connection, breaks off, or takes too long.
            http.client.HTTPException: what it answers is not HTTP, or not whole.
        """
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = self._connected(self._timeout)
            self._local.connection = connection
        try:
            connection.request("POST", "/invocations", body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            raise

    def _connected(self, timeout: float) -> socket.socket:
        connected = self._connect()
        connected.settimeout(timeout)
        return connected
