"""`sagemaker_local --containers docker`: an image that nobody mapped, run as the container it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from embedded.settings import free_port
from tests.support.local_service import (
    ROOT,
    LocalService,
    channel,
    read_model,
    refusal,
    unique,
    wait_job,
    wait_training,
    wait_until,
)

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]
TOY = ROOT / "tests" / "data" / "sagemaker_local" / "toy_container.py"
ROLE = "arn:aws:iam::111122223333:role/sagemaker-execution"
PATIENCE = 300


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The toy container as an image of its own; nothing on this machine stands for its name."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(TOY, folder / "toy.py")
    base = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
    lines = [f"FROM {base}", "COPY toy.py /program/toy.py", "ENV TOY_HOST=0.0.0.0 PYTHONUNBUFFERED=1"]
    lines += ['ENTRYPOINT ["python", "/program/toy.py"]']
    (folder / "Dockerfile").write_text("\n".join(lines))
    name = f"registry.example/own-{uuid.uuid4().hex[:8]}:1"
    docker("build", "--tag", name, str(folder))
    yield name
    docker("rmi", "--force", name)


@pytest.fixture(scope="module")
def service(image: str, ministack: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    mapped = {"pattern": "*/mapped:1", "command": ["true"]}
    options = ("--containers", "docker", "--stop-grace-seconds", "20")
    service = LocalService(tmp_path_factory.mktemp("containers"), ministack, mapped, *options).start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def sm(service: LocalService) -> Any:
    return boto3.client("sagemaker", endpoint_url=service.url)


@pytest.fixture(scope="module")
def bucket(ministack: str, aws: Callable[..., Any]) -> str:
    name = f"containers-{uuid.uuid4().hex[:8]}"
    aws("s3").create_bucket(Bucket=name)
    aws("s3").put_object(Bucket=name, Key="data/a.txt", Body=b"some text\n")
    return name


def mine(service: LocalService, *kind: str) -> list[str]:
    """What the engine holds for the service: its containers, or its networks."""
    label = f"label=SAGEMAKER_LOCAL_DATA_DIR={(service.folder / 'data').resolve()}"
    return docker(*(kind or ("ps", "--all")), "--quiet", "--filter", label).split()


def train(sm: Any, bucket: str, image: str, longest: int = 3600, **hyperparameters: object) -> str:
    name = unique("train")
    sm.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "toy:accuracy", "Regex": r"Validation-accuracy=([0-9.]+)"}],
        },
        HyperParameters={key: str(value) for key, value in hyperparameters.items()},
        InputDataConfig=[channel("train", f"s3://{bucket}/data/")],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/training/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": longest},
        Environment={"EXTRA": "of the request"},
    )
    return name


def logged(aws: Callable[..., Any], kind: str, prefix: str) -> list[str]:
    logs, group = aws("logs"), f"/aws/sagemaker/{kind}"
    found = []
    for stream in logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]:
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        found += [event["message"] for event in events["events"]]
    return found


def trains(aws: Callable[..., Any], name: str) -> None:
    """Wait until the job has logged a line."""

    def has_begun() -> bool:
        try:
            return bool(logged(aws, "TrainingJobs", name))
        except aws("logs").exceptions.ResourceNotFoundException:
            return False

    wait_until(has_begun, "it trains", PATIENCE)


def test_training(sm: Any, service: LocalService, bucket: str, image: str, aws: Callable[..., Any]) -> None:
    job = wait_training(sm, train(sm, bucket, image, epochs=2), PATIENCE)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    model = read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])
    assert model["files"] == ["train/a.txt"]
    assert (model["hyperparameters"], model["extra"]) == ({"epochs": "2"}, "of the request")
    assert model["job"] == job["TrainingJobName"]
    assert job["FinalMetricDataList"][0]["Value"] == pytest.approx(0.5)
    lines = logged(aws, "TrainingJobs", job["TrainingJobName"])
    assert lines[0] == "Epoch[0] Train-accuracy=0.500000"
    assert lines[-1] == "the last line has no newline"
    assert mine(service) == []


def test_it_fails_with_its_own_words_and_exit_code(sm: Any, bucket: str, image: str) -> None:
    job = wait_training(sm, train(sm, bucket, image, exit_code=3, failure="no such column"), PATIENCE)
    assert (job["TrainingJobStatus"], job["FailureReason"]) == (
        "Failed",
        "AlgorithmError: no such column, exit code: 3",
    )


def test_a_signal_is_told_from_an_exit_code(
    sm: Any, service: LocalService, bucket: str, image: str, aws: Callable[..., Any]
) -> None:
    name = train(sm, bucket, image, seconds=3600)
    trains(aws, name)
    docker("kill", *mine(service))
    job = wait_training(sm, name, PATIENCE)
    assert job["TrainingJobStatus"] == "Failed"
    assert "ended by SIGKILL" in job["FailureReason"]
    assert job["FailureReason"].endswith("exit code: 137")


def test_stopping_gives_it_time_to_save(
    sm: Any, service: LocalService, bucket: str, image: str, aws: Callable[..., Any]
) -> None:
    name = train(sm, bucket, image, seconds=3600, save_on_sigterm=1)
    trains(aws, name)
    sm.stop_training_job(TrainingJobName=name)
    job = wait_training(sm, name, PATIENCE)
    assert job["TrainingJobStatus"] == "Stopped"
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["stopped"] is True
    assert mine(service) == []


def test_its_time_is_limited(sm: Any, service: LocalService, bucket: str, image: str) -> None:
    """A first process that has no handler is not ended by SIGTERM, as on SageMaker: SIGKILL is what ends it."""
    job = wait_training(sm, train(sm, bucket, image, longest=1, seconds=3600), PATIENCE)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert mine(service) == []


def test_processing_reaches_the_platform_and_nothing_else(
    sm: Any, service: LocalService, ministack: str, bucket: str, image: str, aws: Callable[..., Any]
) -> None:
    [network] = mine(service, "network", "ls")
    here = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", network).strip()
    nobody, elsewhere = free_port(), "192.0.2.1:80"
    platform = [f"{here}:{urlsplit(ministack).port}", f"{here}:{service.port}"]
    name = unique("processing")
    local = "/opt/ml/processing"
    sm.create_processing_job(
        ProcessingJobName=name,
        RoleArn=ROLE,
        AppSpecification={
            "ImageUri": image,
            "ContainerEntrypoint": ["python", "/program/toy.py"],
            "ContainerArguments": ["--connect", *platform, f"{here}:{nobody}", elsewhere],
        },
        ProcessingInputs=[
            {
                "InputName": "in",
                "S3Input": {"S3Uri": f"s3://{bucket}/data/", "LocalPath": f"{local}/input", "S3DataType": "S3Prefix"},
            }
        ],
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": f"s3://{bucket}/processed",
                        "LocalPath": f"{local}/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        ProcessingResources={"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 5}},
    )
    job = wait_job("Processing", sm, name, PATIENCE)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert aws("s3").get_object(Bucket=bucket, Key="processed/all.txt")["Body"].read() == b"some text\n"
    arguments = json.load(aws("s3").get_object(Bucket=bucket, Key="processed/nested/arguments.json")["Body"])
    assert arguments[0] == "--connect"
    said = dict(line.rsplit(" ", 1) for line in logged(aws, "ProcessingJobs", name) if line.count(":") == 1)
    assert [said[address] for address in platform] == ["connected", "connected"]
    assert said[f"{here}:{nobody}"] != "connected"
    assert said[elsewhere] != "connected"


def test_an_endpoint_and_a_transform_job(
    sm: Any, service: LocalService, bucket: str, image: str, aws: Callable[..., Any]
) -> None:
    job = wait_training(sm, train(sm, bucket, image), PATIENCE)
    name = unique("own")
    artifact = job["ModelArtifacts"]["S3ModelArtifacts"]
    sm.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image, "ModelDataUrl": artifact})
    sm.create_transform_job(
        TransformJobName=name,
        ModelName=name,
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/data/"}},
            "ContentType": "text/plain",
        },
        TransformOutput={"S3OutputPath": f"s3://{bucket}/transformed"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    variant = {"VariantName": "all", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sm.create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_until(lambda: sm.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Creating", "made", PATIENCE)
    assert sm.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"
    runtime = boto3.client("sagemaker-runtime", endpoint_url=service.url)
    answer = runtime.invoke_endpoint(EndpointName=name, Body=b"scones", ContentType="text/plain")
    assert answer["Body"].read() == b"SCONES"

    transform = wait_job("Transform", sm, name, PATIENCE)
    assert transform["TransformJobStatus"] == "Completed", transform.get("FailureReason")
    assert aws("s3").get_object(Bucket=bucket, Key="transformed/a.txt.out")["Body"].read() == b"SOME TEXT\n"

    # A model server that dies is started anew.
    [container] = mine(service)
    docker("kill", container)
    wait_until(lambda: (now := mine(service)) and container not in now, "another container", PATIENCE)
    answer = runtime.invoke_endpoint(EndpointName=name, Body=b"again", ContentType="text/plain")
    assert answer["Body"].read() == b"AGAIN"
    sm.delete_endpoint(EndpointName=name)
    wait_until(lambda: mine(service) == [], "its container is gone", PATIENCE)


def test_what_the_engine_does_not_have_is_refused(sm: Any, bucket: str) -> None:
    code, message = refusal(train, sm=sm, bucket=bucket, image="registry.example/nowhere:1")
    assert code == "ValidationException"
    assert "the Docker engine has no such image" in message


def test_a_killed_service_leaves_nothing_for_good(
    sm: Any, service: LocalService, bucket: str, image: str, aws: Callable[..., Any]
) -> None:
    name = train(sm, bucket, image, seconds=5, epochs=2)
    trains(aws, name)
    [before] = mine(service)
    service.kill()
    assert mine(service) == [before]
    service.start()
    job = wait_training(sm, name, PATIENCE)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "Restarting" in [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert mine(service) == []
    service.stop()
    assert mine(service, "network", "ls") == []
