"""Training metrics read from log lines by SageMaker's MetricDefinitions (a name and a regular expression)."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException

log = logging.getLogger(__name__)

_CURVE = 500
NAMESPACE = "/aws/sagemaker/TrainingJobs"


def compile_definitions(definitions: list[dict[str, str]]) -> list[tuple[str, re.Pattern[str]]]:
    """Compiled definitions.

    Raises:
        ValidationException: a regular expression is not one; the message names its metric.
    """
    compiled = []
    for definition in definitions:
        try:
            pattern = re.compile(definition["Regex"])
        except re.error as error:
            raise ValidationException(
                f"Invalid regular expression for metric {definition['Name']}: {definition['Regex']} ({error})"
            ) from error
        compiled.append((definition["Name"], pattern))
    return compiled


def summary_with(before: Mapping[str, Any] | None, value: float, at: float) -> dict[str, Any]:
    """What a trial component says of a metric, with one more value of `at` seconds since the epoch.

    Its last value, extremes, mean and spread (by Welford's way, so that no value need be kept).
    """
    if before is None:
        return {"TimeStamp": at, "Max": value, "Min": value, "Last": value, "Count": 1, "Avg": value, "StdDev": 0.0}
    kept, count, distance = before["Count"], before["Count"] + 1, value - before["Avg"]
    # In an order in which a loss that runs away overflows nowhere but in the spread; JSON has no infinity.
    squares = before["StdDev"] * before["StdDev"] * kept + distance * distance * (kept / count)
    return {
        "TimeStamp": at,
        "Max": max(before["Max"], value),
        "Min": min(before["Min"], value),
        "Last": value,
        "Count": count,
        "Avg": before["Avg"] + (value / count - before["Avg"] / count),
        "StdDev": min(math.sqrt(squares / count), sys.float_info.max),
    }


class MetricReader:
    """Keeps the last value of each metric, and what the others were like; thread-safe."""

    def __init__(self, definitions: list[dict[str, str]]) -> None:
        self._definitions = compile_definitions(definitions)
        self._seen: dict[str, dict[str, Any]] = {}
        self._curves: dict[str, list[float]] = defaultdict(list)  # the first _CURVE values
        self._unpublished: list[dict[str, Any]] = []
        self._guard = threading.Lock()

    def observe(self, line: str, seconds: float) -> None:
        """Take note of the metrics in a log line written at `seconds` since the epoch."""
        for name, pattern in self._definitions:
            found = pattern.search(line)
            if not found:
                continue
            try:
                value = float(found.group(1) if pattern.groups else found.group(0))
            except (TypeError, ValueError):
                continue
            if not math.isfinite(value):
                continue
            with self._guard:
                self._seen[name] = summary_with(self._seen.get(name), value, seconds)
                if len(self._curves[name]) < _CURVE:
                    self._curves[name].append(value)
                self._unpublished.append({"MetricName": name, "Value": value, "Timestamp": seconds})

    def final(self) -> list[dict[str, Any]]:
        """FinalMetricDataList: the last value of each metric, at most 40."""
        with self._guard:
            rows = sorted((name, seen["Last"], seen["TimeStamp"]) for name, seen in self._seen.items())
        return [{"MetricName": name, "Value": value, "Timestamp": at} for name, value, at in rows][:40]

    def summaries(self) -> list[dict[str, Any]]:
        """What a trial component says of each metric."""
        with self._guard:
            return [{"MetricName": name, **seen} for name, seen in sorted(self._seen.items())]

    def curves(self) -> dict[str, list[float]]:
        """The values of each metric as they came, the first few hundred."""
        with self._guard:
            return {name: list(curve) for name, curve in self._curves.items()}

    def publish(self, ctx: Context, job_name: str) -> None:
        """Send what was read to CloudWatch, as SageMaker does. An outage costs the points, never the job."""
        with self._guard:
            points, self._unpublished = self._unpublished, []
        dimensions = [{"Name": "TrainingJobName", "Value": job_name}]
        data = [{**point, "Dimensions": dimensions} for point in points]
        try:
            for start in range(0, len(data), 500):
                batch = data[start : start + 500]
                ctx.clients.get("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=batch)
        except (BotoCoreError, ClientError) as error:
            log.warning("metrics of %s were not published: %s", job_name, error)
