"""What each command of the command line runs of its DAG, and which params of the form it takes."""

from __future__ import annotations

import pytest

from cli.commands import COMMANDS
from scones.defaults import OPEN_SECTION
from tests.dags.dag_files import load

TRAIN = {
    "resolve_resources",
    "stage_images",
    "train_model",
    "create_model",
    "evaluation.transform_test_images",
    "evaluation.choose_champion",
    "evaluation.transform_champion",
    "evaluation.evaluate_model",
    "check_quality",
    "refuse_model",
    "register_model",
}
PARTS = {
    "stage": {"resolve_resources", "stage_images"},
    "train": TRAIN,
    "report": {"resolve_resources", "await_capture", "write_report", "publish_metrics", "send_alarm"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_its_part_of_the_dag(name: str) -> None:
    command = COMMANDS[name]
    dag = load(command.dag_id)
    part = dag.partial_subset(command.tasks) if command.tasks else dag
    assert set(part.task_ids) == PARTS.get(name, set(dag.task_ids))
    assert command.goal in part.task_ids


@pytest.mark.parametrize("name", COMMANDS)
def test_its_sections_are_sections_of_the_form(name: str) -> None:
    """Those that the form shows open are among them: no command is without them."""
    command = COMMANDS[name]
    assert set(command.sections) <= {param.schema["section"] for _, param in load(command.dag_id).params.items()}
    assert not command.sections or OPEN_SECTION in command.sections
