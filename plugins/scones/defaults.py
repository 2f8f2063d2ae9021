"""Names and defaults that every DAG shares. Light to import: each process parses this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAny, CronTriggerTimetable, Param

from scones.settings import AWS_CONN_ID as AWS_CONN_ID

# An MLflow server that is told of each training run, where there is such a connection (of the type HTTP).
MLFLOW_CONN_ID = "mlflow_default"


def at(cron: str) -> CronTriggerTimetable:
    """A schedule in UTC whose first run is the next one.

    Scheduled DAGs have no start date: with one, Airflow starts the latest missed run as soon as a DAG is unpaused,
    beside the run that was triggered by hand.
    """
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))


# What may start a run: anything but a backfill. A run works on what is there now, and has no day of its own to make up
# for; Airflow offers a backfill for every schedule that does not rule it out.
RUN_TYPES = ("scheduled", "manual", "operator_triggered", "asset_triggered", "asset_materialization")

# The section that Airflow's form shows open; all others begin closed.
OPEN_SECTION = "Run Parameters"
# Section -> (name, default, schema, title, description) of each param, in the order of the form.
Form = Mapping[str, Sequence[tuple[str, Any, Mapping[str, Any], str, str]]]


def params_of(form: Form) -> dict[str, Param]:
    """The params of a DAG."""
    return {
        name: Param(default, section=section, title=title, description=description, **schema)
        for section, rows in form.items()
        for name, default, schema, title, description in rows
    }


DEFAULT_CLASSES = ["bicycle", "motorcycle"]
DEFAULT_THRESHOLD = 0.93
MODEL_PACKAGE_GROUP = "scones-courier"
EXPERIMENT = "scones-courier"
# Where Airflow serves the pages of the plugin `scones_ui`.
PAGES = "/scones"

# Pools guard the account's quotas, not the workers. Their sizes are in pools.json (`airflow pools import` reads it).
TRAINING_POOL = "sagemaker_training"
BATCH_POOL = "step_functions_batch"

# The prefix x- marks a scheme of our own: for any other, Airflow loads every provider (and boto3) to normalise the URI.
DATASET_ASSET = Asset(name="scones_dataset", uri="x-scones://dataset/current", group="scones")
MODEL_ASSET = Asset(name="scones_model", uri="x-scones://model/deployed", group="scones")
DRIFT_ASSET = Asset(name="scones_drift", uri="x-scones://endpoint/drift", group="scones")
LABELS_ASSET = Asset(name="scones_labels", uri="x-scones://labels/new", group="scones")
BATCH_ASSET = Asset(name="scones_batch", uri="x-scones://batch/results", group="scones")
ASKS_FOR_TRAINING = AssetAny(DRIFT_ASSET, LABELS_ASSET)

TAGS = ["scones", "sagemaker"]

DAG_DEFAULT_ARGS: dict[str, Any] = {
    "owner": "scones-ml",
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
}
