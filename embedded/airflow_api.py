"""The few calls of Airflow's public REST API (v2) that the one-command run needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import requests

from embedded.processes import Patience

TERMINAL_RUN_STATES = frozenset({"success", "failed"})
COMPONENTS = {
    "scheduler": "latest_scheduler_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
    "dag_processor": "latest_dag_processor_heartbeat",
}
# A busy server is slow, and goes on with what a client gave up: asking again would only add to it.
REQUEST_TIMEOUT_S = 120


class AirflowApiError(RuntimeError):
    """Airflow refused a call; the message holds its answer, `status` its HTTP status where there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A logged-in client. A token that expired, or that a restarted server no longer knows, is renewed once."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        self._session = requests.Session()
        self._session.trust_env = False

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call ``/api/v2`` + path and return the parsed answer.

        Raises:
            AirflowApiError: the answer is not 2xx.
            requests.ConnectionError: no server answers, e.g. while it restarts.
        """
        ask = partial(self._session.request, method, f"{self.url}/api/v2{path}", timeout=REQUEST_TIMEOUT_S, **options)
        answer = ask()
        if answer.status_code in {401, 403}:
            self._authenticate()
            answer = ask()
        if not answer.ok:
            raise AirflowApiError(
                f"{method} {path} answered {answer.status_code}: {answer.text[:500]}", answer.status_code
            )
        return answer.json() if answer.content else None

    def _authenticate(self) -> None:
        answer = self._session.post(f"{self.url}/auth/token", json=self._login, timeout=REQUEST_TIMEOUT_S)
        if not answer.ok:
            raise AirflowApiError(
                f"Login as {self._login['username']!r} was refused ({answer.status_code}): check SCONES_ADMIN_USER and"
                " SCONES_ADMIN_PASSWORD"
            )
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def wait_healthy(self, since: datetime, patience: Patience | None = None) -> None:
        """Wait until every component's heartbeat is newer than ``since``: an old one also counts as healthy.

        Raises:
            AirflowApiError: it is not, and nothing makes progress; the message names the components.
        """
        patience = patience or Patience(lambda: None)
        while True:
            health = self.call("GET", "/monitor/health")
            late = [name for name, beat in COMPONENTS.items() if not _newer(health.get(name, {}).get(beat), since)]
            if not late:
                return
            if not patience.left():
                raise AirflowApiError(f"Not healthy, and nothing makes progress: {', '.join(late)}")
            time.sleep(0.3)

    def wait_dag(self, dag_id: str, timeout_s: float = 600) -> dict[str, Any]:
        """Wait until the DAG is parsed and return it.

        Raises:
            AirflowApiError: its file has an import error, or it is not there in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for problem in self.call("GET", "/importErrors")["import_errors"]:
                if problem["filename"].endswith(f"{dag_id}.py"):
                    raise AirflowApiError(f"{problem['filename']} does not import:\n{problem['stack_trace']}")
            try:
                dag: dict[str, Any] = self.call("GET", f"/dags/{dag_id}")
            except AirflowApiError as error:
                if time.monotonic() > deadline:
                    raise AirflowApiError(f"DAG {dag_id!r} was not parsed after {timeout_s:.0f} s") from error
                time.sleep(0.3)
            else:
                return dag

    def ensure_pools(self, pools: Mapping[str, tuple[int, str]]) -> None:
        """Create the pools that are missing; those that exist keep the size a user gave them."""
        existing = {pool["name"] for pool in self.call("GET", "/pools", params={"limit": 100})["pools"]}
        for name, (slots, description) in pools.items():
            if name not in existing:
                body = {"name": name, "slots": slots, "description": description, "include_deferred": True}
                self.call("POST", "/pools", json=body)

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Start a DAG run, as the trigger form does; the DAG is unpaused first, or the run would stay queued."""
        self.pause(dag_id, False)
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)

    def pause(self, dag_id: str, paused: bool) -> None:
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return them all: a page of Airflow's holds no more than its `maximum_page_limit`, whatever is asked for."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, params={"limit": 1000, "offset": len(found)})
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return what a task returned, or None where it returned nothing."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        try:
            return self.call("GET", path, params={"map_index": map_index, "stringify": False})["value"]
        except AirflowApiError as error:
            if error.status == 404:
                return None
            raise

    def log_tail(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> list[str]:
        """Return the last lines of a task's log as plain text."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/logs/{max(try_number, 1)}"
        answer = self.call("GET", path, params={"map_index": map_index, "full_content": True})
        lines = []
        for entry in answer["content"]:
            if isinstance(entry, str):
                lines.append(entry)
                continue
            text = str(entry.get("event", ""))
            for problem in entry.get("error_detail") or []:
                text += f" | {problem.get('exc_type')}: {problem.get('exc_value')}"
            lines.append(text)
        return lines[-30:]


def _newer(moment: str | None, since: datetime) -> bool:
    return moment is not None and datetime.fromisoformat(moment) > since
