"""Endpoint metrics in CloudWatch's namespace AWS/SageMaker: gathered in memory, delivered in batches.

CloudWatch counts by minutes, so each minute's invocations are delivered under a time of that minute, however late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger(__name__)
NAMESPACE = "AWS/SageMaker"
_VALUES_PER_DATUM, _DATA_PER_CALL = 150, 100  # PutMetricData's own limits allow 150 and 1000
_KEPT_BATCHES = 30

_UNITS = {"ModelLatency": "Microseconds", "OverheadLatency": "Microseconds"}


@dataclass
class _Minute:
    """A variant's invocations of one minute: how often each metric had each value, and when the last one was."""

    last: float = 0.0
    values: dict[str, Counter[float]] = field(default_factory=lambda: defaultdict(Counter))


class EndpointMetrics:
    """Counts invocations; `run` delivers them. A CloudWatch that does not answer is nobody's error: batches wait.

    Not thread-safe: used on one event loop.

    Args:
        put: gives data to CloudWatch.
        period: seconds between deliveries.
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self, put: Callable[[list[dict[str, Any]]], None], period: float, now: Callable[[], float] = time.time
    ) -> None:
        self._put = put
        self._period = period
        self._now = now
        self.totals: Counter[tuple[str, str]] = Counter()  # invocations of each endpoint's variants since the start
        self._minutes: dict[tuple[str, str, int], _Minute] = defaultdict(_Minute)
        self._batches: list[list[dict[str, Any]]] = []
        self._task: asyncio.Task[None] | None = None

    def record(
        self, endpoint: str, variant: str, model_status: int, *, model_seconds: float, overhead_seconds: float
    ) -> None:
        """Count one invocation. `model_status` is what the model server answered, 0 for no HTTP answer at all."""
        self.totals[endpoint, variant] += 1
        now = self._now()
        minute = self._minutes[endpoint, variant, int(now // 60)]
        minute.last, values = now, minute.values
        values["Invocations"][1.0] += 1
        values["Invocation4XXErrors"][float(400 <= model_status < 500)] += 1
        values["Invocation5XXErrors"][float(model_status >= 500 or model_status == 0)] += 1
        values["InvocationModelErrors"][float(not 200 <= model_status < 300)] += 1
        values["ModelLatency"][_microseconds(model_seconds)] += 1
        values["OverheadLatency"][_microseconds(overhead_seconds)] += 1

    def start(self) -> None:
        """Deliver every `period` seconds from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="endpoint metrics")

    async def stop(self) -> None:
        """Deliver what is left, once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.deliver()

    async def deliver(self) -> bool:
        """Put everything gathered; False when CloudWatch did not take it all, which the next call tries again."""
        self._batches.extend(_batches(self._minutes))
        self._minutes.clear()
        del self._batches[:-_KEPT_BATCHES]
        while self._batches:
            try:
                await asyncio.to_thread(self._put, self._batches[0])
            except Exception as error:  # noqa: BLE001  whatever it is, invocations go on
                log.warning("CloudWatch took no metrics: %s", error)
                return False
            del self._batches[0]
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            await self.deliver()


def _microseconds(seconds: float) -> float:
    """Three significant digits, so that a batch has few distinct values."""
    return float(f"{max(seconds, 0.0) * 1e6:.3g}")


def _batches(gathered: dict[tuple[str, str, int], _Minute]) -> list[list[dict[str, Any]]]:
    data = []
    for (endpoint, variant, _), minute in gathered.items():
        dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
        for name, counts in minute.values.items():
            pairs = sorted(counts.items())
            for start in range(0, len(pairs), _VALUES_PER_DATUM):
                part = pairs[start : start + _VALUES_PER_DATUM]
                data.append(
                    {
                        "MetricName": name,
                        "Dimensions": dimensions,
                        "Timestamp": datetime.fromtimestamp(minute.last, UTC),
                        "Values": [value for value, _ in part],
                        "Counts": [float(count) for _, count in part],
                        "Unit": _UNITS.get(name, "Count" if name == "Invocations" else "None"),
                    }
                )
    return [data[start : start + _DATA_PER_CALL] for start in range(0, len(data), _DATA_PER_CALL)]
