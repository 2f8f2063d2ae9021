"""What the batch engine needs of a workflow service, and the ways a call to it can go wrong."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

RUNNING = "RUNNING"


class TransportError(Exception):
    """A call that cannot be repeated with success: access denied, no such state machine, invalid request."""


class ThrottledError(Exception):
    """The service asks for fewer calls."""


class TransientError(Exception):
    """The call may succeed when repeated: connection lost, 5xx."""


class ExecutionExistsError(Exception):
    """An execution of that name exists already."""


class ExecutionGoneError(Exception):
    """No execution of that ARN is known (yet, or any more)."""


class NotRunningError(Exception):
    """StopExecution came after the end."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What DescribeExecution tells. Times are seconds since the epoch."""

    arn: str
    status: str
    input: str | None = None
    output: str | None = None
    error: str | None = None
    cause: str | None = None
    started_at: float | None = None
    stopped_at: float | None = None


class WorkflowTransport(Protocol):
    """Calls to one state machine, each a single attempt: pace and repetition are the engine's."""

    def arn_of(self, name: str) -> str: ...

    async def start(self, name: str, workflow_input: str) -> Execution: ...

    async def describe(self, arn: str) -> Execution: ...

    async def running(self, at_most: int) -> Set[str] | None:
        """Return the ARNs of what runs now, or None when there are more than ``at_most``."""
        ...

    async def stop(self, arn: str, error: str, cause: str) -> None: ...

    async def failed_state(self, arn: str) -> str | None:
        """Return the state in which the execution failed, from its history."""
        ...
