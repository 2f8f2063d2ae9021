"""What an EventBridge rule for `aws.sagemaker` sees of an endpoint and of a transform job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.local_service import unique, wait_until


@pytest.fixture
def heard(aws: Callable[..., Any]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Every event of SageMaker so far, in the order they came."""
    sqs, bus, name = aws("sqs"), aws("events"), unique("events")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    target = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.sagemaker"]}))
    bus.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": target}])
    seen: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                seen.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return seen

    yield read
    bus.remove_targets(Rule=name, Ids=["1"])
    bus.delete_rule(Name=name)
    sqs.delete_queue(QueueUrl=queue)


def test_an_endpoints_life_is_told_in_events(serving, heard):
    blue, green = serving.config(serving.model(name="blue")), serving.config(serving.model(name="green"))
    name = serving.in_service(blue, Tags=[{"Key": "team", "Value": "vision"}])
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=green)
    serving.settled(name)
    serving.delete(name)

    def told(kind: str) -> list[dict[str, Any]]:
        return [
            event["detail"]
            for event in heard()
            if event["detail-type"] == kind and event["detail"]["EndpointName"] == name
        ]

    wait_until(lambda: len(told("SageMaker Endpoint State Change")) >= 5, "five events")
    changes = told("SageMaker Endpoint State Change")
    statuses = [change["EndpointStatus"] for change in changes]
    assert statuses == ["CREATING", "IN_SERVICE", "UPDATING", "IN_SERVICE", "DELETING"]
    assert [change["EndpointConfigName"] for change in changes] == [blue, blue, blue, green, green]
    assert changes[1]["Tags"] == {"team": "vision"}
    assert changes[1]["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert changes[1]["CreationTime"] > 1_600_000_000_000, "in milliseconds"
    pending = [stage["PendingDeploymentSummary"] for stage in told("SageMaker Endpoint Deployment State Change")]
    assert {summary["EndpointConfigName"] for summary in pending} == {green}
    stages = [summary["ProductionVariants"][0]["VariantStatus"][0]["Status"] for summary in pending]
    assert stages == ["Creating", "ActivatingTraffic", "Deleting"]


def test_a_new_version_that_cannot_start_is_told_with_its_reason(serving, heard):
    name = serving.in_service(serving.config(serving.model()))
    serving.sm.update_endpoint(EndpointName=name, EndpointConfigName=serving.config(serving.model(exit_at_start=3)))
    assert "FailureReason" in serving.settled(name)

    def changes() -> list[dict[str, Any]]:
        kind = "SageMaker Endpoint State Change"
        own = [event for event in heard() if event["detail-type"] == kind and event["detail"]["EndpointName"] == name]
        return [event["detail"] for event in own]

    wait_until(lambda: len(changes()) == 5, "five events")
    statuses = [change["EndpointStatus"] for change in changes()]
    assert statuses == ["CREATING", "IN_SERVICE", "UPDATING", "ROLLING_BACK", "IN_SERVICE"]
    assert changes()[3]["FailureReason"] == changes()[4]["FailureReason"]


def test_a_transform_job_is_told_from_start_to_end(serving, heard):
    model, name = serving.model(), unique("transform")
    serving.s3.put_object(Bucket=serving.bucket, Key=f"{name}/a.json", Body=b'{"a": 1}')
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{serving.bucket}/{name}/"}}
    serving.sm.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={"DataSource": source, "ContentType": "application/json"},
        TransformOutput={"S3OutputPath": f"s3://{serving.bucket}/{name}-out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )

    def statuses() -> list[str]:
        own = [event["detail"] for event in heard() if event["detail"].get("TransformJobName") == name]
        return [detail["TransformJobStatus"] for detail in own]

    wait_until(lambda: statuses()[-1:] == ["Completed"], "the job's end")
    assert statuses() == ["InProgress", "Completed"]
