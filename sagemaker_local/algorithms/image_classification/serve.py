"""`serve`: the model server of the container contract, one image per request.

GET /ping, POST /invocations, GET /execution-parameters (batch transform). One process, one event loop, httptools for
the parsing: a prediction takes about a millisecond of one core, so anything above the socket would only cost.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.model import Model
from sagemaker_local.algorithms.image_classification.paths import ContainerPaths
from sagemaker_local.algorithms.image_classification.pictures import MOST_BYTES

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "application/x-image"})
_EXECUTION_PARAMETERS = json.dumps(
    {"MaxConcurrentTransforms": 1, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": MOST_BYTES >> 20}
).encode()


class Answer:
    """Status, content type and body of a response."""

    __slots__ = ("body", "status", "type")

    def __init__(self, body: bytes, status: int = 200, content_type: str = "application/json") -> None:
        self.body, self.status, self.type = body, status, content_type

    @classmethod
    def error(cls, status: int, message: str) -> "Answer":
        return cls(json.dumps({"error": message}).encode(), status)

    def head(self, keep_alive: bool) -> bytes:
        connection = "keep-alive" if keep_alive else "close"
        return (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\ncontent-type: {self.type}\r\n"
            f"content-length: {len(self.body)}\r\nconnection: {connection}\r\n\r\n"
        ).encode()


def answer(model: Model, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Answer one request; `headers` by lower-case name."""
    if path == "/invocations":
        if method != "POST":
            return Answer.error(405, "use POST for /invocations")
        return _invoke(model, headers, body)
    if path in ("/ping", "/execution-parameters"):
        if method not in ("GET", "HEAD"):
            return Answer.error(405, f"use GET for {path}")
        return Answer(b"" if path == "/ping" else _EXECUTION_PARAMETERS)
    return Answer.error(404, f"no such path: {path[:100]}")


def _invoke(model: Model, headers: Mapping[str, str], body: bytes) -> Answer:
    content_type = headers.get("content-type", "application/x-image").split(";")[0].strip().lower()
    if content_type not in IMAGE_TYPES:
        return Answer.error(
            415, f"content type {content_type[:80]!r} is not supported; send one of {', '.join(sorted(IMAGE_TYPES))}"
        )
    accept = [part.split(";")[0].strip().lower() for part in headers.get("accept", "*/*").split(",")]
    lines = "application/jsonlines" in accept
    if not lines and not {"", "*/*", "application/*", "application/json"} & set(accept):
        return Answer.error(406, "answers are application/json or application/jsonlines")
    try:
        probabilities = model.predict(body)
    except AlgorithmError as error:
        return Answer.error(400, str(error))
    if lines:
        return Answer(json.dumps({"prediction": probabilities}).encode() + b"\n", 200, "application/jsonlines")
    return Answer(json.dumps(probabilities).encode())


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; requests are answered in order."""

    open: "set[Connection]" = set()

    def __init__(self, model: Model) -> None:
        self._model = model
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._headers, self._body, self._size = b"", {}, [], 0  # type: tuple[bytes, dict[str, str], list[bytes], int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, not a subclass
        self.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._send(Answer.error(400, "this server speaks plain HTTP/1.1"), keep_alive=False)
        except (httptools.HttpParserError, UnicodeDecodeError):
            self._send(Answer.error(400, "the request is not valid HTTP"), keep_alive=False)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self._size = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MOST_BYTES:
            if self._transport is not None and not self._transport.is_closing():
                self._send(Answer.error(413, f"the body has more than {MOST_BYTES} bytes"), keep_alive=False)
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        method = self._parser.get_method().decode("latin-1")
        try:
            path = urlsplit(self._url.decode("latin-1")).path
            result = answer(self._model, method, path, self._headers, b"".join(self._body))
        except Exception as error:  # noqa: BLE001  (one bad request must not end the server)
            sys.stderr.write(f"{method} {self._url[:200]!r} failed: {type(error).__name__}: {error}\n")
            result = Answer.error(500, "the model failed on this request")
        self._body = []
        self._send(result, keep_alive=self._parser.should_keep_alive(), with_body=method != "HEAD")

    def _send(self, result: Answer, *, keep_alive: bool, with_body: bool = True) -> None:
        assert self._transport is not None
        self._transport.write(result.head(keep_alive) + (result.body if with_body else b""))
        if not keep_alive:
            self._transport.close()


async def _run(model: Model, port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: Connection(model), "127.0.0.1", port, backlog=512)
    sys.stdout.write(f"Serving {model.num_classes} classes on port {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()
    for connection in list(Connection.open):  # an answer already written is still flushed
        connection.close()
    await server.wait_closed()


def main() -> int:
    """Serve the model under $SM_ML_ROOT/model on 127.0.0.1:$SAGEMAKER_BIND_TO_PORT until SIGTERM."""
    paths = ContainerPaths.from_environment()
    port: Any = os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")
    try:
        model = Model.load(paths.model)
        model.warm_up()
        import uvloop

        uvloop.run(_run(model, int(port)))
    except AlgorithmError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot serve on port {port}: {error}\n")
        return 1
    return 0
