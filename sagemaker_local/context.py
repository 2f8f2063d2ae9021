"""What every handler is given: the parts of one running service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sagemaker_local.clients import Clients, account_id
from sagemaker_local.config import Clock, Config, wall_clock
from sagemaker_local.events import Publisher
from sagemaker_local.images import Images
from sagemaker_local.processes import Processes
from sagemaker_local.store import Store

Part = TypeVar("Part")


class Context:
    """Store, settings, clients, images, processes and clock, plus the parts that areas add (`provide`, `use`)."""

    def __init__(self, config: Config, *, clock: Clock = wall_clock, images: Images | None = None) -> None:
        self.config = config
        self.now = clock
        self.store = Store(config.data_dir / "state.sqlite", clock)
        self.clients = Clients(config)
        self.publisher = Publisher(self.clients)
        self.images = images or Images.load(config.images_file)
        self.processes = Processes(config.data_dir)
        self._parts: dict[type, Any] = {}

    def arn(self, kind: str, name: str) -> str:
        """`arn:aws:sagemaker:<region>:<account>:<kind>/<name>`; SageMaker's ARNs are in lower case names."""
        account = account_id(self.config, self.clients, self.store)
        return f"arn:aws:sagemaker:{self.config.region}:{account}:{kind}/{name}"

    def provide(self, part: Any) -> None:
        """Add a part that other areas may `use`, found by its class."""
        self._parts[type(part)] = part

    def use(self, kind: type[Part]) -> Part:
        """The part of this class. Raises KeyError when its area has not started."""
        found: Part = self._parts[kind]
        return found

    def close(self) -> None:
        """Close clients and store, last of all."""
        self.publisher.close()
        self.clients.close()
        self.store.close()


Handler = Callable[[Context, dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any] | None] | None]
"""An operation: takes the validated request, returns the answer's members. Plain ones run in a worker thread, async
ones on the event loop. Raises `ServiceError`."""
