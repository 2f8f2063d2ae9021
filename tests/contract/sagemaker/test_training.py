"""Training jobs through boto3: they really run, and say what SageMaker says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.local_service import TOY_IMAGE, channel, read_model, refusal, wait_training, wait_until


def test_a_job_trains_and_everything_about_it_is_reported(sm, aws, bucket, job_request, unique):
    request = job_request(epochs=2)
    request["InputDataConfig"].append({**channel("train_lst", f"s3://{bucket}/data/train.lst"), "ContentType": "x/y"})
    request["Environment"] = {"EXTRA": "given"}
    arn = sm.create_training_job(**request)["TrainingJobArn"]
    assert arn.endswith(f":training-job/{unique}")
    job = wait_training(sm, unique)
    assert job["TrainingJobStatus"] == "Completed", job
    statuses = [t["Status"] for t in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    for earlier, later in zip(job["SecondaryStatusTransitions"], job["SecondaryStatusTransitions"][1:], strict=False):
        assert earlier["EndTime"] == later["StartTime"]
    assert job["SecondaryStatus"] == "Completed"
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"] <= job["LastModifiedTime"]
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1
    assert {m["MetricName"]: m["Value"] for m in job["FinalMetricDataList"]} == {"toy:accuracy": pytest.approx(0.5)}
    assert job["HyperParameters"] == {"epochs": "2"}
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{bucket}/training/{unique}/output/model.tar.gz"
    model = read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])
    assert model["files"] == ["train/a.txt", "train/deep/b.txt", "train_lst/train.lst"]
    assert model["channels"]["train_lst"] == {
        "ContentType": "x/y",
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    assert model["resources"]["current_host"] == "algo-1"
    assert (model["job"], model["region"], model["extra"]) == (unique, "us-east-1", "given")
    output = job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar.gz", "output.tar.gz")
    with pytest.raises(json.JSONDecodeError):  # it is there, and it is the CSV file the container wrote
        read_model(aws, output, "curve.csv")


def test_logs_are_in_cloudwatch_while_the_job_runs(sm, aws, job_request, unique):
    sm.create_training_job(**job_request(epochs=50, seconds=0.2))
    logs = aws("logs")
    group = "/aws/sagemaker/TrainingJobs"

    def lines() -> list[str]:
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{unique}/")["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        names = [s["logStreamName"] for s in streams]
        assert all(name.startswith(f"{unique}/algo-1-") for name in names)
        events = [logs.get_log_events(logGroupName=group, logStreamName=name)["events"] for name in names]
        return [event["message"] for stream in events for event in stream]

    wait_until(lambda: any("Epoch[1]" in line for line in lines()), "the first lines arrive", 30)
    assert sm.describe_training_job(TrainingJobName=unique)["SecondaryStatus"] == "Training"
    sm.stop_training_job(TrainingJobName=unique)
    wait_training(sm, unique)


def test_the_last_line_is_logged_before_the_job_is_completed(sm, aws, job_request, unique):
    sm.create_training_job(**job_request(epochs=1))
    wait_training(sm, unique)
    group = "/aws/sagemaker/TrainingJobs"
    stream = aws("logs").describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{unique}/")["logStreams"][0]
    events = aws("logs").get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert [e["message"] for e in events] == [
        "Epoch[0] Train-accuracy=0.500000",
        "Epoch[0] Validation-accuracy=0.400000",
        "the last line has no newline",
    ]


@pytest.mark.parametrize(
    ("hyperparameters", "reason"),
    [
        ({"failure": "no images found", "exit_code": 1}, "AlgorithmError: no images found, exit code: 1"),
        ({"exit_code": 7}, "AlgorithmError: , exit code: 7"),
        (
            {"signal": 9},
            "AlgorithmError: the container was ended by SIGKILL, as the kernel does when memory runs out, "
            "exit code: 137",
        ),
    ],
)
def test_a_failing_container_fails_the_job_with_its_own_words(sm, job_request, unique, hyperparameters, reason):
    sm.create_training_job(**job_request(epochs=1, **hyperparameters))
    job = wait_training(sm, unique)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"] == reason
    assert job["SecondaryStatusTransitions"][-1]["StatusMessage"] == reason
    assert job["BillableTimeInSeconds"] >= 1


def test_stopping_keeps_the_model_that_was_saved_on_sigterm(sm, aws, job_request, unique):
    sm.create_training_job(**job_request(epochs=100, seconds=0.2, save_on_sigterm=1))
    wait_until(
        lambda: sm.describe_training_job(TrainingJobName=unique).get("FinalMetricDataList"), "the container trains"
    )
    sm.stop_training_job(TrainingJobName=unique)
    sm.stop_training_job(TrainingJobName=unique)  # asking again while it stops is no error
    job = wait_training(sm, unique)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "Stopping" in [t["Status"] for t in job["SecondaryStatusTransitions"]]
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["stopped"] is True
    code, message = refusal(sm.stop_training_job, TrainingJobName=unique)
    assert code == "ValidationException"
    assert message == "The request was rejected because the training job is in status Stopped."


def test_a_container_that_ignores_sigterm_is_killed_after_the_grace(sm, job_request, unique):
    sm.create_training_job(**job_request(epochs=100, seconds=0.2, ignore_sigterm=1))
    wait_until(
        lambda: sm.describe_training_job(TrainingJobName=unique).get("FinalMetricDataList"), "the container trains"
    )
    sm.stop_training_job(TrainingJobName=unique)
    assert wait_training(sm, unique)["TrainingJobStatus"] == "Stopped"


def test_max_runtime_stops_the_job(sm, aws, job_request, unique):
    request = job_request(epochs=100, seconds=0.2, save_on_sigterm=1)
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 1}
    sm.create_training_job(**request)
    job = wait_training(sm, unique)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["stopped"] is True


def test_checkpoints_are_synced_and_taken_up_by_the_next_job(sm, aws, bucket, job_request, unique):
    config = {"S3Uri": f"s3://{bucket}/checkpoints/{unique}"}
    sm.create_training_job(**job_request(name=f"{unique}-1", epochs=3, checkpoint=1), CheckpointConfig=config)
    wait_training(sm, f"{unique}-1")
    stored = aws("s3").get_object(Bucket=bucket, Key=f"checkpoints/{unique}/epoch.txt")["Body"].read()
    assert stored == b"3"
    sm.create_training_job(**job_request(name=f"{unique}-2", epochs=5, checkpoint=1), CheckpointConfig=config)
    job = wait_training(sm, f"{unique}-2")
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["first_epoch"] == 3


def test_a_manifest_file_names_the_objects_of_a_channel(sm, aws, bucket, job_request, unique):
    manifest = [{"prefix": f"s3://{bucket}/data/"}, "train/deep/b.txt", "train.lst"]
    aws("s3").put_object(Bucket=bucket, Key=f"manifests/{unique}", Body=json.dumps(manifest).encode())
    request = job_request(epochs=1)
    request["InputDataConfig"] = [channel("train", f"s3://{bucket}/manifests/{unique}", S3DataType="ManifestFile")]
    sm.create_training_job(**request)
    job = wait_training(sm, unique)
    model = read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])
    assert model["files"] == ["train/train.lst", "train/train/deep/b.txt"]


def test_the_model_channel_of_incremental_training_arrives(sm, aws, bucket, job_request, unique):
    sm.create_training_job(**job_request(name=f"{unique}-1", epochs=1))
    artifact = wait_training(sm, f"{unique}-1")["ModelArtifacts"]["S3ModelArtifacts"]
    request = job_request(name=f"{unique}-2", epochs=1)
    model_channel = {**channel("model", artifact), "ContentType": "application/x-sagemaker-model"}
    request["InputDataConfig"].append(model_channel)
    sm.create_training_job(**request)
    job = wait_training(sm, f"{unique}-2")
    assert "model/model.tar.gz" in read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["files"]


def test_a_container_entrypoint_replaces_the_command(sm, aws, bucket, job_request, unique):
    request = job_request()
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/bin/sh", "-c"]
    request["AlgorithmSpecification"]["ContainerArguments"] = ["cat /opt/ml/input/data/train/a.txt > /opt/ml/model/m"]
    sm.create_training_job(**request)
    job = wait_training(sm, unique)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")


def test_job_metric_definitions_are_used_for_own_images(sm, job_request, unique):
    request = job_request(epochs=3)
    definitions = [{"Name": "mine", "Regex": r"Train-accuracy=(\S+)"}]
    request["AlgorithmSpecification"]["MetricDefinitions"] = definitions
    sm.create_training_job(**request)
    job = wait_training(sm, unique)
    assert {m["MetricName"]: round(m["Value"], 2) for m in job["FinalMetricDataList"]} == {"mine": 0.7}
    assert job["AlgorithmSpecification"]["MetricDefinitions"] == definitions


def change_channel(request: dict[str, Any], **members: Any) -> None:
    request["InputDataConfig"][0].update(members)


def change_source(request: dict[str, Any], **members: Any) -> None:
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"].update(members)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(TrainingJobName="under_score"), "regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9])"),
        (lambda r: r["ResourceConfig"].update(InstanceCount=2), "more than one instance"),
        (lambda r: r["ResourceConfig"].update(InstanceType="ml.toaster"), "Member must satisfy enum value set: ["),
        (lambda r: r["AlgorithmSpecification"].update(TrainingImage="nobody/knows:1"), "no command for image"),
        (lambda r: r["AlgorithmSpecification"].update(TrainingInputMode="Pipe"), "Pipe; use File or FastFile"),
        (lambda r: change_source(r, S3DataType="AugmentedManifestFile"), "AugmentedManifestFile"),
        (lambda r: change_source(r, S3Uri="s3://no-such-bucket-here/x"), "No S3 objects found under S3 URL"),
        (lambda r: change_source(r, S3Uri="https://example.org/x"), "is not an S3 URI of the form"),
        (lambda r: change_source(r, S3Uri="ftp:/x"), "at 'inputDataConfig.1.member.dataSource.s3DataSource.s3Uri'"),
        (lambda r: change_channel(r, ShuffleConfig={"Seed": 1}), "shuffling"),
        (lambda r: change_channel(r, CompressionType="Gzip"), "Pipe mode"),
        (lambda r: r["InputDataConfig"].append(r["InputDataConfig"][0]), "Duplicate channel names"),
        (lambda r: r["StoppingCondition"].update(MaxWaitTimeInSeconds=400), "EnableManagedSpotTraining"),
        (lambda r: r.update(EnableManagedSpotTraining=True), "Invalid MaxWaitTimeInSeconds"),
        (lambda r: r["AlgorithmSpecification"].update(MetricDefinitions=[{"Name": "m", "Regex": "("}]), "regular expr"),
        (lambda r: r.update(Tags=[{"Key": "aws:x", "Value": "y"}]), "reserved"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_the_job_exists(sm, job_request, unique, change, words):
    request = job_request()
    change(request)
    code, message = refusal(sm.create_training_job, **request)
    assert code == "ValidationException"
    assert words in message
    assert refusal(sm.describe_training_job, TrainingJobName=unique)[0] == "ValidationException"


def test_missing_members_are_named_as_aws_names_them(service, role):
    import boto3
    from botocore.config import Config

    config = Config(parameter_validation=False)
    careless = boto3.client("sagemaker", endpoint_url=service.url, region_name="us-east-1", config=config)
    code, message = refusal(careless.create_training_job, TrainingJobName="x", RoleArn=role)
    assert code == "ValidationException"
    assert message == (
        "1 validation error detected: Value null at 'outputDataConfig' failed to satisfy constraint: "
        "Member must not be null"
    )


def test_a_name_is_used_once(sm, job_request, unique):
    sm.create_training_job(**job_request(epochs=1))
    code, message = refusal(sm.create_training_job, **job_request(epochs=1))
    assert code == "ResourceInUse"
    assert message.startswith("Training job names must be unique within an AWS account and region")
    wait_training(sm, unique)
    assert refusal(sm.create_training_job, **job_request(epochs=1))[0] == "ResourceInUse"


def test_unknown_names_answer_validation_exception(sm, unique):
    for call in (sm.describe_training_job, sm.stop_training_job, sm.delete_training_job):
        assert refusal(call, TrainingJobName=unique) == ("ValidationException", "Requested resource not found.")


def test_a_job_that_has_ended_can_be_deleted(sm, job_request, unique):
    sm.create_training_job(**job_request(epochs=100, seconds=0.2))
    assert "status InProgress" in refusal(sm.delete_training_job, TrainingJobName=unique)[1]
    sm.stop_training_job(TrainingJobName=unique)
    wait_training(sm, unique)
    sm.delete_training_job(TrainingJobName=unique)
    refusal(sm.describe_training_job, TrainingJobName=unique)


def test_jobs_beyond_the_limit_wait_in_order(new_service, client_of, job_request, unique):
    client = client_of(new_service("--max-training-jobs", "1"))
    client.create_training_job(**job_request(name=f"{unique}-1", epochs=100, seconds=0.2))
    for number in (2, 3):
        client.create_training_job(**job_request(name=f"{unique}-{number}", epochs=1))
    waiting = client.describe_training_job(TrainingJobName=f"{unique}-2")
    assert (waiting["TrainingJobStatus"], waiting["SecondaryStatus"]) == ("InProgress", "Pending")
    client.stop_training_job(TrainingJobName=f"{unique}-3")  # a job that waits can be stopped without its turn
    assert wait_training(client, f"{unique}-3")["TrainingJobStatus"] == "Stopped"
    client.stop_training_job(TrainingJobName=f"{unique}-1")
    assert wait_training(client, f"{unique}-2")["TrainingJobStatus"] == "Completed"
    assert TOY_IMAGE in waiting["AlgorithmSpecification"]["TrainingImage"]
