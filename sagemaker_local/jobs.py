"""Queues of jobs: at most so many at once, the rest in the order they came; stopped, abandoned and taken up again.

A job's state lies in the store, never only here. When the service ends, cleanly or not, a running job is abandoned: its
container is ended, its state stays as it is, and the next start takes the job up again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)


class Abandoned(Exception):
    """The service is going down; leave the job as it is for the next start."""


class Control:
    """What tells a running job to end. `cancelled` is set when it was stopped or abandoned."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._abandoned = False

    def stop(self) -> None:
        """Stop the job, as the Stop operations ask."""
        self.cancelled.set()

    def abandon(self) -> None:
        """Let go of the job because the service ends."""
        self._abandoned = True
        self.cancelled.set()

    def check_abandoned(self) -> None:
        """Raise `Abandoned` when the service is going down."""
        if self._abandoned:
            raise Abandoned

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the job is told to end."""
        self.cancelled.wait(seconds)


class JobQueue:
    """Runs jobs of one kind in threads, `limit` at once.

    `run(name, control)` does a job and sets its final state; `fail(name, reason)` is called when it raises something it
    did not expect, and again until it succeeds, so that a full disk delays a job's end but never loses it.
    """

    def __init__(
        self,
        kind: str,
        limit: int,
        run: Callable[[str, Control], None],
        fail: Callable[[str, str], None],
    ) -> None:
        self.kind = kind
        self._limit = limit
        self._run = run
        self._fail = fail
        self._waiting: deque[str] = deque()
        self._running: dict[str, tuple[Control, threading.Thread]] = {}
        self._guard = threading.Lock()
        self._closed = False

    def submit(self, name: str) -> bool:
        """Queue a job; True when it starts at once, False when it has to wait for others."""
        with self._guard:
            self._waiting.append(name)
            self._fill()
            return name in self._running

    def stop(self, name: str) -> None:
        """Tell a running job to stop, or start a waiting one out of turn so that it can take note of it."""
        with self._guard:
            if name in self._running:
                self._running[name][0].stop()
            elif name in self._waiting:
                self._waiting.remove(name)
                self._launch(name)
                self._running[name][0].stop()

    def close(self, timeout: float = 20.0) -> None:
        """Abandon the running jobs and wait until their threads have let go."""
        with self._guard:
            self._closed = True
            self._waiting.clear()
            running = list(self._running.values())
        for control, _ in running:
            control.abandon()
        for _, thread in running:
            thread.join(timeout)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._limit and not self._closed:
            self._launch(self._waiting.popleft())

    def _launch(self, name: str) -> None:
        control = Control()
        thread = threading.Thread(target=self._work, args=(name, control), name=f"{self.kind}-{name}", daemon=True)
        self._running[name] = (control, thread)
        thread.start()

    def _work(self, name: str, control: Control) -> None:
        try:
            self._run(name, control)
        except Abandoned:
            log.info("%s %s is left for the next start", self.kind, name)
        except Exception as error:
            log.exception("%s %s failed unexpectedly", self.kind, name)
            self._fail_persistently(name, f"InternalServerError: {type(error).__name__}: {error}", control)
        finally:
            with self._guard:
                self._running.pop(name, None)
                self._fill()

    def _fail_persistently(self, name: str, reason: str, control: Control) -> None:
        pause = 1.0
        while not self._closed:
            try:
                self._fail(name, reason[:1024])
                return
            except Exception:
                log.exception("%s %s: cannot store its failure yet", self.kind, name)
            control.pause(pause)
            if control.cancelled.is_set():
                control = Control()
            pause = min(pause * 2, 30.0)
