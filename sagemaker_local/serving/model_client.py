"""A small HTTP/1.1 client for one model server: pooled connections, one exchange at a time on each.

Why not a general client: this sits in the path of every invocation, and a general client's own work would be most
of the latency that InvokeEndpoint adds.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httptools


class ExchangeError(Exception):
    """The model server broke off, refused the connection or answered something that is not HTTP.

    `sent` is false when the server cannot have seen the request.
    """

    def __init__(self, message: str, *, response_began: bool = False, sent: bool = True) -> None:
        super().__init__(message)
        self.response_began = response_began
        self.sent = sent


class ExchangeTimeoutError(ExchangeError):
    """No complete answer in time."""


class ResponseTooLargeError(ExchangeError):
    """The answer's body is longer than the limit; the rest of it was not read."""


@dataclass(slots=True)
class Response:
    """A complete answer. Header names are lower case."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class _Connection(asyncio.Protocol):
    """One connection; feeds an answer to the waiting future."""

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.served = 0
        self._waiter: asyncio.Future[Response] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parser: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def exchange(
        self, loop: asyncio.AbstractEventLoop, head: bytes, body: bytes, timeout: float
    ) -> asyncio.Future[Response]:
        waiter: asyncio.Future[Response] = loop.create_future()
        self._waiter = waiter
        self._response = Response()
        self._chunks: list[bytes] = []
        self._length = 0
        self._until_close = False
        self._keep_alive = False
        self._began = False
        self._parser = httptools.HttpResponseParser(self)
        self._timer = loop.call_later(
            timeout, self._fail, ExchangeTimeoutError(f"no complete answer within {timeout:g} s")
        )
        assert self.transport is not None
        if len(body) < 65_536:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return waiter

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.close()  # an answer nobody asked for: never let it reach the next caller
            return
        self._began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ExchangeError(f"the answer is not HTTP: {error}", response_began=True))
        except httptools.HttpParserUpgrade:
            self._fail(ExchangeError("the answer asks for another protocol", response_began=True))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._waiter is None:
            return
        if self._until_close and exc is None:
            self._complete()
        else:
            self._fail(ExchangeError("the model server closed the connection", response_began=self._began))

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._waiter is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._waiter is not None:
            self._response.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._waiter is None:
            return
        headers = self._response.headers
        self._response.status = self._parser.get_status_code()
        self._keep_alive = self._parser.should_keep_alive()
        self._until_close = b"content-length" not in headers and b"transfer-encoding" not in headers
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_body:
            self._fail(ResponseTooLargeError(f"the answer has {int(declared)} bytes", response_began=True))

    def on_body(self, body: bytes) -> None:
        self._length += len(body)
        if self._waiter is None:
            return
        if self._length > self.max_body:
            self._fail(ResponseTooLargeError(f"the answer has over {self.max_body} bytes", response_began=True))
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if 100 <= self._response.status < 200:  # e.g. 100 Continue: the real answer follows
            self._response, self._chunks = Response(), []
        else:
            self._complete()

    def _complete(self) -> None:
        waiter = self._release()
        response = self._response
        response.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if not self._keep_alive or self._until_close:
            self.close()
        if waiter is not None and not waiter.done():
            self.served += 1
            waiter.set_result(response)

    def _fail(self, error: ExchangeError) -> None:
        waiter = self._release()
        self.close()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _release(self) -> asyncio.Future[Response] | None:
        waiter, self._waiter = self._waiter, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waiter


class ModelClient:
    """Pooled connections to 127.0.0.1:`port`, at most `max_connections` at once; further calls wait in order.

    `connect` makes them where the server is in a network of its own; it may block and raises OSError.
    """

    def __init__(
        self,
        port: int,
        *,
        max_connections: int = 32,
        max_body: int = 6 * 1024 * 1024,
        connect: Callable[[int], socket.socket] | None = None,
    ) -> None:
        self.port = port
        self.connect = connect
        self.max_connections = max_connections
        self.max_body = max_body
        self._host = f"127.0.0.1:{port}".encode()
        self._idle: list[_Connection] = []
        self._open = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def request(
        self, method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout: float
    ) -> Response:
        """Send one request and give its answer within `timeout` seconds, waiting for a connection included.

        Raises:
            ExchangeError: the server refuses the connection, breaks off, or answers something that is not HTTP.
            ExchangeTimeoutError: there is no complete answer in time.
            ResponseTooLargeError: the answer's body is longer than `max_body`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        head = b"%s %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %d\r\n%s\r\n" % (
            method,
            path,
            self._host,
            len(body),
            b"".join([b"%s: %s\r\n" % header for header in headers]),
        )
        if self._open >= self.max_connections:
            await self._wait_turn(loop, timeout)
        else:
            self._open += 1
        sent = False
        try:
            while True:
                connection = await self._connection(loop, deadline, sent)
                reused = connection.served > 0
                sent = True
                try:
                    response = await connection.exchange(loop, head, body, max(deadline - loop.time(), 0.001))
                except ExchangeTimeoutError:
                    raise
                except ExchangeError as error:
                    # A kept connection that the server closed as we wrote: it most likely never saw the request.
                    if reused and not error.response_began:
                        continue
                    raise
                except asyncio.CancelledError:
                    connection.close()
                    raise
                if not connection.closed:
                    self._idle.append(connection)
                return response
        finally:
            self._end_turn()

    def close(self) -> None:
        """Close the idle connections; those in use close as their exchange ends or the server goes."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self, loop: asyncio.AbstractEventLoop, deadline: float, sent: bool) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        try:
            async with asyncio.timeout_at(deadline):
                where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
                if self.connect is not None:
                    where = {"sock": await loop.run_in_executor(None, self.connect, self.port)}
                    where["sock"].setblocking(False)
                _, connection = await loop.create_connection(lambda: _Connection(self.max_body), **where)
        except TimeoutError:
            raise ExchangeTimeoutError("no connection to the model server in time", sent=sent) from None
        except OSError as error:
            raise ExchangeError(f"cannot connect to the model server: {error}", sent=sent) from error
        return connection

    async def _wait_turn(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        turn = loop.create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(timeout):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self._end_turn()  # handed to us just as we gave up
            if isinstance(error, TimeoutError):
                raise ExchangeTimeoutError(f"no free connection within {timeout:g} s", sent=False) from None
            raise

    def _end_turn(self) -> None:
        """Hand the slot to whoever waits longest, so that nobody overtakes."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._open -= 1
