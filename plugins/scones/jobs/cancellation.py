"""Work of a trigger that a cancellation must reach in the right way.

The triggerer (Airflow 3.3) tells a user's kill from its own shutdown by the message of the cancellation, and cancels an
ending trigger again about once a second. asgiref's `sync_to_async`, which every AWS hook awaits for its connection,
drops the message: the kill would pass for a shutdown, and the job would run and cost on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
UNWINDING_S = 5.0

# The event loop itself holds no more than weak references to its tasks.
_at_work: set[asyncio.Task[Any]] = set()


def _begin(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    task = asyncio.create_task(work)
    _at_work.add(task)
    task.add_done_callback(_at_work.discard)
    return task


async def cancellable(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work that a cancellation ends; the caller sees the cancellation as it was sent, message and all."""
    task = _begin(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        task.cancel()
        # What follows (on_kill) finds the work ended; one that does not end in time must not hold up the kill.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=UNWINDING_S)
        raise cancelled


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work that goes on when the awaiting is cancelled."""
    return await asyncio.shield(_begin(work))
