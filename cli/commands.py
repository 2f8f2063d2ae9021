"""What each command runs: a DAG, or the part of it that leads to some tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        help: what it does, in a line.
        dag_id: the DAG, and the name of its file.
        goal: the task it is for; skipped, the answer is no (the gate refused the model, a person rejected it).
        tasks: run these and all before them; empty: the whole DAG.
    """

    help: str
    dag_id: str
    goal: str
    tasks: tuple[str, ...] = ()


COMMANDS = {
    "stage": Command(
        "read CIFAR-100, check it, put the images of the classes into S3",
        "train_and_deploy",
        "stage_images",
        tasks=("stage_images",),
    ),
    "train": Command(
        "stage, train, evaluate, hold the model against the quality gate, register it",
        "train_and_deploy",
        "register_model",
        tasks=("register_model", "refuse_model"),
    ),
    "deploy": Command(
        "all of train, then deploy the model and prove that it answers; what is done already is not done again",
        "train_and_deploy",
        "verify_endpoint",
    ),
    "batch": Command("score images by the inference workflow", "batch_inference", "summarize_batch"),
    # Without report_drift: the retraining it asks for is a message to a scheduler, and there is none to hear it.
    "report": Command(
        "report on what the endpoint captured since the last report",
        "monitor_endpoint",
        "write_report",
        tasks=("publish_metrics", "send_alarm"),
    ),
    "cleanup": Command(
        "show what costs money and serves nobody, or delete it (--no-dry-run)", "cleanup", "plan_cleanup"
    ),
}
SUCCESS, FAILED, WRONG_USAGE, NOTHING_THERE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130
EXIT_CODES = {
    SUCCESS: "success",
    FAILED: "a task failed",
    WRONG_USAGE: "wrong usage: nothing was run",
    NOTHING_THERE: "nothing to run on: no platform is up and no connection is set",
    REFUSED: "refused: the run ended, without what the command is for (the gate or a person said no)",
    INTERRUPTED: "interrupted",
}


def exit_code(goal: str, state: str, tasks: Mapping[str, str]) -> int:
    """Return what the run amounts to.

    Args:
        goal: the command's.
        state: of the DAG run.
        tasks: task id -> state.
    """
    if tasks.get(goal) == "skipped":
        return REFUSED
    return SUCCESS if state == "success" else FAILED
