"""What each command of the command line runs of its DAG, and that the DAG's form makes its options."""

from __future__ import annotations

import pytest

from cli.commands import COMMANDS
from cli.options import Parser, add_form, parse
from tests.support.dag_files import load

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
def test_every_param_of_its_form_is_an_option(name: str) -> None:
    params = dict(load(COMMANDS[name].dag_id).params.items())
    parser = Parser(prog="scones")
    add_form(parser, params)
    given = [f"--{param.replace('_', '-')}" for param in params]
    assert set(given) <= set(parser.format_help().replace(",", " ").split())
    assert parse(parser, [], params) == {}
