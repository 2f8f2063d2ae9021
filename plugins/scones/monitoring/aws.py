"""What monitoring asks AWS for: the endpoint and where its model came from, its traffic, its captures."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from scones.aws.errors import code_of
from scones.aws.lineage import training_job_of_artifact
from scones.aws.sagemaker import SageMakerResourcesHook
from scones.aws.store import ObjectStore
from scones.defaults import AWS_CONN_ID, MODEL_PACKAGE_GROUP
from scones.monitoring.build import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

METRIC_NAMESPACE = "Scones/ModelMonitor"
_LARGEST_WINDOW = timedelta(days=14)
#: Packages looked at to find the live model's; it is among the newest but for a rollback far back.
_PACKAGES_SEARCHED = 20


class EndpointMissingError(RuntimeError):
    """There is no such endpoint, so there is nothing to report on."""


class ConflictError(RuntimeError):
    """A document in S3 was changed by others at every try."""


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
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        return cls(
            store=ObjectStore(bucket, aws_conn_id),
            sagemaker=SageMakerResourcesHook(aws_conn_id=aws_conn_id),
            cloudwatch=AwsBaseHook(aws_conn_id=aws_conn_id, client_type="cloudwatch").conn,
            sns=AwsBaseHook(aws_conn_id=aws_conn_id, client_type="sns").conn,
        )


# ---- endpoint and lineage


def describe_endpoint(sagemaker: SageMakerResourcesHook, name: str) -> dict[str, Any]:
    """The facts of an endpoint that a report shows.

    Raises:
        EndpointMissingError: there is no such endpoint.
    """
    endpoint = sagemaker.endpoint(name)
    if endpoint is None:
        raise EndpointMissingError(f"There is no endpoint named {name!r}. Run the train_and_deploy DAG first.")
    config = sagemaker.endpoint_config(endpoint["EndpointConfigName"]) if endpoint.get("EndpointConfigName") else None
    capture = (config or {}).get("DataCaptureConfig") or {}
    summary = endpoint.get("DataCaptureConfig") or {}
    created = endpoint["CreationTime"]
    return {
        "name": name,
        "status": endpoint["EndpointStatus"],
        "config_name": endpoint.get("EndpointConfigName"),
        "created_at": created.astimezone(UTC).isoformat(),
        "capture_enabled": bool(summary.get("EnableCapture", capture.get("EnableCapture", False))),
        "capture_status": summary.get("CaptureStatus"),
        "sampling_percentage": summary.get("CurrentSamplingPercentage", capture.get("InitialSamplingPercentage", 100)),
        "destination": summary.get("DestinationS3Uri", capture.get("DestinationS3Uri")),
        "variants": [
            {"name": variant["VariantName"], "model_name": variant.get("ModelName")}
            for variant in (config or {}).get("ProductionVariants", [])
        ],
    }


def lineage_of(sagemaker: SageMakerResourcesHook, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Model, model package, training job and data set behind the endpoint, as far as they are known."""
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


# ---- traffic


def traffic_of(cloudwatch: Any, endpoint: Mapping[str, Any], since: datetime, until: datetime) -> Traffic:
    """Invocations, errors and latency of the endpoint in ``[since, until]``.

    An endpoint without metrics has no invocations; when CloudWatch cannot be asked, invocations are None.
    """
    since = max(since, until - _LARGEST_WINDOW)
    period = 60 if until - since <= timedelta(days=1) else 3600
    # CloudWatch aligns periods to the hour; the end is past the last minute, or that minute would be left out.
    start = since.replace(second=0, microsecond=0)
    end = until.replace(second=0, microsecond=0) + timedelta(minutes=1)
    whole = 60 * math.ceil((end - start).total_seconds() / 60)
    try:
        invocations = _series(cloudwatch, endpoint, "Invocations", "Sum", period, start, end)
        latency = _series(cloudwatch, endpoint, "ModelLatency", "Average", period, start, end)
        errors = sum(
            value
            for metric in ("Invocation4XXErrors", "Invocation5XXErrors")
            for _, value in _series(cloudwatch, endpoint, metric, "Sum", period, start, end)
        )
        means = _series(cloudwatch, endpoint, "ModelLatency", "Average", whole, start, end)
        tails = _series(cloudwatch, endpoint, "ModelLatency", "p95", whole, start, end)
    except (BotoCoreError, ClientError) as error:
        log.warning("CloudWatch could not be asked about %s: %s", endpoint["name"], error)
        return Traffic()
    return Traffic(
        invocations=invocations,
        latency=latency,
        latency_mean_ms=max(value for _, value in means) / 1000 if means else None,
        latency_p95_ms=max(value for _, value in tails) / 1000 if tails else None,
        errors=errors,
    )


def _series(
    cloudwatch: Any, endpoint: Mapping[str, Any], metric: str, stat: str, period: int, start: datetime, end: datetime
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
        for index, variant in enumerate(endpoint["variants"] or [{"name": "AllTraffic"}])
    ]
    values: dict[datetime, list[float]] = {}
    token: dict[str, str] = {}
    while True:
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=queries, StartTime=start, EndTime=end, ScanBy="TimestampAscending", **token
        )
        for result in answer["MetricDataResults"]:
            for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                values.setdefault(at.astimezone(UTC), []).append(value)
        if not answer.get("NextToken"):
            break
        token = {"NextToken": answer["NextToken"]}
    combine: Callable[[list[float]], float] = sum if stat == "Sum" else lambda found: sum(found) / len(found)
    return [(at, combine(values[at])) for at in sorted(values)]


def put_report_metrics(cloudwatch: Any, report: Mapping[str, Any]) -> int:
    """Publish a report's numbers to CloudWatch, drift under Model Monitor's names. Return how many."""
    dimensions = [{"Name": "Endpoint", "Value": report["endpoint_name"]}]
    numbers: dict[str, float | None] = {
        "captured_records": report["captured_records"],
        "violations": len(report["violations"]),
        "rejection_rate": report["rejection_rate"],
        "mean_confidence": report["confidence"]["mean"],
    }
    for result in report["drift"]:
        if result["decisive"]:
            numbers[f"feature_baseline_drift_{result['feature']}"] = result["value"]
    at = datetime.fromisoformat(report["created_at"])
    data = [
        {"MetricName": name, "Dimensions": dimensions, "Timestamp": at, "Value": float(value)}
        for name, value in numbers.items()
        if value is not None
    ]
    cloudwatch.put_metric_data(Namespace=METRIC_NAMESPACE, MetricData=data)
    return len(data)


# ---- shared documents


def update_json(
    store: ObjectStore, key: str, change: Callable[[dict[str, Any]], dict[str, Any]], tries: int = 20
) -> dict[str, Any]:
    """Change a JSON document so that no concurrent change is lost (conditional writes). Return the new document.

    Raises:
        ConflictError: others changed it at every try.
    """
    for attempt in range(tries):
        condition: dict[str, str]
        try:
            answer = store.client.get_object(Bucket=store.bucket, Key=key)
            document, condition = json.loads(answer["Body"].read()), {"IfMatch": answer["ETag"]}
        except ClientError as error:
            if code_of(error) not in ("NoSuchKey", "404"):
                raise
            document, condition = {}, {"IfNoneMatch": "*"}
        changed = change(document)
        body = json.dumps(changed, separators=(",", ":")).encode()
        try:
            store.client.put_object(
                Bucket=store.bucket, Key=key, Body=body, ContentType="application/json", **condition
            )
        except ClientError as error:
            if code_of(error) not in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                raise
            # Somebody else was quicker: read theirs and change it again.
            time.sleep(min(1.0, 0.02 * 2**attempt))
            continue
        return changed
    raise ConflictError(f"s3://{store.bucket}/{key} was changed by others {tries} times in a row")


def write_objects(store: ObjectStore, folder: str, documents: Sequence[tuple[str, bytes, str]]) -> None:
    """Write ``(name, content, content type)`` under a folder."""
    for name, content, content_type in documents:
        store.client.put_object(
            Bucket=store.bucket,
            Key=f"{folder}/{name}",
            Body=content,
            ContentType=content_type,
            CacheControl="private, no-cache",
        )
