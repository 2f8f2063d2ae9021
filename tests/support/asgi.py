"""Requests to an ASGI application without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit


def scope_of(method: str, url: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The scope of a request; `Host` is the URL's unless given."""
    parts = urlsplit(url)
    raw = {"Host": parts.netloc, **(headers or {})}
    return {
        "type": "http",
        "method": method,
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [
            (name.lower().encode(), value if isinstance(value, bytes) else str(value).encode("latin-1"))
            for name, value in raw.items()
        ],
    }


def ask(application: Any, scope: dict[str, Any], body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer; the body is sent in two parts."""
    parts = [body[:3], body[3:]]
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(application(scope, receive, send))
    return answers[0]["status"], dict(answers[0]["headers"]), answers[1]["body"]
