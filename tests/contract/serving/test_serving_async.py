"""InvokeEndpointAsync through boto3: from S3 to S3, failures, notifications, and a kill between."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError


def read(serving, location: str) -> bytes | None:
    """The object at an s3:// location, None while it is not there."""
    bucket, _, key = location.removeprefix("s3://").partition("/")
    try:
        return serving.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except serving.s3.exceptions.NoSuchKey:
        return None


def asynchronous(serving, **output) -> dict:
    prefix = f"s3://{serving.bucket}/async"
    return {"OutputConfig": {"S3OutputPath": f"{prefix}/out/", "S3FailurePath": f"{prefix}/failed/", **output}}


def put(serving, name: str, request: dict) -> str:
    serving.s3.put_object(Bucket=serving.bucket, Key=f"async/in/{name}", Body=json.dumps(request).encode())
    return f"s3://{serving.bucket}/async/in/{name}"


@pytest.fixture
def topic(aws):
    """An SNS topic and a function that gives the messages it has sent."""
    sns, sqs = aws("sns"), aws("sqs")
    queue = sqs.create_queue(QueueName="async-results")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic_arn = sns.create_topic(Name="async-results")["TopicArn"]
    sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=queue_arn)

    def messages():
        found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", ())
        return [json.loads(json.loads(message["Body"])["Message"]) for message in found]

    return topic_arn, messages


def test_results_failures_and_notifications(serving, until, topic):
    topic_arn, messages = topic
    notify = {"SuccessTopic": topic_arn, "ErrorTopic": topic_arn}
    config = serving.config(
        serving.model(name="later"), AsyncInferenceConfig=asynchronous(serving, NotificationConfig=notify)
    )
    name = serving.in_service(config)
    assert serving.describe(name)["AsyncInferenceConfig"]["OutputConfig"]["NotificationConfig"] == notify
    answer = serving.runtime.invoke_endpoint_async(
        EndpointName=name,
        InputLocation=put(serving, "good", {"a": 1}),
        ContentType="application/json",
        InferenceId="run-7",
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "run-7"
    assert answer["OutputLocation"].startswith(f"s3://{serving.bucket}/async/out/")
    result = until(lambda: read(serving, answer["OutputLocation"]), "the result is in S3")
    assert (json.loads(result)["model"], json.loads(result)["echo"]) == ("later", {"a": 1})
    [message] = until(messages, "the result is announced")
    assert (message["invocationStatus"], message["inferenceId"]) == ("Completed", "run-7")
    assert message["responseParameters"]["outputLocation"] == answer["OutputLocation"]
    for location, said in (
        (put(serving, "bad", {"do": "status", "status": 500, "message": "not my day"}), "not my day"),
        (f"s3://{serving.bucket}/async/in/absent", "absent"),
    ):
        answer = serving.runtime.invoke_endpoint_async(
            EndpointName=name, InputLocation=location, ContentType="application/json"
        )
        failure = until(lambda answer=answer: read(serving, answer["FailureLocation"]), "the failure is in S3")
        assert said in failure.decode()
        [message] = until(messages, "the failure is announced")
        assert message["invocationStatus"] == "Failed"
        assert said in message["failureReason"]
    with pytest.raises(ClientError, match="use InvokeEndpointAsync"):
        serving.invoke(name)
    with pytest.raises(ClientError, match="Exactly one of InputLocation and Body"):
        serving.runtime.invoke_endpoint_async(EndpointName=name)


def test_a_killed_service_goes_on_with_its_queue(own_serving, until):
    serving = own_serving
    config = {**asynchronous(serving), "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}
    name = serving.in_service(serving.config(serving.model(), AsyncInferenceConfig=config))
    answers = [
        serving.runtime.invoke_endpoint_async(
            EndpointName=name,
            InputLocation=put(serving, f"queued-{number}", {"do": "slow", "seconds": 0.3, "number": number}),
            ContentType="application/json",
        )
        for number in range(6)
    ]
    serving.service.kill()
    serving.service.start()
    for number, answer in enumerate(answers):
        result = until(lambda answer=answer: read(serving, answer["OutputLocation"]), f"result {number} is in S3")
        assert json.loads(result)["echo"]["number"] == number
