"""What every handler is given: the parts of one running service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from starlette.types import ASGIApp, Scope

from sagemaker_local.clients import Clients
from sagemaker_local.config import Clock, Config, wall_clock
from sagemaker_local.errors import ServiceUnavailable
from sagemaker_local.events import Publisher
from sagemaker_local.images import Images
from sagemaker_local.processes import Processes
from sagemaker_local.store import Store

Part = TypeVar("Part")


class Context:
    """Store, settings, clients, images, processes and clock, plus the parts that areas add (`provide`, `use`)."""

    def __init__(self, config: Config, *, clock: Clock = wall_clock) -> None:
        self.config = config
        self.now = clock
        self.store = Store(config.data_dir / "state.sqlite", clock)
        self.clients = Clients(config)
        self.events = Publisher(self.clients, self.store, clock)
        self.images = Images.load(config.images_file)
        self.processes = Processes(config.data_dir)
        self._parts: dict[type, Any] = {}

    def arn(self, kind: str, name: str) -> str:
        """`arn:aws:sagemaker:<region>:<account>:<kind>/<name>`; SageMaker's ARNs are in lower case names."""
        return f"arn:aws:sagemaker:{self.config.region}:{self.account()}:{kind}/{name}"

    def account(self) -> str:
        """The account that ARNs name: the configured one, else what STS says, asked once and remembered.

        Raises:
            ServiceUnavailable: STS does not say, and nothing is configured or remembered.
        """
        known = self.config.account_id or self.store.fact("account_id")
        if known is None:
            try:
                known = str(self.clients.get("sts").get_caller_identity()["Account"])
            except (BotoCoreError, ClientError) as error:
                raise ServiceUnavailable(
                    f"STS did not say which account this is ({error}). Start the AWS emulator, or set AWS_ENDPOINT_URL."
                ) from error
            self.store.remember("account_id", known)
        return known

    def provide(self, part: Any) -> None:
        """Add a part that other areas may `use`, found by its class."""
        self._parts[type(part)] = part

    def use(self, kind: type[Part]) -> Part:
        """The part of this class.

        Raises:
            KeyError: its area has not started.
        """
        found: Part = self._parts[kind]
        return found

    def close(self) -> None:
        """Close clients and store, last of all."""
        self.events.close()
        self.clients.close()
        self.store.close()


Handler = Callable[[Context, dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any] | None] | None]
"""An operation: takes the validated request, returns the answer's members. Plain ones run in a worker thread, async
ones on the event loop. Raises `ServiceError`."""


def operations(*handlers: Handler) -> dict[str, Handler]:
    """Handlers by the names of their operations: `create_model` is CreateModel."""
    return {"".join(word.capitalize() for word in handler.__name__.split("_")): handler for handler in handlers}


Direct = Callable[[Scope], ASGIApp | None]
"""The ASGI application of a request that is answered past routing and middleware, or None."""
