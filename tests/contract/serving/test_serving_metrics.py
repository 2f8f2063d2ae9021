"""Endpoint metrics in CloudWatch, and that invocations don't need it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from embedded.settings import free_port


def test_metrics_have_the_names_and_dimensions_of_sagemaker(serving, aws, until):
    name = serving.in_service(serving.config(serving.model()))
    for _ in range(8):
        serving.invoke(name)
    for status in (400, 500):
        with pytest.raises(ClientError):
            serving.invoke(name, {"do": "status", "status": status, "message": "no"})

    def statistics(metric: str, kind: str) -> float:
        points = aws("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "AllTraffic"}],
            StartTime=datetime.now(UTC) - timedelta(minutes=10),
            EndTime=datetime.now(UTC) + timedelta(minutes=1),
            Period=3600,
            Statistics=[kind],
        )["Datapoints"]
        return sum(point[kind] for point in points)

    until(lambda: statistics("Invocations", "Sum") == 10, "all invocations are counted", 20)
    assert statistics("Invocation4XXErrors", "Sum") == 1
    assert statistics("Invocation5XXErrors", "Sum") == 1
    assert statistics("InvocationModelErrors", "Sum") == 2
    assert statistics("ModelLatency", "SampleCount") == 10
    assert 100 < statistics("ModelLatency", "Maximum") < 5_000_000  # microseconds
    assert 10 < statistics("OverheadLatency", "Maximum") < 5_000_000


def test_an_absent_cloudwatch_is_nobodys_error(new_serving):
    nobody = f"http://127.0.0.1:{free_port()}"
    serving = new_serving({"AWS_ENDPOINT_URL_CLOUDWATCH": nobody, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": nobody})
    name = serving.in_service(serving.config(serving.model()))
    for _ in range(5):
        assert serving.invoke(name, {"a": 1})["echo"] == {"a": 1}
    serving.delete(name)
