"""The main job with one command: train, deploy, score a batch, report; all of it as real DAG runs."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embedded import control, run_folder, summary
from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi, AirflowApiError
from embedded.environment import client
from embedded.settings import PORT_FIELDS, EmbeddedSettings
from embedded.whole_file import replace_text

POLL_SECONDS = 1.0
UNREACHABLE_AFTER_S = 600
STYLES = {"success": "green", "failed": "red", "upstream_failed": "red", "skipped": "yellow", "running": "cyan"}
ENDED = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})


class RunFailedError(RuntimeError):
    """A DAG run ended failed; the message names the tasks and holds the end of their logs."""


class OneCommandRun:
    """Runs the DAGs one after another on the embedded platform and collects what they returned."""

    def __init__(self, settings: EmbeddedSettings, console: Console, owned: bool) -> None:
        self.settings = settings
        self.owned = owned
        self.console = console
        self.stages: list[summary.Stage] = []
        self.began = time.monotonic()
        self._api = AirflowApi(settings.airflow_url, settings.user, settings.password)

    def run(self) -> dict[str, Any]:
        """Return the summary.

        Raises:
            RunFailedError: one of the DAG runs failed.
        """
        since = datetime.now(UTC).isoformat(timespec="seconds")
        train = self._dag_run("train_and_deploy", {})
        batch = self._dag_run("batch_inference", {})
        # On this window, not on what is new: with the full hour the scheduled run may have reported on that already.
        monitor = self._dag_run("monitor_endpoint", {"since": since})
        addresses = {
            "airflow": self.settings.airflow_url,
            "report_html": self._fetch(monitor.get("write_report", {}).get("html_uri"), "report.html"),
            "batch_html": self._fetch(batch.get("summarize_batch", {}).get("report_uri"), "batch.html"),
            "evaluation_html": self._fetch(train.get("evaluate_model", {}).get("report_uri"), "evaluation.html"),
        }
        return summary.document(train, batch, monitor, addresses, time.monotonic() - self.began)

    def _dag_run(self, dag_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
        run_id = f"make-run-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        self.console.print(f"[bold]{dag_id}[/bold]  run {run_id}")
        was_paused = self._patiently(lambda: self._api.wait_dag(dag_id))["is_paused"]
        try:
            return self._watched_run(dag_id, run_id, conf)
        finally:
            # As it was before: a schedule that nobody asked for does not begin with this run.
            if was_paused:
                with contextlib.suppress(requests.RequestException, AirflowApiError):
                    self._api.pause(dag_id, True)

    def _watched_run(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
        self._patiently(lambda: self._trigger_once(dag_id, run_id, conf))
        seen: set[tuple[str, int]] = set()
        at_work = True
        while True:
            # An answer costs the server more than anything else it does: no run ends before its tasks.
            state = None if at_work else self._patiently(lambda: self._api.run_state(dag_id, run_id))
            instances = self._patiently(lambda: self._api.task_instances(dag_id, run_id))
            self._print_finished(dag_id, run_id, instances, seen)
            if state in TERMINAL_RUN_STATES:
                break
            at_work = any(item["state"] not in ENDED for item in instances)
            if at_work or state:
                time.sleep(POLL_SECONDS)
        xcoms = self._xcoms(dag_id, run_id, instances)
        self.stages += summary.stages(dag_id, instances, xcoms)
        if state != "success":
            raise RunFailedError(self._explain(dag_id, run_id, instances))
        return {task_id.rsplit(".", 1)[-1]: value for task_id, value in xcoms.items()}

    def _trigger_once(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        try:
            self._api.trigger(dag_id, run_id, conf)
        except AirflowApiError as error:
            # The first request arrived though its answer was lost: the run exists.
            if error.status != 409:
                raise

    def _print_finished(
        self, dag_id: str, run_id: str, instances: list[dict[str, Any]], seen: set[tuple[str, int]]
    ) -> None:
        ended = [item for item in instances if item["end_date"] and item["state"] in ENDED]
        for item in sorted(ended, key=lambda item: item["end_date"]):
            if (key := (item["task_id"], item["map_index"])) in seen:
                continue
            seen.add(key)
            self.console.print(line(dag_id, item, self._xcoms(dag_id, run_id, [item])))

    def _xcoms(self, dag_id: str, run_id: str, instances: list[dict[str, Any]]) -> dict[str, Any]:
        wanted = {item["task_id"] for item in instances if item["state"] == "success" and item["map_index"] < 0}
        found = {}
        for task_id in wanted:
            value = self._patiently(lambda task_id=task_id: self._api.xcom(dag_id, run_id, task_id))  # type: ignore[misc]
            if isinstance(value, Mapping):
                found[task_id] = dict(value)
        return found

    def _explain(self, dag_id: str, run_id: str, instances: list[dict[str, Any]]) -> str:
        lines = [f"{dag_id} failed (run {run_id})."]
        for item in instances:
            if item["state"] == "failed":
                lines.append(f"Task {item['task_id']}, try {item['try_number']}:")
                lines += [
                    f"    {line}"
                    for line in self._api.log_tail(
                        dag_id, run_id, item["task_id"], item["try_number"], item["map_index"]
                    )
                ]
        return "\n".join(lines)

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Call; where the server is away (it is started again when it dies), wait for it rather than give up."""
        deadline = time.monotonic() + UNREACHABLE_AFTER_S
        while True:
            try:
                return call()
            except (requests.ConnectionError, requests.Timeout):
                if time.monotonic() > deadline:
                    raise RunFailedError(
                        f"Airflow has not answered for {UNREACHABLE_AFTER_S // 60} minutes (logs:"
                        f" {self.settings.logs_dir}). Start the run again: what is done already is not done twice"
                    ) from None
                if reason := run_folder.ended_because(self.settings.run_dir):
                    raise RunFailedError(
                        f"The platform was ended while this run was at work ({reason}). Start the run again: what is"
                        " done already is not done twice"
                    ) from None
                if not run_folder.is_held(self.settings.run_dir):
                    self.console.print("  [yellow]the platform is gone; bringing it up again[/]")
                    again = replace(self.settings, explicit_ports=frozenset(PORT_FIELDS))
                    self.settings, _ = control.start(again, self.owned)
                time.sleep(POLL_SECONDS)

    def _fetch(self, uri: str | None, name: str) -> str | None:
        """Copy an S3 object into the run folder, so that it opens when nothing runs any more; return its path."""
        if not uri:
            return None
        where = urlsplit(uri)
        target = self.settings.run_dir / "reports" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        client(self.settings, "s3").download_file(where.netloc, where.path.lstrip("/"), str(target))
        return str(target)


def line(dag_id: str, instance: Mapping[str, Any], xcoms: summary.XComs) -> Text:
    """One task that has ended, as people watch it: state, name, time, what came of it."""
    row = summary.stages(dag_id, [dict(instance)], xcoms)[0]
    mapped = instance["map_index"]
    label = row.task_id if mapped < 0 else f"{row.task_id}[{mapped}]"
    seconds = "" if row.seconds is None else f"{row.seconds:6.1f} s"
    state = (f"{row.state:<8}", STYLES.get(row.state, ""))
    return Text.assemble("  ", state, f" {label:<34} {seconds:>9}  {row.outcome}")


def show(console: Console, run: OneCommandRun, document: Mapping[str, Any]) -> None:
    """Print the table of stages and the figures a reader looks for."""
    table = Table(title="What happened", title_justify="left", header_style="bold")
    for heading in ("DAG", "Task", "State", "Time", "Outcome"):
        table.add_column(heading, justify="right" if heading == "Time" else "left", overflow="fold")
    last = ""
    for stage in run.stages:
        if last and stage.dag_id != last:
            table.add_section()
        table.add_row(
            "" if stage.dag_id == last else stage.dag_id,
            stage.task_id,
            f"[{STYLES.get(stage.state, 'white')}]{stage.state}[/]",
            "" if stage.seconds is None else f"{stage.seconds:.1f} s",
            stage.outcome,
        )
        last = stage.dag_id
    console.print(table)
    if document["dataset"]["source"] == "sample":
        console.print(
            "[bold yellow]Trained on drawn sample images, not on CIFAR-100:[/] the official archive could not be"
            " fetched. Set CIFAR100_ARCHIVE to a copy of cifar-100-python.tar.gz (a path or a URL) for the real thing."
            "\n"
        )


def write_summary(settings: EmbeddedSettings, document: Mapping[str, Any]) -> Path:
    path = settings.run_dir / "summary.json"
    replace_text(path, json.dumps(document, indent=2) + "\n")
    return path
