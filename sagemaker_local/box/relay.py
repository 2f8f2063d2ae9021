"""From a box's own network to a port outside: for services that do not listen in there themselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from sagemaker_local.box import LOOPBACK

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Place(Protocol):
    """Where containers are: a network of their own."""

    def listen(self, port: int) -> socket.socket:
        """A socket that listens in there.

        Raises:
            OSError: nothing can listen on that port in there.
        """


class Relays:
    """Passes on what containers send to endpoints of this machine that do not listen in their network themselves.

    Args:
        network: the containers' own; with None there is nothing to do.
        own_port: where the service itself listens in it.
    """

    def __init__(self, network: Place | None, own_port: int) -> None:
        self._network = network
        self._open = {own_port}
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def serving(self, app: App, endpoints: Iterable[str]) -> App:
        """`app`, which as it starts also passes on what is for these endpoints (URLs)."""

        async def serve(scope: Scope, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                self._loop = asyncio.get_running_loop()
                self._loop.run_in_executor(None, self.open, list(endpoints))
            await app(scope, receive, send)

        return serve

    def open(self, endpoints: Iterable[str]) -> None:
        """Pass on what is for these endpoints (URLs) as well, if they are on this machine. Blocks: not for the loop."""
        if self._network is None or self._loop is None:
            return
        with self._guard:
            for url in map(urlsplit, endpoints):
                if url.hostname in LOOPBACK and url.port and url.port not in self._open:
                    listening = self._network.listen(url.port)
                    relay = _relay(listening, str(url.hostname), url.port)
                    asyncio.run_coroutine_threadsafe(relay, self._loop).result(10)
                    self._open.add(url.port)


async def _relay(listening: socket.socket, host: str, port: int) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    await asyncio.start_server(pass_on, sock=listening, backlog=2048)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
