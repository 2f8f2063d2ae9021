"""
### What a user would otherwise pick: the provider's Step Functions operator, mapped once per image

Deferrable, and with the shortest waits it has (1 s instead of its default 60 s). Only for the benchmark
`batch-vs-stock-operator`; run conf: `{"state_machine_arn": ..., "inputs": [<workflow input>, ...]}`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.step_function import StepFunctionStartExecutionOperator
from airflow.sdk import Param, dag, get_current_context, task


@task
def list_inputs() -> list[Any]:
    return list(get_current_context()["params"]["inputs"])


@dag(
    schedule=None,
    catchup=False,
    max_active_tasks=64,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5)},
    params={"state_machine_arn": Param("", type="string"), "inputs": Param([], type="array")},
    doc_md=__doc__,
)
def stock_operator_per_image() -> None:
    StepFunctionStartExecutionOperator.partial(
        task_id="start_execution",
        state_machine_arn="{{ params.state_machine_arn }}",
        deferrable=True,
        waiter_delay=1,
        waiter_max_attempts=3600,
    ).expand(state_machine_input=list_inputs())


stock_operator_per_image()
