"""Names and defaults that every DAG shares. Imports nothing but Airflow's SDK: each process parses this file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset

AWS_CONN_ID = "aws_default"

# One fixed date, so that the serialised DAGs are the same at every parse.
START_DATE = datetime(2026, 1, 1, tzinfo=UTC)

DEFAULT_CLASSES = ["bicycle", "motorcycle"]
DEFAULT_THRESHOLD = 0.93
MODEL_PACKAGE_GROUP = "scones-courier"

# Pools guard the account's quotas, not the workers. Their sizes are in pools.json (`airflow pools import` reads it).
TRAINING_POOL = "sagemaker_training"
BATCH_POOL = "step_functions_batch"

DATASET_ASSET = Asset(name="scones_dataset", uri="scones://dataset/current", group="scones")
MODEL_ASSET = Asset(name="scones_model", uri="scones://model/deployed", group="scones")
DRIFT_ASSET = Asset(name="scones_drift", uri="scones://endpoint/drift", group="scones")
BATCH_ASSET = Asset(name="scones_batch", uri="scones://batch/results", group="scones")

TAGS = ["scones", "sagemaker"]

DAG_DEFAULT_ARGS: dict[str, Any] = {
    "owner": "scones-ml",
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
}
