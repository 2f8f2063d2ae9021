"""What the service is started with, and the clock it reads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Clock = Callable[[], float]  # seconds since the epoch

wall_clock: Clock = time.time

DATA_DIR_MARKER = "SAGEMAKER_LOCAL_DATA_DIR"
"""Environment variable every child process carries, so that a restarted service finds what a killed one left behind."""


@dataclass(frozen=True)
class Config:
    """Settings of one service; all state lives under `data_dir`.

    Times are in seconds. `max_training_jobs` bounds the training jobs that run at once; later ones wait in order.
    `stop_grace_seconds` is what SageMaker gives a stopped container between SIGTERM and SIGKILL (120 s).
    `outage_seconds` is how long a job keeps retrying S3 before it fails. `allowed_hosts` and `secret_key` are for the
    guard (`guard.Guard`): names in `Host` beside this machine's own, and the secret that requests are signed with.
    `containers` is "docker" where images that nothing stands for run as containers of a Docker engine.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 4580
    images_file: Path | None = None
    max_training_jobs: int = 2
    max_processing_jobs: int = 2
    max_transform_jobs: int = 2
    stop_grace_seconds: float = 120.0
    outage_seconds: float = 60.0
    max_restarts: int = 3
    region: str = "us-east-1"
    account_id: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    secret_key: str | None = None
    containers: str = "process"

    @property
    def endpoints(self) -> list[str]:
        """Where AWS is for containers: every URL that the SDKs' variables name."""
        return sorted({url for name, url in os.environ.items() if name.startswith("AWS_ENDPOINT_URL") and url})

    @classmethod
    def from_environment(cls, data_dir: Path, **overrides: object) -> Config:
        """Settings from the environment: the region as the AWS SDKs read it, the guard's from variables of its own.

        SAGEMAKER_LOCAL_ALLOWED_HOSTS is a list with commas, SAGEMAKER_LOCAL_SECRET_KEY the secret. With
        SAGEMAKER_LOCAL_ACCOUNT_ID, STS need not be asked which account this is.
        """
        settings: dict[str, object] = {
            "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            "allowed_hosts": tuple(os.environ.get("SAGEMAKER_LOCAL_ALLOWED_HOSTS", "").split(",")),
            "secret_key": os.environ.get("SAGEMAKER_LOCAL_SECRET_KEY") or None,
            "account_id": os.environ.get("SAGEMAKER_LOCAL_ACCOUNT_ID") or None,
            **{key: value for key, value in overrides.items() if value is not None},
        }
        return cls(data_dir=data_dir.resolve(), **settings)  # type: ignore[arg-type]
