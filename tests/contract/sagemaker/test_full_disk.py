"""The disk fills up: jobs fail with a reason, the service goes on, and works again once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_service import LocalService, wait_training


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system of its own cannot be mounted here: {mounted.stderr.decode()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_the_job_with_a_reason_and_not_the_service(
    small_disk: Path,
    new_service: Callable[..., LocalService],
    aws: Callable[..., Any],
    bucket: str,
    client_of: Callable[[LocalService], Any],
    job_request: Callable[..., dict[str, Any]],
    unique: str,
) -> None:
    aws("s3").put_object(Bucket=bucket, Key=f"large/{unique}/file", Body=b"x" * (6 << 20))
    service = new_service(folder=small_disk)
    try:
        sm = client_of(service)
        request = job_request(epochs=1)
        too_large = job_request(name=f"{unique}-large", epochs=1)
        source = too_large["InputDataConfig"][0]["DataSource"]["S3DataSource"]
        source["S3Uri"] = f"s3://{bucket}/large/{unique}/"
        sm.create_training_job(**too_large)
        job = wait_training(sm, f"{unique}-large", 120)
        assert job["TrainingJobStatus"] == "Failed"
        assert "No space left on device" in job["FailureReason"]
        sm.create_training_job(**request)
        assert wait_training(sm, unique, 120)["TrainingJobStatus"] == "Completed"
    finally:
        service.stop()
