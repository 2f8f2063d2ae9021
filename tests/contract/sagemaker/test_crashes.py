"""Killed at any moment and started again: no job is lost, doubled or stuck, and nothing is left running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded.settings import free_port
from sagemaker_local.ended import wait_ended
from tests.support.local_service import LocalService, read_model, wait_training, wait_until
from tests.support.switch import Switch


@pytest.fixture
def own(new_service: Callable[..., LocalService]) -> LocalService:
    """A service of the test's own, to kill."""
    return new_service("--max-training-jobs", "2", "--outage-seconds", "4")


def containers(folder: Path) -> list[int]:
    """The processes that carry this service's marker, without the service itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SAGEMAKER_LOCAL_DATA_DIR") == str(folder / "data"):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_job_killed_in_training_starts_again_and_completes(own, client_of, aws, job_request, unique):
    sm = client_of(own)
    sm.create_training_job(**job_request(epochs=4, seconds=0.4))
    wait_until(lambda: containers(own.folder), "the container runs", 20)
    own.kill()
    orphans = [psutil.Process(pid) for pid in containers(own.folder)]
    own.start()
    assert wait_ended(orphans, timeout_s=0) == []
    job = wait_training(sm, unique)
    assert job["TrainingJobStatus"] == "Completed", job
    statuses = [t["Status"] for t in job["SecondaryStatusTransitions"]]
    assert "Restarting" in statuses
    assert statuses[-3:] == ["Training", "Uploading", "Completed"]
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["job"] == unique
    wait_until(lambda: not containers(own.folder), "nothing is left running", 10)


@pytest.mark.slow
def test_checkpoints_save_the_epochs_before_the_kill(own, client_of, aws, bucket, job_request, unique):
    sm = client_of(own)
    request = job_request(epochs=6, seconds=0.5, checkpoint=1)
    sm.create_training_job(**request, CheckpointConfig={"S3Uri": f"s3://{bucket}/checkpoints/{unique}"})
    saved = own.folder / "data" / "training" / unique / "ml" / "checkpoints" / "epoch.txt"
    wait_until(lambda: saved.exists() and saved.read_text() >= "2", "two epochs are done", 20)
    own.kill()
    own.start()
    job = wait_training(sm, unique)
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["first_epoch"] >= 2


@pytest.mark.slow
def test_every_accepted_job_ends_though_the_service_is_killed_again_and_again(own, client_of, job_request, unique):
    sm = client_of(own)
    names = [f"{unique}-{number}" for number in range(5)]
    for name in names:
        sm.create_training_job(**job_request(name=name, epochs=2, seconds=0.2))
    for _ in range(3):
        own.kill()
        own.start()
    jobs = [wait_training(sm, name) for name in names]
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"] * 5
    assert len(sm.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]) >= 5


@pytest.mark.slow
def test_a_job_that_is_interrupted_too_often_fails_with_a_reason(own, client_of, job_request, unique):
    sm = client_of(own)
    sm.create_training_job(**job_request(epochs=1000, seconds=0.2), RetryStrategy={"MaximumRetryAttempts": 1})
    for _ in range(2):
        wait_until(lambda: containers(own.folder), "the container runs", 20)
        own.kill()
        own.start()
    job = wait_training(sm, unique)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: the job was interrupted 2 times")


def test_a_stop_survives_the_kill(own, client_of, job_request, unique):
    sm = client_of(own)
    sm.create_training_job(**job_request(epochs=1000, seconds=0.2, ignore_sigterm=1))
    wait_until(lambda: containers(own.folder), "the container runs", 20)
    sm.stop_training_job(TrainingJobName=unique)
    own.kill()
    own.start()
    assert wait_training(sm, unique)["TrainingJobStatus"] == "Stopped"
    wait_until(lambda: not containers(own.folder), "nothing is left running", 10)


@pytest.mark.slow
def test_a_clean_stop_ends_the_containers_and_the_next_start_takes_the_job_up(own, client_of, job_request, unique):
    sm = client_of(own)
    sm.create_training_job(**job_request(epochs=3, seconds=0.4))
    wait_until(lambda: containers(own.folder), "the container runs", 20)
    assert own.stop() == 0
    assert containers(own.folder) == []
    own.start()
    assert wait_training(sm, unique)["TrainingJobStatus"] == "Completed"


def test_resources_and_tags_are_there_after_a_kill(own, client_of, role, unique):
    sm = client_of(own)
    arn = sm.create_model_package_group(ModelPackageGroupName=unique, Tags=[{"Key": "a", "Value": "b"}])[
        "ModelPackageGroupArn"
    ]
    own.kill()
    own.start()
    assert sm.describe_model_package_group(ModelPackageGroupName=unique)["ModelPackageGroupArn"] == arn
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_two_services_cannot_share_a_data_directory(service):
    import subprocess
    import sys

    command = [sys.executable, "-m", "sagemaker_local", "--port", str(free_port())]
    second = subprocess.run(
        [*command, "--data-dir", str(service.folder / "data")], capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 2
    assert "in use by another sagemaker_local" in second.stderr


@pytest.fixture
def switch(ministack: str) -> Iterator[Switch]:
    """MiniStack behind a switch."""
    with Switch(ministack) as made:
        yield made


@pytest.mark.slow
def test_a_job_outlives_a_short_outage_of_s3(new_service, client_of, aws, switch, job_request, unique):
    sm = client_of(new_service("--outage-seconds", "60", aws_url=switch.url))
    sm.create_training_job(**job_request(epochs=3, seconds=0.3))
    wait_until(lambda: status_of(sm, unique) == "Training", "it trains", 20)
    switch.off()
    wait_until(lambda: status_of(sm, unique) == "Uploading", "it tries to upload", 30)
    switch.on()
    job = wait_training(sm, unique)
    assert job["TrainingJobStatus"] == "Completed"
    assert read_model(aws, job["ModelArtifacts"]["S3ModelArtifacts"])["job"] == unique


@pytest.mark.slow
def test_a_job_fails_with_a_reason_when_s3_stays_away(new_service, client_of, switch, job_request, unique):
    sm = client_of(new_service("--outage-seconds", "2", aws_url=switch.url))
    sm.create_training_job(**job_request(epochs=3, seconds=0.3))
    wait_until(lambda: status_of(sm, unique) == "Training", "it trains", 20)
    switch.off()
    job = wait_training(sm, unique)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: S3 did not answer for")


def status_of(sm: Any, name: str) -> str:
    return sm.describe_training_job(TrainingJobName=name)["SecondaryStatus"]
