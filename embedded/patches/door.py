"""MiniStack's web application behind the guard: whoever reaches it can run code here, so not everybody may."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from embedded.patches.checks import require
from sagemaker_local.guard import App, Guard, Message, Receive, Scope, Send

# Health checks; and where CloudFormation waits for an answer: whoever knows the token in the URL was given it, as with
# AWS's presigned URLs.
OPEN_PATHS = ("/_ministack/health", "/_ministack/cfn-response/", "/_ministack/cfn-signal/")


def guard(module: Any, allowed_hosts: Iterable[str], secret_key: str | None) -> None:
    """Put the guard before the application that `module.main` serves."""
    require(callable(getattr(module, "app", None)), "ministack.app has no application `app`")
    module.app = Guard(
        _without_open_cors(module.app), allowed_hosts=allowed_hosts, secret_key=secret_key, open_paths=OPEN_PATHS
    )


def _without_open_cors(app: App) -> App:
    """MiniStack lets scripts of every page read its answers; AWS lets none that a bucket's own rules do not name."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if not _opens(*pair)]
                message = {**message, "headers": kept}
            await send(message)

        await app(scope, receive, send_closed)

    return serve


def _opens(name: bytes, value: bytes) -> bool:
    return name.lower() == b"access-control-allow-origin" and value.strip() == b"*"
