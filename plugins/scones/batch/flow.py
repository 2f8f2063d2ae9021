"""Adaptive flow control: how many executions are in flight and how many are started per second.

Both follow the service: throttling answers cut them (at most once per cool-down, so that one burst of refusals counts
as one), successes raise them again towards the limits the user set. Up to the first refusal the window doubles per
round, as TCP's does; after it, it grows by one per round.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

INITIAL_WINDOW = 16
WINDOW_CUT = 0.7
WINDOW_FLOOR = 0.125
RATE_CUT = 0.7
RATE_FLOOR = 0.05
RATE_GROWTH_PER_S = 0.25
COOL_DOWN_S = 1.0


class FlowControl:
    """Shared by all chunks of a batch that one process follows.

    Args:
        concurrency: executions in flight at most.
        starts_per_second: StartExecution calls per second at most.
    """

    def __init__(
        self,
        concurrency: int,
        starts_per_second: float,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        if starts_per_second <= 0:
            raise ValueError(f"starts_per_second must be above 0, got {starts_per_second}")
        self.max_window = concurrency
        self.max_rate = float(starts_per_second)
        self.window = float(min(concurrency, INITIAL_WINDOW))
        self.rate = self.max_rate
        self.in_use = 0
        self._slow_start_until = float(concurrency)
        self._clock, self._sleep, self._rng = clock, sleep, rng or random.Random()  # noqa: S311 jitter, no secret
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._next_start = clock()
        self._last_start = self._next_start
        self._last_cut = {"window": self._next_start - COOL_DOWN_S, "rate": self._next_start - COOL_DOWN_S}
        self._accepted = 0

    async def acquire(self) -> None:
        """Wait for a place in the window and for the next start to be due; in order of asking."""
        async with self._turn:
            while self.in_use >= int(self.window):
                self._freed.clear()
                await self._freed.wait()
            self.in_use += 1
            try:
                await self.pace()
            except BaseException:
                self.release()
                raise

    async def pace(self) -> None:
        """Wait until one more start is within the rate; a quarter of a second's worth may go at once."""
        now = self._clock()
        due = max(self._next_start, now - 0.25)
        self._next_start = due + 1.0 / self.rate
        if due > now:
            await self._sleep(due - now)

    def release(self) -> None:
        self.in_use -= 1
        self._freed.set()

    def started(self) -> None:
        """A start was accepted: the rate recovers, by a quarter each second whatever it is."""
        now = self._clock()
        self.rate = min(self.max_rate, self.rate * (1 + RATE_GROWTH_PER_S * min(1.0, now - self._last_start)))
        self._last_start = now
        self._accepted += 1

    def finished(self) -> None:
        """An execution came to its end: the window recovers."""
        step = 1.0 if self.window < self._slow_start_until else 1.0 / self.window
        self.window = min(float(self.max_window), self.window + step)
        self._freed.set()

    def refused(self, operation: str) -> None:
        """The service throttled ``operation``: starts slow the rate, everything else narrows the window."""
        what, now = ("rate" if operation == "start" else "window"), self._clock()
        since = now - self._last_cut[what]
        if since < COOL_DOWN_S:
            return
        self._last_cut[what] = now
        if what == "rate":
            # What was accepted of late is what the service takes: no need to find it step by step.
            self.rate = max(self.max_rate * RATE_FLOOR, min(self.rate * RATE_CUT, 1.1 * self._accepted / since))
            self._accepted = 0
        else:
            self.window = max(1.0, self.max_window * WINDOW_FLOOR, self.window * WINDOW_CUT)
            self._slow_start_until = self.window

    def backoff_s(self, tries: int) -> float:
        """Return a wait before the next try: exponential with full jitter, 10 s at most."""
        return self._rng.uniform(0.0, min(10.0, 0.1 * 2.0 ** min(tries, 10)))
