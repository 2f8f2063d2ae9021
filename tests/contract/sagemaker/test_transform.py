"""Batch transform through boto3: a real model server, every object of a prefix."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.local_service import TOY_IMAGE, refusal, wait_job, wait_training


@pytest.fixture(scope="module")
def model(sm: Any, role: str, named_job_request: Callable[..., dict[str, Any]]) -> str:
    """A model with a trained artifact; its server upper-cases what it is sent."""
    name = f"transform-{uuid.uuid4().hex[:8]}"
    sm.create_training_job(**named_job_request(name, epochs=1))
    artifact = wait_training(sm, name)["ModelArtifacts"]["S3ModelArtifacts"]
    container = {"Image": TOY_IMAGE, "ModelDataUrl": artifact}
    sm.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    return name


@pytest.fixture
def objects(aws: Callable[..., Any], bucket: str, unique: str) -> Callable[..., str]:
    def put(**contents: bytes) -> str:
        for name, body in contents.items():
            key = name.replace("__", "/").replace("_dot_", ".")
            aws("s3").put_object(Bucket=bucket, Key=f"transform/{unique}/{key}", Body=body)
        return f"s3://{bucket}/transform/{unique}/"

    return put


def transform_request(name: str, model: str, uri: str, bucket: str, **changes: Any) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}
    return {
        "TransformJobName": name,
        "ModelName": model,
        "TransformInput": {"DataSource": source, "ContentType": "text/plain", **changes.pop("TransformInput", {})},
        "TransformOutput": {"S3OutputPath": f"s3://{bucket}/out/{name}", **changes.pop("TransformOutput", {})},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **changes,
    }


def outputs(aws: Callable[..., Any], bucket: str, name: str) -> dict[str, bytes]:
    s3 = aws("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix=f"out/{name}/").get("Contents", [])
    keys = [item["Key"] for item in found]
    return {key.removeprefix(f"out/{name}/"): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def test_every_object_is_answered_beside_its_key(sm, aws, bucket, model, objects, unique):
    uri = objects(a_dot_png=b"one", deep__b_dot_png=b"two")
    sm.create_transform_job(**transform_request(unique, model, uri, bucket, MaxConcurrentTransforms=2))
    job = wait_job("Transform", sm, unique)
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert outputs(aws, bucket, unique) == {"a.png.out": b"ONE", "deep/b.png.out": b"TWO"}
    assert job["CreationTime"] <= job["TransformStartTime"] <= job["TransformEndTime"]
    assert job["DataProcessing"] == {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    streams = aws("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix=f"{unique}/"
    )["logStreams"]
    events = aws("logs").get_log_events(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamName=streams[0]["logStreamName"]
    )["events"]
    assert any("serving ['model.json']" in event["message"] for event in events)


@pytest.mark.parametrize(
    ("strategy", "assemble", "expected"),
    [
        ("SingleRecord", "Line", b"A\nB\nC\n"),
        ("SingleRecord", "None", b"ABC"),
        ("MultiRecord", "Line", b"A\nB\nC\n"),
    ],
)
def test_lines_are_split_and_put_together_again(sm, aws, bucket, model, objects, unique, strategy, assemble, expected):
    uri = objects(lines=b"a\nb\n\nc\n")
    request = transform_request(
        unique,
        model,
        uri,
        bucket,
        BatchStrategy=strategy,
        TransformInput={"SplitType": "Line"},
        TransformOutput={"AssembleWith": assemble},
    )
    sm.create_transform_job(**request)
    assert wait_job("Transform", sm, unique)["TransformJobStatus"] == "Completed"
    assert outputs(aws, bucket, unique) == {"lines.out": expected}


def test_content_type_accept_and_environment_reach_the_model(sm, aws, bucket, model, objects, unique):
    uri = objects(x=b"x")
    request = transform_request(unique, model, uri, bucket, Environment={"TOY_SERVE": "echo-headers"})
    request["TransformInput"]["ContentType"] = "image/png"
    request["TransformOutput"]["Accept"] = "application/jsonlines"
    sm.create_transform_job(**request)
    wait_job("Transform", sm, unique)
    assert outputs(aws, bucket, unique) == {"x.out": b"image/png|application/jsonlines"}


def test_a_refused_object_fails_the_job_with_the_status_and_the_object(sm, bucket, model, objects, unique):
    uri = objects(fine=b"x", bad=b"please refuse this")
    sm.create_transform_job(**transform_request(unique, model, uri, bucket))
    job = wait_job("Transform", sm, unique)
    assert job["TransformJobStatus"] == "Failed"
    assert "Bad HTTP status received from algorithm: 400 (refused)" in job["FailureReason"]
    assert f"transform/{unique}/bad" in job["FailureReason"]


def test_a_model_server_that_exits_fails_the_job(sm, bucket, model, objects, unique):
    request = transform_request(unique, model, objects(x=b"x"), bucket, Environment={"TOY_SERVE": "exit"})
    sm.create_transform_job(**request)
    assert "ended with exit code 3" in wait_job("Transform", sm, unique)["FailureReason"]


def test_an_empty_prefix_fails_the_job_with_what_to_check(sm, bucket, model, unique):
    sm.create_transform_job(**transform_request(unique, model, f"s3://{bucket}/nothing/here/", bucket))
    assert "No S3 objects found under S3 URL" in wait_job("Transform", sm, unique)["FailureReason"]


def test_a_job_can_be_stopped_while_its_model_server_starts(sm, bucket, model, objects, unique):
    request = transform_request(unique, model, objects(x=b"x"), bucket, Environment={"TOY_SERVE": "unhealthy"})
    sm.create_transform_job(**request)
    sm.stop_transform_job(TransformJobName=unique)
    assert wait_job("Transform", sm, unique)["TransformJobStatus"] == "Stopped"
    assert "in status Stopped" in refusal(sm.stop_transform_job, TransformJobName=unique)[1]


def test_refusals(sm, bucket, model, unique):
    request = transform_request(unique, model, f"s3://{bucket}/x/", bucket)
    split = {**request["TransformInput"], "SplitType": "RecordIO"}
    assert "use None or Line" in refusal(sm.create_transform_job, **{**request, "TransformInput": split})[1]
    joined = {**request, "DataProcessing": {"JoinSource": "Input"}}
    assert "JoinSource" in refusal(sm.create_transform_job, **joined)[1]
    unknown = {**request, "ModelName": "nobody"}
    assert 'Could not find model "arn:' in refusal(sm.create_transform_job, **unknown)[1]
    code, message = refusal(sm.describe_transform_job, TransformJobName=unique)
    assert (code, message) == ("ValidationException", f"Could not find requested job with name: {unique}")
