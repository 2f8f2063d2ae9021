"""The processes of the platform, in the order in which they start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from embedded import environment
from embedded.processes import Service, ServiceError, http_ok
from embedded.settings import PROJECT_ROOT, EmbeddedSettings

AIRFLOW_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


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
    arguments = ["--host", settings.host, "--port", str(settings.sagemaker_port), "--data-dir", str(data_dir)]
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
    done = subprocess.run(
        [sys.executable, "-m", "infrastructure", "deploy", "--stack-name", settings.stack_name],
        env=environment.platform_environment(settings),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    with (settings.logs_dir / "deploy.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        raise ServiceError(f"Deploying the stack {settings.stack_name!r} failed:\n{done.stdout}{done.stderr}")


def migrate(settings: EmbeddedSettings) -> None:
    """Make or upgrade Airflow's metadata database, once per Airflow version.

    Raises:
        ServiceError: the migration failed.
    """
    from importlib.metadata import version

    done = settings.airflow_home / f".migrated-{version('apache-airflow')}"
    if done.exists():
        return
    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    _airflow(settings, "db", "migrate")
    done.touch()


def write_passwords(settings: EmbeddedSettings) -> None:
    """Write the login the simple auth manager checks; it is rewritten so that a changed setting takes effect."""
    path = settings.airflow_home / "passwords.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({settings.user: settings.password}))


def airflow(settings: EmbeddedSettings) -> list[Service]:
    """API server, scheduler, DAG processor and triggerer, as four processes of their own."""
    executable = Path(sys.executable).with_name("airflow")
    health = f"{settings.airflow_url}/api/v2/monitor/health"
    return [
        Service(
            name=f"airflow-{component}",
            command=[str(executable), component],
            environment=environment.airflow_environment(settings),
            log=settings.logs_dir / f"airflow-{component}.log",
            ready=(lambda: http_ok(health)) if component == "api-server" else (lambda: True),
            cwd=settings.airflow_home,
        )
        for component in AIRFLOW_COMPONENTS
    ]


def _airflow(settings: EmbeddedSettings, *arguments: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), *arguments],
        env=environment.airflow_environment(settings),
        cwd=settings.airflow_home,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceError(f"`airflow {' '.join(arguments)}` failed:\n{(done.stdout + done.stderr)[-4000:]}")


def pools() -> dict[str, tuple[int, str]]:
    """The Airflow pools the DAGs ask for: name, slots and description, from the DAGs' own defaults."""
    source = PROJECT_ROOT / "plugins" / "scones" / "pools.json"
    return {name: (item["slots"], item["description"]) for name, item in json.loads(source.read_text()).items()}
