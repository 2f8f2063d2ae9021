"""Names and defaults that every DAG shares. Light to import: each process parses this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param


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


# Where Airflow serves the pages of the plugin `scones_ui`.
PAGES = "/scones"

TAGS = ["scones", "sagemaker"]

# The stack's outputs in templated fields; the task `resolve_resources` returned them.
BUCKET = "{{ ti.xcom_pull(task_ids='resolve_resources')['BucketName'] }}"
ENDPOINT = "{{ ti.xcom_pull(task_ids='resolve_resources')['EndpointName'] }}"
