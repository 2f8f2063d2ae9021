"""docker compose, for real: built, brought up, used, hurt, taken down. Run by `make compose-test`."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi, AirflowApiError
from embedded.env_file import completed
from embedded.settings import free_port

pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a-password-of-ones-own"

# Ends every process of the container but the init process, as a crash would: `docker kill` counts as asked for.
CRASH = (
    "import os, signal\n"
    "for pid in (int(p) for p in os.listdir('/proc') if p.isdigit()):\n"
    "    if pid not in (1, os.getpid()):\n"
    "        try: os.kill(pid, signal.SIGKILL)\n"
    "        except (ProcessLookupError, PermissionError): pass\n"
)


class Compose:
    """One compose project of the test's own."""

    def __init__(self, folder: Path, data_dir: Path | None) -> None:
        self.project = f"sconestest{uuid.uuid4().hex[:8]}"
        self.ports = {"AIRFLOW": free_port(), "AWS": free_port(), "SAGEMAKER": free_port()}
        self.env_file = folder / ".env"
        lines = [f"SCONES_{name}_PORT={port}" for name, port in self.ports.items()]
        lines += [f"COMPOSE_PROJECT_NAME={self.project}", f"SCONES_ADMIN_PASSWORD={PASSWORD}"]
        if data_dir:
            lines += [f"SCONES_DATA_DIR={data_dir}", "CIFAR100_ARCHIVE=/data/cifar-100-python.tar.gz"]
        self.env_file.write_text(completed("\n".join(lines)))
        self.airflow = AirflowApi(f"http://127.0.0.1:{self.ports['AIRFLOW']}", "admin", PASSWORD)

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 1800) -> str:
        command = ["docker", "compose", "--project-name", self.project, "--env-file", str(self.env_file), *arguments]
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "BASE_IMAGE", "DOCKER_HOST") if key in os.environ}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=kept, timeout=timeout, check=False)
        if check and done.returncode:
            logs = subprocess.run(
                [*command[:6], "logs", "--tail", "40"], cwd=ROOT, capture_output=True, text=True, env=kept, check=False
            )
            raise AssertionError(f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}\n{logs.stdout[-15000:]}")
        return done.stdout

    def s3(self) -> Any:
        session = boto3.Session("test", "test", region_name="us-east-1")
        return session.client("s3", endpoint_url=f"http://127.0.0.1:{self.ports['AWS']}")

    def crash(self, service: str, index: int = 1) -> None:
        self("exec", "-T", "--index", str(index), service, "python", "-c", CRASH, check=False)

    def run_dag(
        self, dag_id: str, conf: dict[str, Any] | None = None, meanwhile: Callable[[], None] | None = None
    ) -> str:
        """Trigger through the REST API, as a user would, and return the run id once it succeeded."""
        run_id = f"test-{uuid.uuid4().hex[:8]}"
        self.airflow.wait_dag(dag_id, 180)
        self.airflow.trigger(dag_id, run_id, conf or {})
        if meanwhile:
            self._until(lambda: any(task["state"] for task in self.airflow.task_instances(dag_id, run_id)))
            meanwhile()
        state = self._until(lambda: self._ended(dag_id, run_id), 900)
        if state != "success":
            tasks = self.airflow.task_instances(dag_id, run_id)
            bad = [task for task in tasks if task["state"] == "failed"]
            logs = [self.airflow.log_tail(dag_id, run_id, task["task_id"], task["try_number"]) for task in bad]
            raise AssertionError(f"{dag_id} ended {state}: {[task['task_id'] for task in bad]}\n{logs}")
        return run_id

    def _ended(self, dag_id: str, run_id: str) -> str | None:
        state = self.airflow.run_state(dag_id, run_id)
        return state if state in TERMINAL_RUN_STATES else None

    def _until(self, condition: Callable[[], Any], timeout_s: float = 180) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                value = condition()
            except (requests.ConnectionError, requests.Timeout, AirflowApiError):
                value = None  # it is being started again
            if value:
                return value
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    folder = Path(os.environ.get("SCONES_SHARED_DATA") or ROOT.parent / "shared" / "data")
    has_archive = (folder / "cifar-100-python.tar.gz").exists()
    project = Compose(tmp_path_factory.mktemp("compose"), folder.resolve() if has_archive else None)
    project("build")
    began = time.monotonic()
    project("up", "--wait", "--wait-timeout", "600", "-d")
    print(f"healthy after {time.monotonic() - began:.0f} s")
    print(
        subprocess.run(
            ["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    )
    yield project
    project("--profile", "celery", "down", "-v", "--timeout", "30", check=False)


def test_the_file_is_valid_in_both_profiles(compose: Compose):
    compose("config", "--quiet")
    compose("--profile", "celery", "config", "--quiet")


def test_only_loopback_listens_and_nobody_is_root(compose: Compose):
    config = compose("config")
    assert "0.0.0.0:" not in config
    assert config.count("host_ip: 127.0.0.1") == 3
    for service in ("airflow-scheduler", "ministack", "sagemaker-local"):
        assert compose("exec", "-T", service, "id", "-u").strip() == "50000"


def test_code_is_mounted_read_only(compose: Compose):
    out = compose("exec", "-T", "airflow-scheduler", "sh", "-c", "touch /opt/scones/dags/x 2>&1 || true")
    assert "Read-only" in out


def test_both_dags_run_and_leave_their_results(compose: Compose):
    compose.run_dag("train_and_deploy")
    run_id = compose.run_dag("batch_inference")
    summary = compose.airflow.xcom("batch_inference", run_id, "summarize_batch")
    assert summary["images"] > 0
    assert summary["classified"] + summary["rejected"] == summary["images"]
    bucket, _, key = summary["summary_uri"].removeprefix("s3://").partition("/")
    assert compose.s3().head_object(Bucket=bucket, Key=key)["ContentLength"] > 0


@pytest.mark.parametrize("service", ["airflow-scheduler", "ministack", "sagemaker-local", "airflow-triggerer"])
def test_a_run_survives_the_crash_of(service: str, compose: Compose):
    dag_id = "batch_inference" if service == "ministack" else "train_and_deploy"
    compose.run_dag(
        dag_id,
        {"force_retrain": True} if dag_id == "train_and_deploy" else {},
        meanwhile=lambda: compose.crash(service),
    )


def test_down_and_up_keep_everything(compose: Compose):
    before = compose.airflow.call("GET", "/dags/train_and_deploy/dagRuns")["total_entries"]
    compose("down", "--timeout", "30")
    compose("up", "--wait", "--wait-timeout", "600", "-d")
    assert compose.airflow.call("GET", "/dags/train_and_deploy/dagRuns")["total_entries"] == before
    # Scored by the endpoint that was deployed before: it came back by itself.
    compose.run_dag("batch_inference")


def test_celery_workers_share_the_tasks_and_one_may_die(compose: Compose):
    compose(
        "--profile",
        "celery",
        "up",
        "--wait",
        "--wait-timeout",
        "600",
        "-d",
        "--scale",
        "airflow-worker=2",
        "--force-recreate",
        "airflow-scheduler",
        "airflow-worker",
        "redis",
        "airflow-triggerer",
    )
    hosts: set[str] = set()
    for attempt in range(3):
        run_id = compose.run_dag(
            "train_and_deploy", {}, meanwhile=(lambda: compose.crash("airflow-worker")) if attempt == 0 else None
        )
        hosts |= {task["hostname"] for task in compose.airflow.task_instances("train_and_deploy", run_id)} - {None, ""}
        if len(hosts) >= 2:
            break
    assert len(hosts) >= 2, f"all tasks ran on {hosts}"


def test_down_with_volumes_leaves_nothing(compose: Compose):
    compose("--profile", "celery", "down", "-v", "--timeout", "30")
    for kind in ("ps --all --quiet", "volume ls --quiet", "network ls --quiet"):
        found = subprocess.run(
            ["docker", *kind.split(), "--filter", f"label=com.docker.compose.project={compose.project}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert found == "", kind
