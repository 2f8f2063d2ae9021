"""stepfunction.json with the real functions: every way an execution ends, as DescribeExecution tells it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.config import Config

from tests.contract.workflow.conftest import CONFIDENT, UNSURE, Runtime, Workflow

THROTTLED = (429, "ThrottlingException", {"message": "slow down"})
NOT_READY = (429, "ModelNotReadyException", {"message": "loading"})
FAILED = (500, "InternalFailure", {"message": "broken"})
MODEL_DOWN = (424, "ModelError", {"Message": "container gone", "OriginalStatusCode": 500})
MODEL_REFUSES = (424, "ModelError", {"Message": "no picture", "OriginalStatusCode": 415})
NO_ENDPOINT = (400, "ValidationError", {"message": "Endpoint scones-courier not found."})


def test_a_confident_prediction_succeeds_with_a_small_output(
    workflow: Workflow, runtime: Runtime, image: bytes
) -> None:
    key = "photos/with space + ünïcode.png"
    workflow.put(key, image)
    ended = workflow.classify(key, threshold=0.93, threshold_version=3, inference_id="run-1")
    assert ended.outcome == ("SUCCEEDED", None)
    assert ended.output == {
        "s3_bucket": workflow.bucket,
        "s3_key": key,
        "inferences": CONFIDENT,
        "invoked_production_variant": "AllTraffic",
        "confidence": 0.98,
        "predicted_class_index": 0,
        "threshold": 0.93,
        "threshold_version": 3,
        "inference_id": "run-1",
    }
    headers = runtime.headers[key]
    assert headers["Content-Type"] == "image/png"
    assert headers["X-Amzn-SageMaker-Inference-Id"] == "run-1"


def test_the_configured_threshold_counts_when_the_input_has_none(
    workflow: Workflow, runtime: Runtime, image: bytes
) -> None:
    workflow.put("photos/a.png", image)
    output = workflow.classify("photos/a.png").output
    assert (output["threshold"], output["threshold_version"]) == (0.93, 1)


def test_a_rejection_fails_under_its_exact_name_with_the_reason_and_without_a_retry(
    workflow: Workflow, runtime: Runtime, image: bytes
) -> None:
    workflow.put("photos/unsure.png", image)
    runtime.answers["photos/unsure.png"] = UNSURE
    ended = workflow.classify("photos/unsure.png", threshold=0.93, threshold_version=2)
    assert ended.outcome == ("FAILED", "THRESHOLD_CONFIDENCE_NOT_MET")
    assert ended.cause["errorType"] == "THRESHOLD_CONFIDENCE_NOT_MET"
    assert json.loads(ended.cause["errorMessage"]) == {
        "s3_key": "photos/unsure.png",
        "inferences": UNSURE,
        "threshold": 0.93,
        "threshold_version": 2,
    }
    assert ended.count("TaskScheduled") == 3, "one call of each function"
    assert runtime.requests["photos/unsure.png"] == 1


def test_an_image_of_the_endpoints_limit_is_classified_and_not_carried_through_the_workflow(
    workflow: Workflow, runtime: Runtime, image: bytes
) -> None:
    key = "photos/large + ü.png"
    workflow.put(key, image.ljust(6 * 1024 * 1024, b"\0"))
    ended = workflow.classify(key)
    assert ended.outcome == ("SUCCEEDED", None)
    assert ended.output["inferences"] == CONFIDENT
    assert not {"image_data", "image_etag"} & set(ended.output)
    assert runtime.headers[key]["Content-Length"] == str(6 * 1024 * 1024)
    assert len(json.dumps(ended.history, default=str)) < 64 * 1024


@pytest.fixture(scope="module")
def unusable(workflow: Workflow, image: bytes) -> None:
    """Objects that the workflow refuses, and a good one beside them."""
    for key, content in (
        ("text.png", b"hello"),
        ("empty.png", b""),
        ("huge.png", image.ljust(6 * 1024 * 1024 + 1, b"\0")),
        ("good.png", image),
    ):
        workflow.put(key, content)
    workflow.client("s3").put_object(Bucket=workflow.bucket, Key="archived.png", Body=image, StorageClass="GLACIER")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({}, "MissingKeyError"),
        ({"s3_bucket": "b"}, "MissingKeyError"),
        ({"s3_bucket": 5, "s3_key": "k"}, "MissingKeyError"),
        ([], "MalformedEventError"),
        ({"body": "no json"}, "MalformedEventError"),
        ({"s3_bucket": "BUCKET", "s3_key": "absent.png"}, "ImageNotFoundError"),
        ({"s3_bucket": "no-such-bucket-here", "s3_key": "k.png"}, "ImageNotFoundError"),
        ({"s3_bucket": "BUCKET", "s3_key": "text.png"}, "NotAnImageError"),
        ({"s3_bucket": "BUCKET", "s3_key": "empty.png"}, "NotAnImageError"),
        ({"s3_bucket": "BUCKET", "s3_key": "huge.png"}, "ImageTooLargeError"),
        ({"s3_bucket": "BUCKET", "s3_key": "archived.png"}, "ImageArchivedError"),
        ({"s3_bucket": "s3://photographs", "s3_key": "k.png"}, "InvalidLocationError"),
        ({"s3_bucket": "arn:aws:s3:::photographs", "s3_key": "k.png"}, "InvalidLocationError"),
        ({"s3_bucket": "BUCKET", "s3_key": "good.png", "threshold": "high"}, "InvalidThresholdError"),
        ({"s3_bucket": "BUCKET", "s3_key": "good.png", "inference_id": "x" * 65}, "InvalidInferenceIdError"),
    ],
)
def test_a_bad_event_fails_under_its_own_name_at_once(
    workflow: Workflow, runtime: Runtime, unusable: None, event: Any, error: str
) -> None:
    if isinstance(event, dict) and event.get("s3_bucket") == "BUCKET":
        event = event | {"s3_bucket": workflow.bucket}
    ended = workflow.run(event)
    assert ended.outcome == ("FAILED", error)
    assert ended.cause["errorType"] == error
    assert ended.cause["errorMessage"]
    assert ended.count("TaskFailed") == 1, "a permanent error is not retried"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (MODEL_REFUSES, "ModelRefusedImageError"),
        (NO_ENDPOINT, "EndpointNotFoundError"),
        ((200, "", "no json"), "MalformedInferencesError"),
        ((200, "", {"nothing": 1}), "MalformedInferencesError"),
        ((200, "", [0.5, 0.2]), "MalformedInferencesError"),
        ((200, "", [1.0]), "MalformedInferencesError"),
    ],
)
def test_an_answer_that_will_not_change_is_not_asked_for_again(
    workflow: Workflow, runtime: Runtime, image: bytes, answer: Any, error: str
) -> None:
    key = f"answers/{error}.png"
    workflow.put(key, image)
    runtime.faults[key] = [answer]
    ended = workflow.classify(key)
    assert ended.outcome == ("FAILED", error)
    assert runtime.requests[key] == 1
    assert ended.count("TaskFailed") == 1


@pytest.mark.parametrize(
    ("fault", "tries_within_the_function", "error"),
    [
        (THROTTLED, 2, "EndpointThrottledError"),
        (FAILED, 2, "EndpointUnavailableError"),
        (NOT_READY, 1, "EndpointNotReadyError"),
        (MODEL_DOWN, 1, "ModelUnavailableError"),
        ("hang", 2, "EndpointUnavailableError"),
    ],
)
def test_a_fault_that_passes_is_retried_until_it_has_passed(
    workflow: Workflow, runtime: Runtime, image: bytes, fault: Any, tries_within_the_function: int, error: str
) -> None:
    key = f"faults/{error}-{fault if isinstance(fault, str) else fault[0]}.png"
    workflow.put(key, image)
    runtime.faults[key] = [fault] * tries_within_the_function
    ended = workflow.classify(key)
    assert ended.outcome == ("SUCCEEDED", None)
    failures = [event["taskFailedEventDetails"] for event in ended.history if event["type"] == "TaskFailed"]
    assert [failure["error"] for failure in failures] == [error]
    assert runtime.requests[key] == tries_within_the_function + 1


@pytest.mark.parametrize("size", [0, 1024 * 1024])
def test_the_express_machine_answers_at_once(workflow: Workflow, runtime: Runtime, image: bytes, size: int) -> None:
    workflow.put("photos/express.png", image.ljust(size, b"\0"))
    states = workflow.client("stepfunctions", config=Config(inject_host_prefix=False))
    arn = workflow.outputs["ExpressStateMachineArn"]
    data = {"image_data": "", "s3_bucket": workflow.bucket, "s3_key": "photos/express.png"}
    passed = states.start_sync_execution(stateMachineArn=arn, input=json.dumps(data))
    assert passed["status"] == "SUCCEEDED"
    assert json.loads(passed["output"])["confidence"] == 0.98
    rejected = states.start_sync_execution(stateMachineArn=arn, input=json.dumps(data | {"threshold": 0.99}))
    assert (rejected["status"], rejected["error"]) == ("FAILED", "THRESHOLD_CONFIDENCE_NOT_MET")
    assert json.loads(rejected["cause"])["errorType"] == "THRESHOLD_CONFIDENCE_NOT_MET"
    described = states.describe_state_machine(stateMachineArn=arn)
    assert described["type"] == "EXPRESS"


def test_the_image_is_not_carried_past_the_classification(
    workflow: Workflow, runtime: Runtime, image: bytes, encoded: str
) -> None:
    workflow.put("photos/history.png", image)
    ended = workflow.classify("photos/history.png")
    entered = {
        event["stateEnteredEventDetails"]["name"]: event["stateEnteredEventDetails"]["input"]
        for event in ended.history
        if event["type"] == "TaskStateEntered"
    }
    assert encoded in entered["ClassifyImage"]
    assert encoded not in entered["FilterInferences"]


def test_a_failure_alerts_and_a_rejection_does_not(workflow: Workflow, runtime: Runtime, image: bytes) -> None:
    queues, topic = workflow.client("sqs"), workflow.outputs["AlertTopicArn"]
    queue = queues.create_queue(QueueName="alerts")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    workflow.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    workflow.put("photos/unsure.png", image)
    runtime.answers["photos/unsure.png"] = UNSURE
    assert workflow.classify("photos/unsure.png").outcome == ("FAILED", "THRESHOLD_CONFIDENCE_NOT_MET")
    failed = workflow.run({})
    stopped = workflow.start({"image_data": "", "s3_bucket": workflow.bucket, "s3_key": "photos/unsure.png"})
    workflow.client("stepfunctions").stop_execution(executionArn=stopped)

    texts: list[str] = []
    deadline = time.monotonic() + 30
    while len(texts) < 2:
        assert time.monotonic() < deadline, texts
        for message in queues.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
            texts.append(json.loads(message["Body"])["Message"])
            queues.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert f"FAILED: execution {failed.description['executionArn']} ended with error MissingKeyError" in texts[0]
    assert texts[1].strip('"').startswith(f"ABORTED: execution {stopped}")
    assert "Messages" not in queues.receive_message(QueueUrl=queue)
