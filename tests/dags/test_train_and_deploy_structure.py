"""The graph of train_and_deploy: who waits for whom, and what each path leads to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.dag_files import load


@pytest.fixture(scope="module")
def dag() -> Any:
    return load("train_and_deploy")


def downstream(dag: Any, task_id: str) -> set[str]:
    return set(dag.get_task(task_id).get_flat_relative_ids(upstream=False))


def test_the_main_path_is_in_order(dag: Any) -> None:
    path = [
        "resolve_resources",
        "stage_images",
        "train_model",
        "create_model",
        "evaluation.transform_test_images",
        "evaluation.evaluate_model",
        "check_quality",
        "register_model",
        "approve_model",
        "candidate.start_candidate",
        "candidate.smoke_test_candidate",
        "deploy_endpoint",
        "verify_endpoint",
        "await_capture",
        "write_report",
    ]
    for earlier, later in pairwise(path):
        assert later in downstream(dag, earlier), f"{later} does not wait for {earlier}"


def test_the_gate_has_two_ways_out_and_a_refusal_deploys_nothing(dag: Any) -> None:
    assert {"register_model", "refuse_model"} <= dag.get_task("check_quality").downstream_task_ids
    assert dag.get_task("refuse_model").downstream_task_ids == set()
    assert dag.get_task("refuse_model").retries == 0


def test_a_rejection_by_a_person_skips_everything_after_it(dag: Any) -> None:
    approve = dag.get_task("approve_model")
    assert approve.ignore_downstream_trigger_rules is True
    assert approve.retries > 0  # an answer that Airflow lost is asked for again
    after = {"candidate.start_candidate", "deploy_endpoint", "verify_endpoint", "write_report", "publish_threshold"}
    assert after <= downstream(dag, "approve_model")


def test_the_candidate_is_torn_down_whatever_becomes_of_its_test(dag: Any) -> None:
    assert dag.get_task("candidate.start_candidate").is_setup
    assert dag.get_task("candidate.delete_candidate").is_teardown
    assert "candidate.delete_candidate" not in dag.get_task("deploy_endpoint").upstream_task_ids


def test_mlflow_is_told_whatever_was_decided_and_fails_no_run(dag: Any) -> None:
    track = dag.get_task("track_run")
    assert track.is_teardown  # also after a rejection: a person's skips every task after it but teardowns
    assert track.on_failure_fail_dagrun is False
    assert track.upstream_task_ids == {"approve_model"}
    assert track.downstream_task_ids == set()


def test_only_a_skipped_champion_may_be_missing_from_the_evaluation(dag: Any) -> None:
    rules = {task.task_id: task.trigger_rule.value for task in dag.tasks}
    assert rules.pop("evaluation.evaluate_model") == "none_failed"
    for teardown in ("candidate.delete_candidate", "track_run"):
        rules.pop(teardown)
    assert set(rules.values()) == {"all_success"}


def test_long_waits_are_deferred_and_paid_work_is_pooled(dag: Any) -> None:
    for task_id in ("train_model", "evaluation.transform_test_images", "candidate.start_candidate", "deploy_endpoint"):
        assert dag.get_task(task_id).deferrable is True
    pooled = {task.task_id for task in dag.tasks if task.pool == "sagemaker_training"}
    assert pooled == {"train_model", "evaluation.transform_test_images", "evaluation.transform_champion"}


def test_it_runs_weekly_or_on_drift_or_labels_one_at_a_time_and_never_starts_itself(dag: Any) -> None:
    assert type(dag.timetable).__name__ == "AssetOrTimeSchedule"
    starts = {asset.name for asset in dag.timetable.asset_condition.objects}
    assert starts == {"scones_drift", "scones_labels"}
    assert starts.isdisjoint(outlet.name for task in dag.tasks for outlet in task.outlets)
    assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_every_param_of_the_form_is_used(dag: Any) -> None:
    wings = Path(dag.fileloc).parents[1] / "plugins" / "scones"
    flow = "".join(path.read_text() for path in [Path(dag.fileloc), *wings.glob("*/tasks.py")])
    flow += str(dag.get_task("train_model").hyperparameters)
    for name in dag.params:
        used = f'params["{name}"]' in flow or f"params.{name}" in flow or f'"{name}"' in flow
        assert used, f"the param {name} is in the form and nothing reads it"
