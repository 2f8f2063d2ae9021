"""From a box's own network to a port outside: for services that do not listen in there themselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from sagemaker_local.box import Network

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def with_relays(app: App, network: Network | None, endpoints: Iterable[str], own_port: int) -> App:
    """`app`, which as it starts also passes on what a box sends to the endpoints (URLs) other than its own port."""
    ports = {url.port: url.hostname for url in map(urlsplit, endpoints) if url.port and url.port != own_port}

    async def serve(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" and network is not None:
            for port, host in ports.items():
                await _relay(network.listen(port), str(host), port)
        await app(scope, receive, send)

    return serve


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
