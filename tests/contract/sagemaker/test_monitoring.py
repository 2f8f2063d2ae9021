"""Monitoring schedules through boto3: real analyses of captured predictions."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sagemaker_local.monitoring import analyzer
from scones.images.statistics import image_statistics
from tests.support.local_service import refusal, wait_until

ANALYZER = "registry.example/sagemaker-model-monitor-analyzer"


def captured(probabilities: Any, grey: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(buffer, "PNG")
    record = {
        "captureData": {
            "endpointInput": {
                "observedContentType": "image/png",
                "mode": "INPUT",
                "data": base64.b64encode(buffer.getvalue()).decode(),
                "encoding": "BASE64",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": json.dumps(probabilities),
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": str(uuid.uuid4()), "inferenceTime": "2026-01-01T00:00:00Z"},
        "eventVersion": "0",
    }
    return json.dumps(record)


@pytest.fixture
def schedule_request(aws: Callable[..., Any], bucket: str, role: str, unique: str) -> Callable[..., dict[str, Any]]:
    """A schedule over captures that are in S3 for this hour, against a baseline of bright, even predictions."""
    s3 = aws("s3")
    features = [{"name": "predicted_class", "inferred_type": "String", "completeness": 1.0,
                 "string_constraints": {"domains": ["0", "1"]}},
                {"name": "brightness", "inferred_type": "Fractional", "completeness": 1.0}]  # fmt: skip
    buckets = [{"lower_bound": 0.0, "upper_bound": 128.0, "count": 0}]
    buckets += [{"lower_bound": 128.0, "upper_bound": 255.0, "count": 100}]
    numeric = {"distribution": {"kll": {"buckets": buckets}}}
    statistics = {"features": [{"name": "brightness", "numerical_statistics": numeric}]}
    for name, document in (("constraints", {"features": features}), ("statistics", statistics)):
        s3.put_object(Bucket=bucket, Key=f"baseline/{unique}/{name}.json", Body=json.dumps(document).encode())

    def request(name: str, lines: list[str], expression: str = "NOW") -> dict[str, Any]:
        hour = datetime.now(UTC).strftime("%Y/%m/%d/%H")
        if lines:
            key = f"capture/{name}/AllTraffic/{hour}/00-00-000-{uuid.uuid4()}.jsonl"
            s3.put_object(Bucket=bucket, Key=key, Body="\n".join(lines).encode())
        source = {
            "DataCapturedDestinationS3Uri": f"s3://{bucket}/capture/{name}",
            "DatasetFormat": {"Json": {"Line": True}},
            "LocalPath": "/opt/ml/processing/input/endpoint",
        }
        output = {"S3Uri": f"s3://{bucket}/monitoring/{name}", "LocalPath": "/opt/ml/processing/resultdata"}
        schedule = {"ScheduleExpression": expression}
        if expression == "NOW":
            schedule |= {"DataAnalysisStartTime": "-PT1H", "DataAnalysisEndTime": "PT1H"}
        return {
            "MonitoringScheduleName": name,
            "MonitoringScheduleConfig": {
                "ScheduleConfig": schedule,
                "MonitoringType": "DataQuality",
                "MonitoringJobDefinition": {
                    "BaselineConfig": {
                        "ConstraintsResource": {"S3Uri": f"s3://{bucket}/baseline/{unique}/constraints.json"},
                        "StatisticsResource": {"S3Uri": f"s3://{bucket}/baseline/{unique}/statistics.json"},
                    },
                    "MonitoringInputs": [{"BatchTransformInput": source}],
                    "MonitoringOutputConfig": {"MonitoringOutputs": [{"S3Output": output}]},
                    "MonitoringResources": {
                        "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
                    },
                    "MonitoringAppSpecification": {"ImageUri": ANALYZER},
                    "RoleArn": role,
                },
            },
        }

    return request


def wait_execution(sm: Any, name: str) -> dict[str, Any]:
    def done() -> dict[str, Any] | None:
        found = sm.list_monitoring_executions(MonitoringScheduleName=name)["MonitoringExecutionSummaries"]
        return found[0] if found and found[0]["MonitoringExecutionStatus"] not in ("Pending", "InProgress") else None

    return wait_until(done, f"an execution of {name} ends", 90)


def test_predictions_like_the_baseline_complete_without_violations(sm, aws, bucket, schedule_request, unique):
    sm.create_monitoring_schedule(**schedule_request(unique, [captured([0.9, 0.1], 200), captured([0.2, 0.8], 210)]))
    execution = wait_execution(sm, unique)
    assert execution["MonitoringExecutionStatus"] == "Completed", execution
    job = sm.describe_processing_job(ProcessingJobName=execution["ProcessingJobArn"].rpartition("/")[2])
    assert job["ExitMessage"] == "Completed: Job completed successfully with no violations."
    stored = aws("s3").get_object(Bucket=bucket, Key=f"monitoring/{unique}/statistics.json")["Body"].read()
    assert json.loads(stored)["dataset"] == {"item_count": 2}
    found = sm.describe_monitoring_schedule(MonitoringScheduleName=unique)
    assert found["LastMonitoringExecutionSummary"]["MonitoringExecutionStatus"] == "Completed"


def test_dark_images_and_a_new_class_are_violations(sm, aws, bucket, schedule_request, unique):
    lines = [captured([0.1, 0.2, 0.7], 5), captured("no list", 6)]
    sm.create_monitoring_schedule(**schedule_request(unique, lines))
    assert wait_execution(sm, unique)["MonitoringExecutionStatus"] == "CompletedWithViolations"
    stored = aws("s3").get_object(Bucket=bucket, Key=f"monitoring/{unique}/constraint_violations.json")["Body"].read()
    broken = {(v["feature_name"], v["constraint_check_type"]) for v in json.loads(stored)["violations"]}
    assert broken == {
        ("predicted_class", "completeness_check"),
        ("predicted_class", "categorical_values_check"),
        ("brightness", "baseline_drift_check"),
    }


def test_what_is_not_computed_is_named_and_the_rest_is_as_the_products_own_statistics():
    noise = np.random.default_rng(1).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    image = {"data": base64.b64encode(buffer.getvalue()).decode(), "encoding": "BASE64"}
    row = analyzer.features({"endpointInput": image})
    expected = image_statistics(noise[None])
    assert row.pop("size") == "12x9"
    assert row == pytest.approx({name: float(values[0]) for name, values in expected.items()}, rel=1e-4)
    constraints = {"features": [{"name": "sharpness"}, {"name": "weather"}]}
    assert analyzer.not_checked(constraints) == ["weather"]


def test_a_constraint_on_an_unknown_feature_is_reported_as_not_checked(sm, aws, bucket, schedule_request, unique):
    request = schedule_request(unique, [captured([0.9, 0.1], 200)])
    key = f"baseline/{unique}/constraints.json"
    features = [{"name": "weather", "completeness": 1.0}, {"name": "noise", "completeness": 1.0}]
    aws("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps({"features": features}).encode())
    sm.create_monitoring_schedule(**request)
    execution = wait_execution(sm, unique)
    assert execution["MonitoringExecutionStatus"] == "Completed"
    job = sm.describe_processing_job(ProcessingJobName=execution["ProcessingJobArn"].rpartition("/")[2])
    assert "were not checked: weather" in job["ExitMessage"]
    stored = aws("s3").get_object(Bucket=bucket, Key=f"monitoring/{unique}/constraint_violations.json")["Body"].read()
    assert json.loads(stored) == {"version": 0.0, "violations": [], "not_checked": ["weather"]}


def test_a_window_without_data_fails_as_on_aws(sm, schedule_request, unique):
    sm.create_monitoring_schedule(**schedule_request(unique, []))
    execution = wait_execution(sm, unique)
    assert (execution["MonitoringExecutionStatus"], execution["FailureReason"]) == ("Failed", "Job inputs had no data")


def test_schedules_are_described_stopped_started_listed_and_deleted(sm, schedule_request, unique):
    request = schedule_request(unique, [], expression="cron(0 * ? * * *)")
    arn = sm.create_monitoring_schedule(**request)["MonitoringScheduleArn"]
    assert refusal(sm.create_monitoring_schedule, **request)[0] == "ResourceInUse"
    found = sm.describe_monitoring_schedule(MonitoringScheduleName=unique)
    assert (found["MonitoringScheduleArn"], found["MonitoringScheduleStatus"]) == (arn, "Scheduled")
    assert found["MonitoringScheduleConfig"] == request["MonitoringScheduleConfig"]
    sm.stop_monitoring_schedule(MonitoringScheduleName=unique)
    listed = sm.list_monitoring_schedules(NameContains=unique, StatusEquals="Stopped")["MonitoringScheduleSummaries"]
    assert [item["MonitoringScheduleName"] for item in listed] == [unique]
    sm.start_monitoring_schedule(MonitoringScheduleName=unique)
    sm.update_monitoring_schedule(**schedule_request(unique, [], expression="cron(0 3 ? * * *)"))
    sm.delete_monitoring_schedule(MonitoringScheduleName=unique)
    assert refusal(sm.describe_monitoring_schedule, MonitoringScheduleName=unique)[0] == "ResourceNotFound"


def test_a_wrong_expression_names_the_forms_there_are(sm, schedule_request, unique):
    request = schedule_request(unique, [], expression="cron(0 3/2 ? * * MON)")
    code, message = refusal(sm.create_monitoring_schedule, **request)
    assert code == "ValidationException"
    assert "cron" in message
