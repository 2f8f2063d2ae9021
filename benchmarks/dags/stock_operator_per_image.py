"""
### What a user would otherwise pick: the provider's Step Functions operator, mapped once per image

Twice, both only for the benchmark `batch-vs-stock-operator`: with the provider's sensor, as its documentation shows it,
and deferrable, with the shortest waits the operator has. Run conf of both:
`{"state_machine_arn": ..., "inputs": [<workflow input>, ...]}`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.step_function import StepFunctionStartExecutionOperator
from airflow.providers.amazon.aws.sensors.step_function import StepFunctionExecutionSensor
from airflow.sdk import Param, dag, get_current_context, task

SETTINGS: dict[str, Any] = {
    "catchup": False,
    "max_active_tasks": 64,
    "default_args": {"retries": 2, "retry_delay": timedelta(seconds=5)},
    "params": {"state_machine_arn": Param("", type="string"), "inputs": Param([], type="array")},
    "doc_md": __doc__,
}
MACHINE = "{{ params.state_machine_arn }}"


@task
def list_inputs() -> list[Any]:
    return list(get_current_context()["params"]["inputs"])


@dag(schedule=None, **SETTINGS)
def stock_operator_and_sensor_per_image() -> None:
    started = StepFunctionStartExecutionOperator.partial(task_id="start_execution", state_machine_arn=MACHINE).expand(
        state_machine_input=list_inputs()
    )
    # Every second instead of the default minute, which would only make it slower.
    StepFunctionExecutionSensor.partial(task_id="await_execution", poke_interval=1).expand(execution_arn=started.output)


@dag(schedule=None, **SETTINGS)
def stock_operator_per_image() -> None:
    StepFunctionStartExecutionOperator.partial(
        task_id="start_execution",
        state_machine_arn=MACHINE,
        deferrable=True,
        waiter_delay=1,  # default 60
        waiter_max_attempts=3600,
    ).expand(state_machine_input=list_inputs())


stock_operator_and_sensor_per_image()
stock_operator_per_image()
