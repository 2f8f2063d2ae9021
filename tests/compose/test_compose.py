"""docker compose, for real: built, brought up, used, hurt, taken down. Run by `make compose-test`.

The tests build on each other, in the order of this file. For work on one of them, name the env file of a project that
is up already in COMPOSE_TEST_ENV_FILE: it is used as it is and left up.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi, AirflowApiError
from embedded.env_file import COMPOSE_SECRETS
from embedded.settings import free_port
from tests.support.chromium import needs_chromium
from tests.support.next_door import ATTACKS, next_door, traces

pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a-password-of-ones-own"
PATIENCE_S = 120  # for one answer

# Ends every process of the container but the init process, as a crash would: `docker kill` counts as asked for.
CRASH = (
    "import os, signal\n"
    "for pid in (int(p) for p in os.listdir('/proc') if p.isdigit()):\n"
    "    if pid not in (1, os.getpid()):\n"
    "        try: os.kill(pid, signal.SIGKILL)\n"
    "        except (ProcessLookupError, PermissionError): pass\n"
)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def inspect(container: str, form: str) -> str:
    return docker("inspect", "--format", form, container).strip()


class Compose:
    """One compose project of the test's own."""

    def __init__(self, env_file: Path) -> None:
        self.env_file = env_file
        values = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line)
        self.project = values["COMPOSE_PROJECT_NAME"]
        self.aws_port = int(values["SCONES_AWS_PORT"])
        self.url = f"http://127.0.0.1:{values['SCONES_AIRFLOW_PORT']}"
        self.sagemaker_port = int(values["SCONES_SAGEMAKER_PORT"])
        self.airflow = AirflowApi(self.url, "admin", values["SCONES_ADMIN_PASSWORD"])

    @classmethod
    def of_its_own(cls, folder: Path, data_dir: Path | None) -> Compose:
        lines = [f"SCONES_{name}_PORT={free_port()}" for name in ("AIRFLOW", "AWS", "SAGEMAKER")]
        lines += [f"COMPOSE_PROJECT_NAME=sconestest{uuid.uuid4().hex[:8]}", f"SCONES_ADMIN_PASSWORD={PASSWORD}"]
        if data_dir:
            lines += [f"SCONES_DATA_DIR={data_dir}", "CIFAR100_ARCHIVE=/data/cifar-100-python.tar.gz"]
        # No secret: compose makes its own, as from a fresh clone.
        (folder / ".env").write_text("\n".join(lines))
        return cls(folder / ".env")

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

    def shell(self) -> dict[str, str]:
        """What the documented line gives to a shell."""
        lines = self("exec", "-T", "ministack", "python", "-m", "embedded.container", "--aws-env")
        words = [shlex.split(line) for line in lines.splitlines()]
        return dict(word[1].split("=", 1) for word in words if word[0] == "export")

    def client(self, service: str) -> Any:
        found = self.shell()
        session = boto3.Session("test", found["AWS_SECRET_ACCESS_KEY"], region_name=found["AWS_REGION"])
        name = "AWS_ENDPOINT_URL_SAGEMAKER" if service == "sagemaker" else "AWS_ENDPOINT_URL"
        return session.client(service, endpoint_url=found[name])

    def up(self, *options: str, profile: tuple[str, ...] = ()) -> float:
        """Bring everything up and return the seconds until all is healthy."""
        began = time.monotonic()
        self(*profile, "up", "-d", "--wait", *options)
        return time.monotonic() - began

    def crash(self, service: str, index: int = 1) -> None:
        """Let a service die as by a crash, and wait until the restart policy has brought it back to health."""
        container = f"{self.project}-{service}-{index}"
        before = int(inspect(container, "{{.RestartCount}}"))
        self("exec", "-T", "--index", str(index), service, "python", "-c", CRASH, check=False)
        self._until(lambda: int(inspect(container, "{{.RestartCount}}")) > before)
        self._until(lambda: inspect(container, "{{.State.Health.Status}}") == "healthy")

    def run_dag(
        self, dag_id: str, conf: dict[str, Any] | None = None, meanwhile: Callable[[], None] | None = None
    ) -> str:
        """Trigger through the REST API, as a user would, and return the run id once it succeeded."""
        run_id = f"test-{uuid.uuid4().hex[:8]}"
        self.airflow.wait_dag(dag_id, 900)
        self.airflow.trigger(dag_id, run_id, conf or {})
        if meanwhile:
            busy = {"running", "deferred"}
            self._until(lambda: any(state in busy for _, state, _ in self._progress(dag_id, run_id)))
            meanwhile()
        state = self._until(lambda: self._ended(dag_id, run_id), 900, lambda: self._progress(dag_id, run_id))
        if state != "success":
            tasks = self.airflow.task_instances(dag_id, run_id)
            bad = [task for task in tasks if task["state"] == "failed"]
            logs = [self.airflow.log_tail(dag_id, run_id, task["task_id"], task["try_number"]) for task in bad]
            raise AssertionError(f"{dag_id} ended {state}: {[task['task_id'] for task in bad]}\n{logs}")
        return run_id

    def _ended(self, dag_id: str, run_id: str) -> str | None:
        state = self.airflow.run_state(dag_id, run_id)
        return state if state in TERMINAL_RUN_STATES else None

    def _progress(self, dag_id: str, run_id: str) -> list[tuple[str, str | None, int]]:
        tasks = self.airflow.task_instances(dag_id, run_id)
        return [(task["task_id"], task["state"], task["try_number"]) for task in tasks]

    def _until(
        self, condition: Callable[[], Any], timeout_s: float = 900, progress: Callable[[], Any] = lambda: None
    ) -> Any:
        """The condition's first true value; fails after `timeout_s` seconds in which `progress` stayed the same."""
        deadline, seen = 0.0, object()
        while True:
            try:
                value, now = condition(), progress()
            except (requests.ConnectionError, requests.Timeout, AirflowApiError):
                value, now = None, seen  # it is being started again
            if value:
                return value
            if now != seen or not deadline:
                deadline, seen = time.monotonic() + timeout_s, now
            assert time.monotonic() < deadline, f"nothing came of it within {timeout_s:.0f} s"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    if env_file := os.environ.get("COMPOSE_TEST_ENV_FILE"):
        yield Compose(Path(env_file))
        return
    folder = Path(os.environ.get("SCONES_SHARED_DATA") or ROOT.parent / "shared" / "data")
    has_archive = (folder / "cifar-100-python.tar.gz").exists()
    project = Compose.of_its_own(tmp_path_factory.mktemp("compose"), folder.resolve() if has_archive else None)
    project("build")
    try:
        seconds = project.up()
        stats = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
        print(f"healthy after {seconds:.0f} s\n{stats}")
        yield project
    finally:
        project("--profile", "celery", "down", "-v", "--timeout", "30", check=False)


def test_the_file_is_valid_in_both_profiles(compose: Compose):
    compose("config", "--quiet")
    compose("--profile", "celery", "config", "--quiet")


def test_only_loopback_listens_and_nobody_is_root(compose: Compose):
    for container in compose("ps", "--quiet").split():
        for binding in json.loads(inspect(container, "{{json .NetworkSettings.Ports}}")).values():
            assert all(one["HostIp"] == "127.0.0.1" for one in binding or []), binding
    for service in ("airflow-scheduler", "airflow-api-server", "ministack", "sagemaker-local"):
        status = compose("exec", "-T", service, "cat", "/proc/1/status")
        assert "Uid:\t50000\t50000\t50000\t50000" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def test_code_is_mounted_read_only(compose: Compose):
    out = compose("exec", "-T", "airflow-scheduler", "sh", "-c", "touch /opt/scones/dags/x 2>&1 || true")
    assert "Read-only" in out


def test_nobody_gets_in_without_the_secret_of_this_installation(compose: Compose):
    for port in (compose.aws_port, compose.sagemaker_port):
        assert requests.post(f"http://127.0.0.1:{port}/", data="Action=ListTopics", timeout=30).status_code == 403
    stranger = boto3.Session("test", "test", region_name="us-east-1")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.client("s3", endpoint_url=f"http://127.0.0.1:{compose.aws_port}").list_buckets()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.client("sagemaker", endpoint_url=f"http://127.0.0.1:{compose.sagemaker_port}").list_endpoints()
    assert compose.client("s3").list_buckets()["Buckets"]
    assert compose.client("sagemaker").list_endpoints()["ResponseMetadata"]["HTTPStatusCode"] == 200


@needs_chromium
def test_a_page_of_anybodys_does_nothing(compose: Compose):
    before = traces(compose.client)
    with next_door() as evil:
        for attack in ATTACKS:
            for port in (compose.aws_port, compose.sagemaker_port):
                attack(evil, f"http://127.0.0.1:{port}")
    assert traces(compose.client) == before


def test_no_secret_stands_in_an_environment(compose: Compose):
    secrets = [compose("exec", "-T", "ministack", "cat", f"/secrets/{name.lower()}") for name in COMPOSE_SECRETS]
    assert all(len(secret) > 20 for secret in secrets)
    for container in compose("ps", "--all", "--quiet").split():
        environment = inspect(container, "{{json .Config.Env}}")
        assert not [secret for secret in secrets if secret in environment]


def test_the_default_password_is_refused_where_others_could_reach_it(compose: Compose):
    settings = ("-e", "SCONES_HOST=0.0.0.0", "-e", "SCONES_ADMIN_PASSWORD=admin")
    with pytest.raises(AssertionError, match="Set a password of your own"):
        compose("run", "--rm", "-T", "--no-deps", *settings, "airflow-init")


def test_both_dags_run_and_leave_their_results(compose: Compose):
    training = compose.run_dag("train_and_deploy")
    endpoints = compose.client("sagemaker").list_endpoints()["Endpoints"]
    assert [endpoint["EndpointStatus"] for endpoint in endpoints] == ["InService"]
    run_id = compose.run_dag("batch_inference")
    summary = compose.airflow.xcom("batch_inference", run_id, "summarize_batch")
    assert summary["images"] > 0
    assert summary["classified"] + summary["rejected"] == summary["images"]
    bucket, _, key = summary["summary_uri"].removeprefix("s3://").partition("/")
    assert compose.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
    # The API server reads the logs of tasks that ran in another container.
    assert compose.airflow.log_tail("train_and_deploy", training, "stage_images", 1)


def test_the_pages_ask_for_airflows_login(compose: Compose):
    assert requests.get(f"{compose.url}/scones/", timeout=PATIENCE_S).status_code == 401
    login = requests.post(
        f"{compose.url}/auth/token",
        json={"username": "admin", "password": compose.airflow._login["password"]},
        timeout=PATIENCE_S,
    )
    header = {"Authorization": f"Bearer {login.json()['access_token']}"}
    page = requests.get(f"{compose.url}/scones/", headers=header, timeout=PATIENCE_S)
    assert page.status_code == 200
    assert "/scones/rejects" in page.text


def test_a_training_run_survives_crashes_of_the_services_under_it(compose: Compose):
    def crashes() -> None:
        for service in ("airflow-scheduler", "sagemaker-local", "airflow-triggerer"):
            compose.crash(service)

    compose.run_dag("train_and_deploy", {"force_retrain": True}, meanwhile=crashes)


def test_a_batch_survives_the_crash_of_ministack(compose: Compose):
    compose.run_dag("batch_inference", meanwhile=lambda: compose.crash("ministack"))


def test_down_and_up_keep_everything_and_celery_workers_share_the_tasks(compose: Compose):
    path = "/dags/train_and_deploy/dagRuns"
    before = compose.airflow.call("GET", path)["total_entries"]
    assert before > 0
    compose("down", "--timeout", "30")
    compose.up("--scale", "airflow-worker=2", profile=("--profile", "celery"))
    assert compose.airflow.call("GET", path)["total_entries"] == before
    endpoints = compose.client("sagemaker").list_endpoints()["Endpoints"]
    assert [endpoint["EndpointStatus"] for endpoint in endpoints] == ["InService"]

    # Scored by the endpoint that was deployed before; one worker dies on the way.
    hosts: set[str] = set()
    run_id = compose.run_dag("batch_inference", meanwhile=lambda: compose.crash("airflow-worker"))
    for _ in range(3):
        hosts |= {task["hostname"] for task in compose.airflow.task_instances("batch_inference", run_id)}
        workers = {container[:12] for container in compose("ps", "--quiet", "airflow-worker").split()}
        if workers <= hosts:
            break
        run_id = compose.run_dag("batch_inference")
    assert workers <= hosts, f"the workers are {workers}, tasks ran on {hosts}"
    assert len(workers) == 2


def test_down_with_volumes_leaves_nothing(compose: Compose):
    compose("--profile", "celery", "down", "-v", "--timeout", "30")
    for kind in ("ps --all --quiet", "volume ls --quiet", "network ls --quiet"):
        assert docker(*kind.split(), "--filter", f"label=com.docker.compose.project={compose.project}") == "", kind
