"""uvicorn's HTTP protocol with a limit on how long, and how large in its head, an incomplete request may be.

uvicorn waits for ever: a client that opens connections and sends nothing, or a byte now and then, would hold them all.
What is no HTTP at all is answered as AWS answers it (MalformedHttpRequestException of the common errors), with a
request id.
"""

from __future__ import annotations

import asyncio
import json
import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
REQUEST_SECONDS = 60.0  # from the first byte (or the connection) to the end of the body
LOOK_SECONDS = 5.0


class TimedProtocol(HttpToolsProtocol):
    """One connection, ended when a request on it takes too long to arrive; between requests uvicorn's limit holds."""

    request_seconds, look_seconds = REQUEST_SECONDS, LOOK_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since: float | None = self.loop.time()  # None while no request is incomplete
        self._unread, self._headed = 0, False
        self._look_again = self.loop.call_later(self.look_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_again.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if not self._headed and self._unread > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._headed = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._since, self._unread, self._headed = None, 0, False

    def send_400_response(self, msg: str) -> None:
        code = "MalformedHttpRequestException"
        body = json.dumps({"__type": code, "message": msg}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\nx-amzn-errortype: {code}\r\nx-amzn-requestid: {uuid.uuid4()}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _look(self) -> None:
        if self._since is not None and self.loop.time() - self._since > self.request_seconds:
            self.transport.abort()
        else:
            self._look_again = self.loop.call_later(self.look_seconds, self._look)
