"""What monitoring asks AWS for: the endpoint and where its model came from, its traffic; what it publishes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.exceptions import BotoCoreError, ClientError

from scones.aws.lineage import training_job_of_artifact
from scones.aws.sagemaker import SageMakerResourcesHook
from scones.aws.store import ObjectStore
from scones.defaults import AWS_CONN_ID, MODEL_PACKAGE_GROUP
from scones.monitoring.build import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scones.monitoring.document import EndpointFacts, Report
    from scones.monitoring.index import Window

log = logging.getLogger(__name__)

METRIC_NAMESPACE = "Scones/ModelMonitor"
_LARGEST_WINDOW = timedelta(days=14)
#: Packages looked at to find the live model's; it is among the newest but for a rollback far back.
_PACKAGES_SEARCHED = 20


class EndpointMissingError(RuntimeError):
    """There is no such endpoint, so there is nothing to report on."""


@dataclass(frozen=True)
class MonitoringAws:
    """The clients monitoring needs, all through one Airflow connection; tests pass their own."""

    store: ObjectStore
    sagemaker: SageMakerResourcesHook
    cloudwatch: Any
    sns: Any

    @classmethod
    def connect(cls, bucket: str, aws_conn_id: str = AWS_CONN_ID) -> MonitoringAws:
        """Connect through Airflow's AWS connection."""
        return cls(
            store=ObjectStore(bucket, aws_conn_id),
            sagemaker=SageMakerResourcesHook(aws_conn_id=aws_conn_id),
            cloudwatch=AwsBaseHook(aws_conn_id=aws_conn_id, client_type="cloudwatch").conn,
            sns=AwsBaseHook(aws_conn_id=aws_conn_id, client_type="sns").conn,
        )

    def endpoint(self, name: str) -> EndpointFacts:
        """The facts of an endpoint that a report shows.

        Raises:
            EndpointMissingError: there is no such endpoint.
        """
        endpoint = self.sagemaker.endpoint(name)
        if endpoint is None:
            raise EndpointMissingError(f"There is no endpoint named {name!r}. Run the train_and_deploy DAG first.")
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

    def lineage(self, endpoint: EndpointFacts) -> dict[str, Any]:
        """Model, model package, training job and data set behind the endpoint, as far as they are known."""
        return _lineage_of(self.sagemaker, endpoint)

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


def _lineage_of(sagemaker: SageMakerResourcesHook, endpoint: EndpointFacts) -> dict[str, Any]:
    lineage: dict[str, Any] = {"endpoint_config_name": endpoint["config_name"]}
    model_name = next((variant["model_name"] for variant in endpoint["variants"]), None)
    model = sagemaker.model(model_name) if model_name else None
    if model is None:
        return lineage
    container: dict[str, Any] = model.get("PrimaryContainer") or next(iter(model.get("Containers", [])), {})
    lineage.update(model_name=model_name, model_data_url=container.get("ModelDataUrl"))
    package = _package_of(sagemaker, container)
    if package:
        properties = package.get("CustomerMetadataProperties") or {}
        containers = package.get("InferenceSpecification", {}).get("Containers", [])
        lineage.update(
            model_package_arn=package["ModelPackageArn"],
            model_package_version=package.get("ModelPackageVersion"),
            model_data_url=lineage["model_data_url"] or next((c.get("ModelDataUrl") for c in containers), None),
            dataset_version=properties.get("dataset_version"),
            training_job_name=properties.get("training_job"),
            git_revision=properties.get("git_revision"),
        )
    if not lineage.get("training_job_name"):
        try:
            lineage["training_job_name"] = training_job_of_artifact(lineage["model_data_url"] or "")
        except ValueError:
            # A model that was not trained here; its tags may know.
            lineage["training_job_name"] = _tags(sagemaker, model.get("ModelArn")).get("scones:training_job")
    if not lineage.get("dataset_version") and lineage["training_job_name"]:
        job = sagemaker.training_job(lineage["training_job_name"]) or {}
        tags = _tags(sagemaker, job.get("TrainingJobArn"))
        lineage.update(dataset_version=tags.get("scones:dataset_version"), git_revision=tags.get("scones:git_revision"))
    return lineage


def _package_of(sagemaker: SageMakerResourcesHook, container: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model package the container names, or the newest of the project's group with the same artifact."""
    if container.get("ModelPackageName"):
        return sagemaker.describe("describe_model_package", ModelPackageName=container["ModelPackageName"])
    listed = sagemaker.describe(
        "list_model_packages",
        ModelPackageGroupName=MODEL_PACKAGE_GROUP,
        SortBy="CreationTime",
        SortOrder="Descending",
        MaxResults=_PACKAGES_SEARCHED,
    )
    for summary in (listed or {}).get("ModelPackageSummaryList", []):
        package = sagemaker.describe("describe_model_package", ModelPackageName=summary["ModelPackageArn"]) or {}
        containers = package.get("InferenceSpecification", {}).get("Containers", [])
        if any(one.get("ModelDataUrl") == container.get("ModelDataUrl") for one in containers):
            return package
    return None


def _tags(sagemaker: SageMakerResourcesHook, arn: str | None) -> dict[str, str]:
    answer = sagemaker.describe("list_tags", ResourceArn=arn) if arn else None
    return {tag["Key"]: tag["Value"] for tag in (answer or {}).get("Tags", [])}
