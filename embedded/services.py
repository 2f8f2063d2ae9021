"""The processes of the platform, in the order in which they start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from embedded import environment
from embedded.container import deploy_command
from embedded.processes import Service, ServiceError, http_ok
from embedded.run_folder import put_damaged_aside
from embedded.settings import LOOPBACK, PROJECT_ROOT, EmbeddedSettings
from embedded.whole_file import replace_text

AIRFLOW = Path(sys.executable).with_name("airflow")
# The log servers of 3.3.2 listen on every interface, and no setting changes that. Here all logs are in one folder, and
# the API server reads them there.
AIRFLOW_COMPONENTS = {
    "api-server": [sys.executable, "-P", str(PROJECT_ROOT / "embedded" / "airflow_api_server.py")],
    "scheduler": [sys.executable, "-P", str(PROJECT_ROOT / "embedded" / "airflow_scheduler.py"), "--skip-serve-logs"],
    "dag-processor": [str(AIRFLOW), "dag-processor"],
    "triggerer": [str(AIRFLOW), "triggerer", "--skip-serve-logs"],
}


def ministack(settings: EmbeddedSettings) -> Service:
    """S3, Lambda, Step Functions and the other AWS APIs that MiniStack has."""
    return Service(
        name="ministack",
        command=[sys.executable, "-m", "embedded.ministack_launcher"],
        environment=environment.ministack_environment(settings),
        log=settings.logs_dir / "ministack.log",
        ready=lambda: http_ok(f"{settings.aws_url}/_ministack/health"),
        cwd=PROJECT_ROOT,
    )


def sagemaker_local(settings: EmbeddedSettings) -> Service:
    """SageMaker and SageMaker Runtime."""
    data_dir = settings.run_dir / "sagemaker"
    arguments = ["--host", LOOPBACK, "--port", str(settings.sagemaker_port), "--data-dir", str(data_dir)]
    return Service(
        name="sagemaker_local",
        command=[sys.executable, "-m", "sagemaker_local", *arguments],
        environment=environment.platform_environment(settings),
        log=settings.logs_dir / "sagemaker_local.log",
        ready=lambda: http_ok(f"{settings.sagemaker_url}/health"),
        cwd=PROJECT_ROOT,
    )


def deploy(settings: EmbeddedSettings) -> None:
    """Deploy the CloudFormation stack with the same command as on AWS; deployed again, it changes nothing.

    Raises:
        ServiceError: the deployment failed; the message holds its output.
    """
    _run_to_end(
        f"Deploying the stack {settings.stack_name!r}",
        deploy_command(settings.stack_name),
        environment.platform_environment(settings),
        settings.logs_dir / "deploy.log",
    )


def _run_to_end(what: str, command: list[str], environ: dict[str, str], log: Path) -> None:
    done = subprocess.run(
        command,
        env=environ,
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    with log.open("a") as kept:
        kept.write(done.stdout)
    if done.returncode:
        raise ServiceError(f"{what} failed:\n{done.stdout[-4000:]}")


def put_damaged_databases_aside(settings: EmbeddedSettings) -> list[str]:
    """Let the platform start again where a database is damaged; return a sentence about each."""
    lost = {
        settings.airflow_home / "airflow.db": "the history of runs",
        settings.run_dir / "sagemaker" / "state.sqlite": "the jobs, models and endpoints (their files are in S3)",
    }
    return [
        f"{database} was damaged: it is kept as {aside.name}, with {what} up to now, and a new one is made. To have it"
        " back, `make down`, mend that file with SQLite's tools (`.recover`) and give it its old name"
        for database, what in lost.items()
        if (aside := put_damaged_aside(database))
    ]


def migrate(settings: EmbeddedSettings) -> None:
    """Make or upgrade Airflow's metadata database, once per Airflow version.

    Raises:
        ServiceError: the migration failed.
    """
    from importlib.metadata import version

    database = settings.airflow_home / "airflow.db"
    done = settings.airflow_home / f".migrated-{version('apache-airflow')}"
    if done.exists() and database.exists() and database.stat().st_size:
        return
    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    _run_to_end(
        "Migrating Airflow's database",
        [str(AIRFLOW), "db", "migrate"],
        environment.airflow_environment(settings),
        settings.logs_dir / "migrate.log",
    )
    done.touch()


def write_passwords(settings: EmbeddedSettings) -> None:
    """Write the login the simple auth manager checks; it is rewritten so that a changed setting takes effect."""
    path = settings.airflow_home / "passwords.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps({settings.user: settings.password}), mode=0o600)


def airflow(settings: EmbeddedSettings) -> list[Service]:
    """API server, scheduler, DAG processor and triggerer, as four processes of their own."""

    def api_server_is_ready() -> bool:
        # The API that tasks speak is only built when it is first asked, and the server answers nothing meanwhile.
        paths = ("/api/v2/monitor/health", "/execution/health")
        return all(http_ok(settings.airflow_url + path, timeout_s=60) for path in paths)

    return [
        Service(
            name=f"airflow-{component}",
            command=command,
            environment=environment.airflow_environment(settings),
            log=settings.logs_dir / f"airflow-{component}.log",
            ready=api_server_is_ready if component == "api-server" else (lambda: True),
            cwd=settings.airflow_home,
        )
        for component, command in AIRFLOW_COMPONENTS.items()
    ]


def pools() -> dict[str, tuple[int, str]]:
    """The Airflow pools the DAGs ask for: name, slots and description, from the DAGs' own defaults."""
    source = PROJECT_ROOT / "plugins" / "scones" / "pools.json"
    return {name: (item["slots"], item["description"]) for name, item in json.loads(source.read_text()).items()}
