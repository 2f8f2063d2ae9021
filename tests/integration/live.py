"""A running platform as a test handles it: start runs, look at tasks, kill processes, ask SageMaker what happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import psutil
import requests

from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi
from embedded.processes import marked_processes
from embedded.run import ENDED

POLL_S = 0.1


def eventually(what: str, look: Callable[[], Any], timeout_s: float = 120) -> Any:
    """Return the first true answer of ``look``; a service that is away for the moment counts as "not yet"."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            found = look()
            if found:
                return found
        assert time.monotonic() < deadline, f"not after {timeout_s:.0f} s: {what}"
        time.sleep(POLL_S)


@dataclass
class LivePlatform:
    """The platform in ``run_dir``, already up."""

    run_dir: Path

    def __post_init__(self) -> None:
        self.api = AirflowApi(self.state["airflow_url"], "admin", "admin")

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "state.json").read_text())
        return found

    def client(self, service: str) -> Any:
        url = self.state["sagemaker_url" if service.startswith("sagemaker") else "aws_url"]
        return boto3.Session("test", "test", region_name="us-east-1").client(service, endpoint_url=url)

    def stack_output(self, key: str) -> str:
        """Return one output of the stack the platform deployed."""
        outputs = self.client("cloudformation").describe_stacks(StackName="scones")["Stacks"][0]["Outputs"]
        return next(str(output["OutputValue"]) for output in outputs if output["OutputKey"] == key)

    def get(self, address: str) -> requests.Response:
        """Open a page of the web server as a person who is logged in."""
        login = {"username": "admin", "password": "admin"}
        with requests.Session() as session:
            token = session.post(f"{self.state['airflow_url']}/auth/token", json=login, timeout=30).json()
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            return session.get(address, headers=headers, timeout=30, allow_redirects=False)

    # Runs and tasks

    def start(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> str:
        eventually(f"{dag_id} is parsed", lambda: self.api.wait_dag(dag_id))
        self.api.trigger(dag_id, run_id, conf)
        return run_id

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}"
        return dict(self.api.call("GET", path))

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {item["task_id"]: item["state"] for item in self.api.task_instances(dag_id, run_id)}

    def wait_task(
        self, dag_id: str, run_id: str, task_id: str, states: Collection[str], timeout_s: float = 400
    ) -> dict[str, Any]:
        """Wait for one of the states; a task that ends in another fails the test at once."""

        def look() -> dict[str, Any] | None:
            task = self.task(dag_id, run_id, task_id)
            if task["state"] in states:
                return task
            assert task["state"] not in ENDED, f"{task_id} is {task['state']}: {self.failures(dag_id, run_id)}"
            return None

        found: dict[str, Any] = eventually(f"{task_id} is {' or '.join(states)}", look, timeout_s)
        return found

    def wait_run(self, dag_id: str, run_id: str, timeout_s: float = 600) -> str:
        def look() -> str:
            state = self.api.run_state(dag_id, run_id)
            return state if state in TERMINAL_RUN_STATES else ""

        return str(eventually(f"{dag_id} {run_id} ends", look, timeout_s))

    def failures(self, dag_id: str, run_id: str) -> str:
        """Return the end of the log of every failed task."""
        told = []
        for item in self.api.task_instances(dag_id, run_id):
            if item["state"] == "failed":
                tail = self.api.log_tail(dag_id, run_id, item["task_id"], item["try_number"], item["map_index"])
                told.append(f"{item['task_id']}: " + "\n  ".join(tail[-12:]))
        return "\n".join(told)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set a task's state as a user does in the UI."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}"
        self.api.call("PATCH", path, json={"new_state": state})

    # Sudden deaths

    def kill(self, component: str) -> None:
        """Kill -9 a component and wait until its supervisor has started it again."""
        before = eventually(f"{component} runs", lambda: self._pids(component))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(f"{component} is back", lambda: set(self._pids(component)) - set(before))

    def kill_task_process(self, task_instance_id: str) -> None:
        """Kill -9 the process that runs a task's code."""
        title = f"airflow worker -- {task_instance_id}"

        def find() -> list[psutil.Process]:
            # By its title alone, an id that is nobody else's: setting the title overwrites the environment.
            return [process for process in psutil.process_iter() if " ".join(_command(process)).startswith(title)]

        for process in eventually(f"a process runs task instance {task_instance_id}", find, 30):
            process.kill()

    @contextlib.contextmanager
    def suspended_training(self) -> Iterator[None]:
        """Hold the training that is at work, so that it certainly still runs when the test acts."""

        def find() -> list[psutil.Process]:
            words = ["sagemaker_local.algorithms.image_classification", "train"]
            return [process for process in self._processes() if _follows(_command(process), words)]

        held: list[psutil.Process] = eventually("a training runs", find)
        for process in held:
            process.suspend()
        try:
            yield
        finally:
            for process in held:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    def _pids(self, component: str) -> list[int]:
        words = {
            "sagemaker_local": ["-m", "sagemaker_local"],
            "ministack": ["-m", "embedded.ministack_launcher"],
            "scheduler": ["airflow_scheduler.py"],
        }.get(component, ["airflow", component])
        # Each service leads a session of its own: its children and their children are not meant.
        return [
            process.pid
            for process in self._processes()
            if _leads_session(process) and _follows(_command(process), words)
        ]

    def _processes(self) -> list[psutil.Process]:
        return marked_processes(self.run_dir)

    # What SageMaker did

    def training_jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Return the description of every training job that carries this run's tag."""
        sagemaker = self.client("sagemaker")
        pages = sagemaker.get_paginator("list_training_jobs").paginate()
        described = [
            sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"])
            for page in pages
            for job in page["TrainingJobSummaries"]
        ]
        return [job for job in described if self._run_of(sagemaker, job["TrainingJobArn"]) == run_id]

    @staticmethod
    def _run_of(sagemaker: Any, arn: str) -> str:
        tags = sagemaker.list_tags(ResourceArn=arn)["Tags"]
        return next((str(tag["Value"]) for tag in tags if tag["Key"].endswith("run_id")), "")


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _follows(command: list[str], words: list[str]) -> bool:
    """Whether the words stand next to each other in the command; of paths, the last part counts."""
    names = [os.path.basename(part) for part in command]
    return any(names[at : at + len(words)] == words for at in range(len(names)))


def _leads_session(process: psutil.Process) -> bool:
    with contextlib.suppress(OSError):
        return os.getsid(process.pid) == process.pid
    return False
