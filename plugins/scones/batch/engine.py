"""The batch engine: starts executions and follows them to their end, any number at once, from one event loop.

Idempotent by construction: the name of an execution follows from the batch and the image, so starting what was started
before is refused by the service and answered here by adopting it, running or finished. Whoever is killed, at whatever
moment, can be started again with the same items. The same holds for a service that forgets: an execution that it took
and then does not know for longer than a read may lag is started again under its name.

Cheap by construction: one ListExecutions of what runs replaces a DescribeExecution per image and round; each execution
is then described once, when it is gone from the list.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from scones.batch.flow import FlowControl
from scones.batch.items import (
    DEADLINE_ERROR,
    KILLED_ERROR,
    RESTARTED_ERROR,
    RUNNING,
    Ending,
    Execution,
    Item,
    execution_name,
    is_rejection,
)

T = TypeVar("T")
MAX_TRIES = 40
MAX_ATTEMPTS = 20
GONE_AFTER_S = 10.0
MAX_LOSSES = 5
BULK_FROM = 3
BULK_AT_MOST = 3000
POLL_MIN_S, POLL_FLOOR_MAX_S, POLL_MAX_S = 0.1, 1.0, 10.0


class TransportError(Exception):
    """What stays as it is when tried again: access denied, no such state machine, invalid request."""


class UnfinishedError(TransportError):
    """The batch could not be brought to its end now; the next try goes on with it."""


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


@dataclass(slots=True)
class _Flight:
    item: Item
    attempt: int
    since: float
    deadline: float
    losses: int = 0
    settling: bool = False
    not_before: float = 0.0


class BatchEngine:
    """Runs one chunk.

    Args:
        transport: the workflow service.
        flow: limits, shared with the other chunks of the batch.
        batch_id: part of every execution's name.
        input_of: the workflow input of an item; must give the same text at every call.
        deadline_s: an execution still running so long after its start is stopped and counts as timed out.
        on_ending: called once per item, in the event loop.
    """

    def __init__(
        self,
        transport: WorkflowTransport,
        flow: FlowControl,
        *,
        batch_id: str,
        input_of: Callable[[Item], str],
        deadline_s: float,
        on_ending: Callable[[Ending], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport, self._flow = transport, flow
        self._batch_id, self._input_of, self._deadline_s, self._on_ending = batch_id, input_of, deadline_s, on_ending
        self._clock, self._now, self._sleep = clock, now, sleep
        self._flights: dict[str, _Flight] = {}
        self._starting: set[str] = set()
        self._pending = 0
        self._submitted = False
        self._latency = 0.5
        self._poll_floor = POLL_MIN_S
        self._halted = False
        self._idle = asyncio.Event()
        self.calls = {"start": 0, "describe": 0, "list": 0, "stop": 0, "history": 0}

    @property
    def unfinished(self) -> list[str]:
        """ARNs of what may be running: what must be stopped if nobody follows it any more."""
        return [*self._flights, *self._starting]

    async def run(self, items: Iterable[Item]) -> None:
        """Bring every item to its ending.

        Raises:
            TransportError: a call was refused for good (access denied, no such state machine, ...); what was started
                goes on and is adopted by the next run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll(group))
                for item in items:
                    await self._flow.acquire()
                    self._pending += 1
                    group.create_task(self._begin(item))
                self._submitted = True
                self._idle.set()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            # The places of what is left behind go back to the other chunks that share the flow control.
            for _ in range(self._pending):
                self._flow.release()
            self._pending = 0

    async def stop_unfinished(self, transport: WorkflowTransport, cause: str) -> int:
        """Stop whatever may still run, over a transport of its own (the engine's may be closed); returns how many.

        For a kill: one that cannot be stopped does not keep the others from it.
        """
        self._halted = True
        arns = self.unfinished
        gate = asyncio.Semaphore(32)

        async def stop(arn: str) -> bool:
            async with gate:
                # A start may be on its way just now: what does not exist yet is asked for again.
                for tries in range(1, 5 if arn in self._starting else 2):
                    try:
                        await self._call("stop", lambda: transport.stop(arn, KILLED_ERROR, cause))
                    except ExecutionGoneError:
                        await self._sleep(0.1 * tries)
                    except (NotRunningError, TransportError):
                        return False
                    else:
                        return True
                return False

        return sum(await asyncio.gather(*(stop(arn) for arn in arns)))

    async def _call(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            if self._halted and operation == "start":
                raise UnfinishedError("The batch was killed: nothing more is started")
            self.calls[operation] += 1
            try:
                return await call()
            except (ThrottledError, TransientError) as error:
                tries += 1
                if isinstance(error, ThrottledError):
                    self._flow.refused(operation)
                    if operation == "list":
                        self._poll_floor = min(POLL_FLOOR_MAX_S, self._poll_floor * 2)
                if tries >= MAX_TRIES:
                    raise UnfinishedError(f"{operation} refused {tries} times in a row, at last: {error}") from error
                await self._sleep(self._flow.backoff_s(tries))
                if operation == "start":
                    await self._flow.pace()

    async def _begin(self, item: Item, first_attempt: int = 1, losses: int = 0) -> None:
        workflow_input = self._input_of(item)
        for attempt in range(first_attempt, MAX_ATTEMPTS + 1):
            name = execution_name(self._batch_id, item.item_id, attempt)
            arn = self._transport.arn_of(name)
            self._starting.add(arn)
            try:
                execution = await self._call("start", partial(self._transport.start, name, workflow_input))
                self._flow.started()
            except ExecutionExistsError:
                execution = await self._existing(arn)
                nothing_said = execution.error in (KILLED_ERROR, RESTARTED_ERROR)
                if nothing_said or not _same_input(execution.input, workflow_input):
                    self._starting.discard(arn)
                    continue
            if execution.status == RUNNING:
                age = max(0.0, self._now() - execution.started_at) if execution.started_at else 0.0
                since = self._clock()
                self._flights[arn] = _Flight(item, attempt, since, since + self._deadline_s - age, losses)
                self._starting.discard(arn)
                self._idle.set()
            else:
                self._starting.discard(arn)
                await self._end(item, attempt, execution)
            return
        raise TransportError(
            f"All {MAX_ATTEMPTS} execution names of {item.key!r} in batch {self._batch_id} are taken by executions with"
            " another input: was the batch planned again with other params under the same id? Start a new run."
        )

    async def _existing(self, arn: str) -> Execution:
        # The name is taken, yet the execution may not be readable at once: reads are eventually consistent.
        for tries in range(1, 8):
            try:
                return await self._call("describe", lambda: self._transport.describe(arn))
            except ExecutionGoneError:
                await self._sleep(self._flow.backoff_s(tries))
        raise UnfinishedError(f"{arn} exists when started and does not when described, repeatedly")

    async def _poll(self, group: asyncio.TaskGroup) -> None:
        while not (self._submitted and self._pending == 0):
            if not self._flights:
                self._idle.clear()
                if self._submitted and self._pending == 0:
                    return
                await self._idle.wait()
                continue
            await self._sleep(self._poll_interval())
            self._poll_floor = max(POLL_MIN_S, self._poll_floor * 0.9)
            for arn in await self._maybe_finished():
                flight = self._flights.get(arn)
                if flight is not None and not flight.settling:
                    flight.settling = True
                    group.create_task(self._settle(arn, flight))

    def _poll_interval(self) -> float:
        """A sixth of what an execution takes, or of the age of the youngest in flight when all are old."""
        youngest = self._clock() - max(flight.since for flight in self._flights.values())
        return min(POLL_MAX_S, max(self._poll_floor, max(self._latency, youngest) / 6))

    async def _maybe_finished(self) -> list[str]:
        asked = self._clock()
        waiting = {arn: f for arn, f in self._flights.items() if not f.settling and f.since <= asked}
        running = None
        if len(waiting) >= BULK_FROM:
            running = await self._call("list", lambda: self._transport.running(BULK_AT_MOST))

        def may_have_ended(arn: str, flight: _Flight) -> bool:
            if running is None:
                # Too few, or too many strangers in the list: ask for each, when it is old enough to be done.
                return asked - flight.since >= self._latency / 2
            return arn not in running

        return [
            arn
            for arn, flight in waiting.items()
            if flight.deadline <= asked or (flight.not_before <= asked and may_have_ended(arn, flight))
        ]

    async def _settle(self, arn: str, flight: _Flight) -> None:
        try:
            execution = await self._call("describe", lambda: self._transport.describe(arn))
        except ExecutionGoneError:
            if self._clock() >= min(flight.deadline, flight.since + GONE_AFTER_S):
                await self._begin_lost(arn, flight, flight.attempt)
                return
            execution = Execution(arn, RUNNING)
        if execution.error in (RESTARTED_ERROR, KILLED_ERROR):
            # It says nothing about its image. In a batch that is killed itself, starting again raises.
            await self._begin_lost(arn, flight, flight.attempt + 1)
            return
        if execution.status == RUNNING and flight.deadline <= self._clock():
            with suppress(NotRunningError, ExecutionGoneError):
                cause = f"Still running {self._deadline_s:g} s after its start"
                await self._call("stop", lambda: self._transport.stop(arn, DEADLINE_ERROR, cause))
            execution = await self._existing(arn)
        if execution.status == RUNNING:
            # Not in the list and yet running: the list lags. Ask later for this one, not at every round.
            flight.not_before = self._clock() + max(self._poll_floor, self._latency / 3)
            flight.settling = False
            return
        await self._end(flight.item, flight.attempt, execution)
        self._flights.pop(arn, None)

    async def _begin_lost(self, arn: str, flight: _Flight, attempt: int) -> None:
        """Start again what the service lost. Under its own name, so a read that lags after all starts nothing twice."""
        if flight.losses >= MAX_LOSSES:
            raise UnfinishedError(f"Step Functions lost {arn} ({flight.item.key!r}) {MAX_LOSSES + 1} times")
        del self._flights[arn]
        await self._begin(flight.item, attempt, flight.losses + 1)

    async def _end(self, item: Item, attempt: int, execution: Execution) -> None:
        state = None
        if execution.status == "FAILED" and not is_rejection(execution.error):
            with suppress(ExecutionGoneError):
                state = await self._call("history", lambda: self._transport.failed_state(execution.arn))
        if execution.started_at and execution.stopped_at:
            self._latency += 0.1 * (execution.stopped_at - execution.started_at - self._latency)
        self._on_ending(Ending(item, attempt, execution, state))
        self._pending -= 1
        self._flow.release()
        self._flow.finished()
        self._idle.set()


def _same_input(first: str | None, second: str) -> bool:
    def parsed(text: str | None) -> Any:
        try:
            return json.loads(text or "null")
        except ValueError:
            return text

    return bool(parsed(first) == parsed(second))
