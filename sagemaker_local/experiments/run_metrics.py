"""Metrics that are logged to a trial component one by one, as the SDK's `Run.log_metric` does."""

from __future__ import annotations

from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.experiments.records import COMPONENT
from sagemaker_local.metrics import summary_with
from sagemaker_local.store import Resource


def batch_put_metrics(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Adds values to the metrics of a trial component, which keeps their summary."""
    name, points = request["TrialComponentName"], request["MetricData"]

    def add(row: Resource) -> None:
        metrics = {(one["SourceArn"], one["MetricName"]): one for one in row.body.get("Metrics") or ()}
        for point in points:
            key = (row.arn, point["MetricName"])
            before, at = metrics.get(key), point["Timestamp"]
            summary = {**summary_with(before, point["Value"], at), "SourceArn": row.arn, "MetricName": key[1]}
            if before and at < before["TimeStamp"]:  # one that comes late is not the last
                summary |= {"Last": before["Last"], "TimeStamp": before["TimeStamp"]}
            metrics[key] = summary
        row.body["Metrics"] = list(metrics.values())

    if ctx.store.update(COMPONENT.kind, name, add) is None:
        return {"Errors": [{"Code": "VALIDATION_ERROR", "MetricIndex": index} for index in range(len(points))]}
    return {}


OPERATIONS = operations(batch_put_metrics)
