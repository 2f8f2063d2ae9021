"""The graphs and the forms of batch_inference and generate_traffic."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from airflow.sdk.exceptions import ParamValidationError

from tests.support.batch_world import PARAMS
from tests.support.dag_files import load


@pytest.mark.parametrize(
    ("dag_id", "path"),
    [
        (
            "batch_inference",
            ["resolve_resources", "plan_batch", "run_chunk", "collect_results", "summarize_batch"],
        ),
        (
            "generate_traffic",
            ["resolve_resources", "prepare_traffic", "send_traffic", "collect_results", "summarize_batch"],
        ),
    ],
)
def test_the_path(dag_id: str, path: list[str]) -> None:
    dag = load(dag_id)
    assert {task.task_id for task in dag.tasks} == set(path)
    for earlier, later in pairwise(path):
        assert later in dag.get_task(earlier).downstream_task_ids
    chunks = dag.get_task(path[2])
    assert type(chunks).__name__ == "MappedOperator"
    assert chunks.pool == "step_functions_batch"
    assert chunks.map_index_template


def test_a_batch_without_chunks_is_not_skipped() -> None:
    assert load("batch_inference").get_task("collect_results").trigger_rule == "none_failed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", 0),
        ("concurrency", "many"),
        ("starts_per_second", 0),
        ("fan_out", "threads"),
        ("chunk_size", 0),
        ("max_failed_share", 1.5),
        ("threshold", 2),
        ("keys", "a.png"),
        ("sample_size", -1),
    ],
)
def test_the_form_refuses(name: str, value: Any) -> None:
    param = load("batch_inference").params.get_param(name)
    with pytest.raises(ParamValidationError):
        param.resolve(value)


def test_tests_run_batches_with_the_params_of_the_form() -> None:
    assert set(PARAMS) == set(load("batch_inference").params)
