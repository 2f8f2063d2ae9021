"""The first task of the DAGs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import task

JsonDict = dict[str, Any]


@task(multiple_outputs=False, task_id="resolve_resources", execution_timeout=timedelta(minutes=5))
def resolve_resources() -> dict[str, str]:
    """Read the stack's outputs: bucket, roles, endpoint name, topic."""
    from scones.aws.resources import stack_outputs

    return stack_outputs()
