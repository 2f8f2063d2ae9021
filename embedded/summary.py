"""What happened in one run: from what the tasks returned to a table and a JSON document. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

XComs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One task of one DAG run, as the table shows it."""

    dag_id: str
    task_id: str
    state: str
    seconds: float | None
    outcome: str


def stages(dag_id: str, task_instances: list[dict[str, Any]], xcoms: XComs) -> list[Stage]:
    """Rows in the order in which the tasks began; mapped tasks share one row."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for instance in sorted(task_instances, key=lambda item: item["start_date"] or "9999"):
        rows.setdefault(instance["task_id"], []).append(instance)
    return [
        Stage(
            dag_id=dag_id,
            task_id=task_id if len(group) == 1 else f"{task_id} x{len(group)}",
            state=_common_state([item["state"] or "none" for item in group]),
            seconds=_span(group),
            outcome=outcome(task_id.rsplit(".", 1)[-1], xcoms.get(task_id)),
        )
        for task_id, group in rows.items()
    ]


def _common_state(states: list[str]) -> str:
    return states[0] if len(set(states)) == 1 else next(state for state in states if state != "success")


def _span(group: list[dict[str, Any]]) -> float | None:
    begun = [datetime.fromisoformat(item["start_date"]) for item in group if item["start_date"]]
    ended = [datetime.fromisoformat(item["end_date"]) for item in group if item["end_date"]]
    return (max(ended) - min(begun)).total_seconds() if begun and ended else None


def outcome(task_id: str, value: Mapping[str, Any] | None) -> str:
    """One line about what a task returned."""
    if not isinstance(value, Mapping):
        return ""
    get = value.get
    lines = {
        "stage_images": lambda: (
            f"{get('counts', {}).get('train')} train, {get('counts', {}).get('validation')} validation,"
            f" {get('counts', {}).get('test')} test images from the {_source(get('source'))}"
        ),
        "train_model": lambda: (
            f"{get('job_name')}: validation accuracy"
            f" {_number(get('metrics', {}).get('validation:accuracy'))}{' (reused)' if get('reused') else ''}"
        ),
        "evaluate_model": lambda: f"test accuracy {_number(get('test_accuracy'))}, log loss {_number(get('log_loss'))}",
        "deploy_endpoint": lambda: f"{get('endpoint_name')} is {get('endpoint_status')}",
        "write_report": lambda: f"{get('captured_records')} captured records, {get('violations')} violations",
        "summarize_batch": lambda: (
            f"{get('images')} images: {get('classified')} classified, {get('rejected')} rejected,"
            f" {get('failed')} failed"
        ),
    }
    return lines[task_id]() if task_id in lines else ""


def _source(source: Mapping[str, Any] | None) -> str:
    kinds = {"official": "official archive", "archive": "given archive", "sample": "drawn sample"}
    return kinds.get((source or {}).get("kind", ""), "unknown source")


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "unknown"


def _picked(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value.get(name) for name in names}


def document(
    train: XComs, batch: XComs, monitor: XComs, addresses: Mapping[str, str | None], seconds: float
) -> dict[str, Any]:
    """The machine-readable summary, written to ``summary.json`` in the run folder."""
    staged, trained = train.get("stage_images", {}), train.get("train_model", {})
    evaluated, deployed = train.get("evaluate_model", {}), train.get("deploy_endpoint", {})
    scored, reported = batch.get("summarize_batch", {}), monitor.get("write_report", {})
    return {
        "seconds": round(seconds, 1),
        "dataset": {
            "version": staged.get("dataset_version"),
            "source": (staged.get("source") or {}).get("kind"),
            "classes": staged.get("classes"),
            **_picked(staged.get("counts", {}), "train", "validation", "test"),
        },
        "training": {
            "job_name": trained.get("job_name"),
            "seconds": trained.get("training_seconds"),
            "validation_accuracy": trained.get("metrics", {}).get("validation:accuracy"),
            "reused": trained.get("reused"),
        },
        "evaluation": _picked(evaluated, "test_accuracy", "log_loss", "images"),
        "endpoint": {"name": deployed.get("endpoint_name"), "status": deployed.get("endpoint_status")},
        "batch": _picked(scored, "batch_id", "images", "classified", "rejected", "failed", "seconds", "accuracy"),
        "report": {
            **_picked(reported, "captured_records", "violations"),
            "html": addresses.get("report_html"),
            "s3": reported.get("html_uri"),
        },
        "addresses": dict(addresses),
    }
