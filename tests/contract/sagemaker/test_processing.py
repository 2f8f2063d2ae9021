"""Processing jobs through boto3."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.local_service import TOY_IMAGE, refusal, wait_job


@pytest.fixture
def processing_request(bucket: str, role: str, unique: str) -> Callable[..., dict[str, Any]]:
    def request(*arguments: str, mode: str = "EndOfJob") -> dict[str, Any]:
        source = {
            "S3Uri": f"s3://{bucket}/data/train/",
            "LocalPath": "/opt/ml/processing/input",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        }
        output = {
            "S3Uri": f"s3://{bucket}/processed/{unique}",
            "LocalPath": "/opt/ml/processing/output",
            "S3UploadMode": mode,
        }
        app: dict[str, Any] = {"ImageUri": TOY_IMAGE}
        if arguments:
            app["ContainerArguments"] = list(arguments)
        return {
            "ProcessingJobName": unique,
            "RoleArn": role,
            "AppSpecification": app,
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
            },
            "ProcessingInputs": [{"InputName": "in", "S3Input": source}],
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": output}]},
            "Environment": {"EXTRA": "given"},
        }

    return request


@pytest.mark.parametrize("mode", ["EndOfJob", "Continuous"])
def test_inputs_go_in_and_outputs_come_out(sm, aws, bucket, processing_request, unique, mode):
    sm.create_processing_job(**processing_request("--path", "/opt/ml/processing/input", mode=mode))
    job = wait_job("Processing", sm, unique)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    read = lambda key: aws("s3").get_object(Bucket=bucket, Key=f"processed/{unique}/{key}")["Body"].read()  # noqa: E731
    assert read("all.txt") == b"a\nb\nc\n"
    option, path = json.loads(read("nested/arguments.json"))
    assert option == "--path"
    assert path.endswith("/ml/processing/input")  # /opt/ml in an argument is where it is on this machine
    assert job["CreationTime"] <= job["ProcessingStartTime"] <= job["ProcessingEndTime"]


def test_a_failing_command_gives_its_message_and_exit_code(sm, processing_request, unique):
    sm.create_processing_job(**processing_request("--fail"))
    job = wait_job("Processing", sm, unique)
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["ExitMessage"] == "the data is wrong"
    assert job["FailureReason"] == "AlgorithmError: , exit code: 4"


def test_a_running_job_can_be_stopped_and_has_a_time_limit(sm, processing_request, unique):
    request = processing_request("--sleep")
    sm.create_processing_job(**request)
    sm.stop_processing_job(ProcessingJobName=unique)
    assert wait_job("Processing", sm, unique)["ProcessingJobStatus"] == "Stopped"
    name = f"{unique}-2"
    limited = {**request, "ProcessingJobName": name, "StoppingCondition": {"MaxRuntimeInSeconds": 1}}
    sm.create_processing_job(**limited)
    job = wait_job("Processing", sm, name)
    assert (job["ProcessingJobStatus"], job["FailureReason"][:18]) == ("Stopped", "MaxRuntimeExceeded")


def test_refusals(sm, processing_request, unique):
    request = processing_request()
    request["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/etc"
    assert "below /opt/ml" in refusal(sm.create_processing_job, **request)[1]
    request = processing_request()
    request["ProcessingInputs"][0]["S3Input"]["S3InputMode"] = "Pipe"
    assert "Pipe; use File" in refusal(sm.create_processing_job, **request)[1]
    sm.create_processing_job(**processing_request())
    assert refusal(sm.create_processing_job, **processing_request())[0] == "ResourceInUse"
    assert wait_job("Processing", sm, unique)["ProcessingJobStatus"] == "Completed"
