"""Step Functions in memory, in virtual time: executions that take a while, names that exist once, faults on demand."""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scones.batch.engine import (
    ExecutionExistsError,
    ExecutionGoneError,
    NotRunningError,
    ThrottledError,
    TransientError,
)
from scones.batch.items import Execution

T = TypeVar("T")
MACHINE = "arn:aws:states:us-east-1:ACCOUNT:stateMachine:workflow"


class VirtualTime:
    """An event loop that waits for nothing: its clock jumps to whatever is due next. One clock for several runs."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        virtual = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                if timeout is None:
                    raise RuntimeError("Everything waits and nothing is due: a deadlock")
                virtual.now += max(0.0, timeout)
                return super().select(0)

        class Loop(asyncio.SelectorEventLoop):
            def time(self) -> float:
                return virtual.now

        with asyncio.Runner(loop_factory=lambda: Loop(Selector())) as runner:
            return runner.run(main)


@dataclass
class _Run:
    input: str
    started_at: float
    seconds: float
    stopped: tuple[str, str] | None = None
    stopped_at: float | None = None


def classified(probabilities: list[float]) -> dict[str, str]:
    return {"status": "SUCCEEDED", "output": json.dumps({"inferences": probabilities, "threshold": 0.9})}


def failed(error: str, message: str) -> dict[str, str]:
    return {"status": "FAILED", "error": error, "cause": json.dumps({"errorType": error, "errorMessage": message})}


def rejected(key: str, probabilities: list[float]) -> dict[str, str]:
    cause = {"s3_key": key, "inferences": probabilities, "threshold": 0.9, "threshold_version": 3}
    return failed("THRESHOLD_CONFIDENCE_NOT_MET", json.dumps(cause))


@dataclass
class FakeStepFunctions:
    """One state machine. ``ending_of(key)`` says how the execution of an image ends.

    Every call takes 5 ms. Faults: ``throttle_start`` (StartExecution), ``throttle`` (all other calls) and ``lost`` are
    shares of calls that are refused, or carried out with the answer lost;
    ``list_lag_s`` is how long a new execution is missing from the list of what runs; ``starts_per_second`` is a limit.
    """

    ending_of: Callable[[str], dict[str, str]] = lambda key: classified([0.95, 0.05])
    seconds: float = 0.02
    throttle: float = 0.0
    throttle_start: float = 0.0
    lost: float = 0.0
    list_lag_s: float = 0.0
    starts_per_second: float = 0.0
    seed: int = 1
    clock: VirtualTime = field(default_factory=VirtualTime)
    runs: dict[str, _Run] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    most_running: int = 0
    most_running_of_one_image: int = 0
    _tokens_at: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def arn_of(self, name: str) -> str:
        return f"{MACHINE.replace(':stateMachine:', ':execution:')}:{name}"

    def is_running(self, run: _Run) -> bool:
        return run.stopped is None and self.clock() - run.started_at < run.seconds

    def running_now(self) -> list[str]:
        return [arn for arn, run in self.runs.items() if self.is_running(run)]

    async def _call(self, operation: str) -> None:
        self.calls[operation] += 1
        await asyncio.sleep(0.005)
        if self.random.random() < (self.throttle_start if operation == "start" else self.throttle):
            raise ThrottledError("Rate exceeded")

    def _answer_lost(self) -> None:
        if self.random.random() < self.lost:
            raise TransientError("connection reset")

    async def start(self, name: str, workflow_input: str) -> Execution:
        await self._call("start")
        if self.starts_per_second:
            now = self.clock()
            self._tokens_at = max(self._tokens_at, now - 0.1)
            if self._tokens_at > now:
                raise ThrottledError("Rate exceeded")
            self._tokens_at += 1 / self.starts_per_second
        arn = self.arn_of(name)
        if arn in self.runs:
            raise ExecutionExistsError(arn)
        self.runs[arn] = _Run(workflow_input, self.clock(), self.seconds * self.random.uniform(0.5, 1.5))
        running = [self.runs[a] for a in self.running_now()]
        self.most_running = max(self.most_running, len(running))
        images = Counter(json.loads(run.input)["s3_key"] for run in running)
        self.most_running_of_one_image = max(self.most_running_of_one_image, *images.values())
        self._answer_lost()
        return Execution(arn, "RUNNING", started_at=self.clock())

    async def describe(self, arn: str) -> Execution:
        await self._call("describe")
        self._answer_lost()
        run = self.runs.get(arn)
        if run is None:
            raise ExecutionGoneError(arn)
        started = run.started_at
        if self.is_running(run):
            return Execution(arn, "RUNNING", run.input, started_at=started)
        if run.stopped:
            return Execution(
                arn, "ABORTED", run.input, error=run.stopped[0], cause=run.stopped[1], started_at=started,
                stopped_at=started + run.seconds,
            )  # fmt: skip
        ending = self.ending_of(json.loads(run.input)["s3_key"])
        return Execution(arn, input=run.input, started_at=started, stopped_at=started + run.seconds, **ending)

    async def running(self, at_most: int) -> set[str] | None:
        await self._call("list")
        visible = self.clock() - self.list_lag_s
        return {arn for arn in self.running_now() if self.runs[arn].started_at <= visible}

    async def stop(self, arn: str, error: str, cause: str) -> None:
        await self._call("stop")
        run = self.runs.get(arn)
        if run is None:
            raise ExecutionGoneError(arn)
        if not self.is_running(run):
            raise NotRunningError(arn)
        run.stopped = (error, cause)

    async def failed_state(self, arn: str) -> str | None:
        await self._call("history")
        return "ClassifyImage"
