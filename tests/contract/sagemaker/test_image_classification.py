"""The real image-classification through the service: trained, scored by a transform job, served by an endpoint."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests.support.local_service import TRAINING, channel, put_channels, wait_job, wait_training, wait_until

IMAGE = "registry.example/image-classification:1"


@pytest.mark.slow
def test_it_trains_to_completed_and_transform_and_endpoint_agree(
    sm: Any, service: Any, aws: Callable[..., Any], bucket: str, role: str, unique: str
) -> None:
    import boto3

    s3 = aws("s3")
    labels = put_channels(s3, bucket, unique)
    channels = {"train": "train/", "validation": "test/", "train_lst": "train.lst", "validation_lst": "test.lst"}
    sm.create_training_job(
        TrainingJobName=unique,
        RoleArn=role,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={
            "num_classes": "2",
            "num_training_samples": str(TRAINING),
            "image_shape": "3,32,32",
            "use_pretrained_model": "1",
        },
        InputDataConfig=[
            {**channel(name, f"s3://{bucket}/{unique}/{place}"), "ContentType": "application/x-image"}
            for name, place in channels.items()
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/{unique}/models"},
        ResourceConfig={"InstanceType": "ml.p3.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    job = wait_training(sm, unique, timeout_s=300)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert set(metrics) == {"train:accuracy", "validation:accuracy"}
    assert metrics["validation:accuracy"] >= 0.7

    container = {"Image": IMAGE, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]}
    sm.create_model(ModelName=unique, ExecutionRoleArn=role, PrimaryContainer=container)
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{unique}/test/"}}
    sm.create_transform_job(
        TransformJobName=unique,
        ModelName=unique,
        TransformInput={"DataSource": source, "ContentType": "image/png"},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/{unique}/scored", "Accept": "application/jsonlines"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    assert wait_job("Transform", sm, unique)["TransformJobStatus"] == "Completed"

    def body(key: str) -> bytes:
        content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    scored = {key: json.loads(body(f"{unique}/scored/{key.rpartition('/')[2]}.out"))["prediction"] for key in labels}
    right = sum(int(np.argmax(scored[key])) == label for key, label in labels.items())
    assert right / len(labels) == pytest.approx(metrics["validation:accuracy"])

    variant = {"VariantName": "AllTraffic", "ModelName": unique, "InstanceType": "ml.m5.large"}
    sm.create_endpoint_config(EndpointConfigName=unique, ProductionVariants=[{**variant, "InitialInstanceCount": 1}])
    sm.create_endpoint(EndpointName=unique, EndpointConfigName=unique)
    try:
        sm.get_waiter("endpoint_in_service").wait(EndpointName=unique, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        runtime = boto3.client("sagemaker-runtime", endpoint_url=service.url, region_name="us-east-1")
        for key, expected in scored.items():
            answer = runtime.invoke_endpoint(EndpointName=unique, Body=body(key), ContentType="image/png")
            assert answer["ContentType"] == "application/json"
            assert json.loads(answer["Body"].read()) == pytest.approx(expected)
        with pytest.raises(ClientError) as caught:
            runtime.invoke_endpoint(EndpointName=unique, Body=b"no image", ContentType="image/png")
        assert caught.value.response["Error"]["Code"] == "ModelError"
        assert caught.value.response["OriginalStatusCode"] == 400
    finally:
        sm.delete_endpoint(EndpointName=unique)

    def gone() -> bool:
        with contextlib.suppress(ClientError):
            sm.describe_endpoint(EndpointName=unique)
            return False
        return True

    wait_until(gone, "the endpoint is gone", 60)
