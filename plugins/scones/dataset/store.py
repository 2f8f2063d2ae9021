"""The bucket as staging uses it: many small objects at once."""

from __future__ import annotations

from scones.aws.resources import AWS_CONN_ID
from scones.training.store import TrainingStore


def open_store(bucket: str, threads: int) -> TrainingStore:
    """Return the bucket through the Airflow connection, with a connection for each thread and retries with backoff."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    config = Config(
        max_pool_connections=threads + 2,
        retries={"mode": "standard", "max_attempts": 6},
        signature_version="s3v4",
    )
    return TrainingStore(bucket, client=S3Hook(aws_conn_id=AWS_CONN_ID, config=config).get_conn())
