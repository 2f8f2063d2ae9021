"""What monitoring asks AWS for: the endpoint, its model and its traffic; and what it publishes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from scones.aws.resources import AWS_CONN_ID, client
from scones.monitoring.build import Traffic
from scones.monitoring.store import MonitoringStore
from scones.training.aws import read_served_model
from scones.training.registry import ModelRegistryHook
from scones.training.served import ServedModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scones.monitoring.document import EndpointFacts, Report
    from scones.monitoring.index import Window

log = logging.getLogger(__name__)

METRIC_NAMESPACE = "Scones/ModelMonitor"
_LARGEST_WINDOW = timedelta(days=14)


class EndpointMissingError(RuntimeError):
    """There is no such endpoint, so there is nothing to report on."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no endpoint named {name!r}. Run the train_and_deploy DAG first.")


@dataclass(frozen=True)
class MonitoringAws:
    """The clients monitoring needs, all through one Airflow connection; tests pass their own."""

    store: MonitoringStore
    sagemaker: ModelRegistryHook
    cloudwatch: Any
    sns: Any

    @classmethod
    def connect(cls, bucket: str, aws_conn_id: str = AWS_CONN_ID) -> MonitoringAws:
        """Connect through Airflow's AWS connection."""
        return cls(
            store=MonitoringStore(bucket, aws_conn_id),
            sagemaker=ModelRegistryHook(aws_conn_id=aws_conn_id),
            cloudwatch=client("cloudwatch", aws_conn_id),
            sns=client("sns", aws_conn_id),
        )

    def endpoint(self, name: str) -> EndpointFacts:
        """The facts of an endpoint that a report shows.

        Raises:
            EndpointMissingError: there is no such endpoint.
        """
        endpoint = self.sagemaker.endpoint(name)
        if endpoint is None:
            raise EndpointMissingError(name)
        config_name = endpoint.get("EndpointConfigName")
        config = (self.sagemaker.endpoint_config(config_name) if config_name else None) or {}
        capture = config.get("DataCaptureConfig") or {}
        now = endpoint.get("DataCaptureConfig") or {}
        return {
            "name": name,
            "status": endpoint["EndpointStatus"],
            "config_name": config_name,
            "created_at": endpoint["CreationTime"].astimezone(UTC).isoformat(),
            "capture_enabled": bool(now.get("EnableCapture", capture.get("EnableCapture", False))),
            "capture_status": now.get("CaptureStatus"),
            "sampling_percentage": now.get(
                "CurrentSamplingPercentage", capture.get("InitialSamplingPercentage") or 100
            ),
            "destination": now.get("DestinationS3Uri", capture.get("DestinationS3Uri")),
            "variants": [
                {"name": variant["VariantName"], "model_name": variant.get("ModelName")}
                for variant in config.get("ProductionVariants", [])
            ],
        }

    def served(self, endpoint_name: str, classes: Sequence[str]) -> ServedModel:
        """What the endpoint serves; ``classes`` name those of a model whose lineage is not ours.

        Raises:
            EndpointMissingError: there is no such endpoint.
            scones.training.served.ServedClassesError: the lineage names other classes.
        """
        served = read_served_model(endpoint_name, self.store, self.sagemaker, classes)
        if served is None:
            raise EndpointMissingError(endpoint_name)
        return served

    def traffic(self, endpoint: EndpointFacts, window: Window) -> Traffic:
        """Invocations, errors and latency of the endpoint in a window, two weeks at most.

        An endpoint without metrics has no invocations; when CloudWatch cannot be asked, invocations are None.
        """
        since, until = max(window.since, window.until - _LARGEST_WINDOW), window.until
        period = 60 if until - since <= timedelta(days=1) else 3600
        # CloudWatch aligns periods to the hour; the end is past the last minute, or that minute would be left out.
        start = since.replace(second=0, microsecond=0)
        end = until.replace(second=0, microsecond=0) + timedelta(minutes=1)
        whole = 60 * math.ceil((end - start).total_seconds() / 60)

        def series(metric: str, stat: str, seconds: int = period) -> list[tuple[datetime, float]]:
            return self._series(endpoint, metric, stat, {"StartTime": start, "EndTime": end}, seconds)

        try:
            means, tails = series("ModelLatency", "Average", whole), series("ModelLatency", "p95", whole)
            errors = series("Invocation4XXErrors", "Sum") + series("Invocation5XXErrors", "Sum")
            return Traffic(
                invocations=series("Invocations", "Sum"),
                latency=series("ModelLatency", "Average"),
                latency_mean_ms=max(value for _, value in means) / 1000 if means else None,
                latency_p95_ms=max(value for _, value in tails) / 1000 if tails else None,
                errors=sum(value for _, value in errors),
            )
        except (BotoCoreError, ClientError) as error:
            log.warning("CloudWatch could not be asked about %s: %s", endpoint["name"], error)
            return Traffic()

    def _series(
        self, endpoint: EndpointFacts, metric: str, stat: str, window: Mapping[str, datetime], period: int
    ) -> list[tuple[datetime, float]]:
        """Points of a metric over all variants, added up; averages are averaged."""
        queries = [
            {
                "Id": f"m{index}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SageMaker",
                        "MetricName": metric,
                        "Dimensions": [
                            {"Name": "EndpointName", "Value": endpoint["name"]},
                            {"Name": "VariantName", "Value": variant["name"]},
                        ],
                    },
                    "Period": period,
                    "Stat": stat,
                },
            }
            for index, variant in enumerate(endpoint["variants"] or [{"name": "AllTraffic", "model_name": None}])
        ]
        values: dict[datetime, list[float]] = {}
        pages = self.cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, ScanBy="TimestampAscending", **window
        )
        for result in (one for page in pages for one in page["MetricDataResults"]):
            for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                values.setdefault(at.astimezone(UTC), []).append(value)
        combine: Callable[[list[float]], float] = sum if stat == "Sum" else lambda found: sum(found) / len(found)
        return [(at, combine(values[at])) for at in sorted(values)]

    def put_metrics(self, report: Report) -> int:
        """Publish a report's numbers to CloudWatch, drift under Model Monitor's names. Return how many."""
        numbers: dict[str, float | None] = {
            "captured_records": report["captured_records"],
            "violations": len(report["violations"]),
            "rejection_rate": report["rejection_rate"],
            "mean_confidence": report["confidence"]["mean"],
        }
        for result in report["drift"]:
            if result["decisive"]:
                numbers[f"feature_baseline_drift_{result['feature']}"] = result["value"]
        common = {
            "Dimensions": [{"Name": "Endpoint", "Value": report["endpoint_name"]}],
            "Timestamp": datetime.fromisoformat(report["created_at"]),
        }
        data = [
            {"MetricName": name, "Value": float(value), **common}
            for name, value in numbers.items()
            if value is not None
        ]
        self.cloudwatch.put_metric_data(Namespace=METRIC_NAMESPACE, MetricData=data)
        return len(data)
