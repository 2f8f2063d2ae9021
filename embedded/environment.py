"""The environment and the AWS clients of every process of the embedded platform, the parent included.

Nothing that the user has set for AWS, Airflow or Python reaches any of them, and no proxy comes before local addresses.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
from typing import Any
from urllib.parse import quote

from embedded.run_folder import secret
from embedded.settings import LOOPBACK, PROJECT_ROOT, EmbeddedSettings

# Every process carries it, so that leftovers of a killed run are found and ended by the next.
MARKER = "SCONES_RUN_MARKER"

_ACCESS_KEY_ID = "test"
_FOREIGN = ("AWS_", "AIRFLOW", "BOTO", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


def enter(settings: EmbeddedSettings) -> None:
    """Give this process itself the environment of the platform."""
    clean = platform_environment(settings)
    os.environ.clear()
    os.environ.update(clean)


def client(settings: EmbeddedSettings, service: str) -> Any:
    """A boto3 client of the platform, in a process that has entered its environment."""
    import boto3

    url = settings.sagemaker_url if service in {"sagemaker", "sagemaker-runtime"} else settings.aws_url
    session = boto3.Session(_ACCESS_KEY_ID, settings.aws_secret_key, region_name=settings.region)
    return session.client(service, endpoint_url=url)


def base_environment(settings: EmbeddedSettings) -> dict[str, str]:
    """The caller's environment without anything of AWS, Airflow or Python that was meant for something else."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(_FOREIGN)}
    # Programs disagree on which spelling wins, so both say the same.
    direct = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    direct += [LOOPBACK, "localhost", settings.host, socket.gethostname()]
    no_proxy = ",".join(dict.fromkeys(part.strip() for one in direct for part in one.split(",") if part.strip()))
    return kept | {
        MARKER: str(settings.run_dir),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_REGION": settings.region,
        "PYTHONUNBUFFERED": "1",
        # Whatever the locale, paths and logs may hold any letter.
        "PYTHONUTF8": "1",
        # Airflow titles its processes; without this the title overwrites the environment that the marker is read from.
        "SPT_NOENV": "1",
    }


def platform_environment(settings: EmbeddedSettings) -> dict[str, str]:
    """For MiniStack, its Lambdas, the SageMaker service and the deployment: botocore's own endpoint variables."""
    return base_environment(settings) | {
        "AWS_ACCESS_KEY_ID": _ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": settings.aws_secret_key,
        # What the two services hold signatures against, if it is nobody else's.
        "SCONES_VERIFIED_SECRET_KEY": settings.verified_secret_key,
        "SAGEMAKER_LOCAL_SECRET_KEY": settings.verified_secret_key,
        "AWS_ENDPOINT_URL": settings.aws_url,
        "AWS_ENDPOINT_URL_SAGEMAKER": settings.sagemaker_url,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": settings.sagemaker_url,
        "AWS_ENDPOINT_URL_SAGEMAKER_METRICS": settings.sagemaker_url,
        "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING": settings.sagemaker_url,
        "PYTHONPATH": str(PROJECT_ROOT),
    }


def shell_lines(settings: EmbeddedSettings) -> list[str]:
    """Shell commands after which the AWS CLI and notebooks speak with the platform: ``eval "$(make -s aws-env)"``."""
    wanted = {
        k: v for k, v in platform_environment(settings).items() if k.startswith("AWS_") or k.lower() == "no_proxy"
    }
    ours = {"SCONES_STACK_NAME": settings.stack_name, "CIFAR100_ARCHIVE": settings.cifar100_archive}
    wanted |= {name: value for name, value in ours.items() if value}
    return [
        "unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN",
        *(f"export {name}={shlex.quote(wanted[name])}" for name in sorted(wanted)),
    ]


def ministack_environment(settings: EmbeddedSettings) -> dict[str, str]:
    state, temporary = settings.run_dir / "ministack", settings.run_dir / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return platform_environment(settings) | {
        "GATEWAY_PORT": str(settings.aws_port),
        "BIND_HOST": LOOPBACK,
        "MINISTACK_HOST": LOOPBACK,
        "MINISTACK_REGION": settings.region,
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "state"),
        "LAMBDA_ACCOUNT_CONCURRENCY": str(settings.lambda_concurrency),
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(temporary),
    }


def aws_connection(settings: EmbeddedSettings) -> str:
    """The Airflow connection that routes every AWS service to this machine; the only thing AWS needs changed."""
    there = {"endpoint_url": settings.sagemaker_url}
    return json.dumps(
        {
            "conn_type": "aws",
            "login": _ACCESS_KEY_ID,
            "password": settings.aws_secret_key,
            "extra": {
                "region_name": settings.region,
                "endpoint_url": settings.aws_url,
                "service_config": dict.fromkeys(("sagemaker", "sagemaker-runtime", "application-autoscaling"), there),
            },
        }
    )


def airflow_environment(settings: EmbeddedSettings) -> dict[str, str]:
    """For every Airflow process. SQLite and LocalExecutor: enough for one machine, see docs/decisions."""
    home = settings.airflow_home
    options = {
        "CORE__DAGS_FOLDER": PROJECT_ROOT / "dags",
        "CORE__PLUGINS_FOLDER": PROJECT_ROOT / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": settings.parallelism,
        "CORE__FERNET_KEY": secret(settings.run_dir, "fernet_key", 32),
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.user}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
        # One who holds the database for long (a backup, a busy disk) is waited for; Airflow's own limit is 5 s.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{quote(str(home / 'airflow.db'))}?timeout=60",
        "API__HOST": settings.host,
        "API__PORT": settings.airflow_port,
        "API__BASE_URL": settings.airflow_url,
        "API__WORKERS": 1,
        "API__SECRET_KEY": secret(settings.run_dir, "api_secret_key"),
        "API_AUTH__JWT_SECRET": secret(settings.run_dir, "jwt_secret"),
        "LOGGING__BASE_LOG_FOLDER": home / "logs",
        # There is no log server to ask for the log of a running task (see services.py), which is no news each time.
        "LOGGING__NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
        # A look for work is dear, so it waits until the database changes (see airflow_scheduler.py); what falls due by
        # the clock alone, a schedule or a retry, waits for this at the most.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 5,
        # Signs of life are such changes too: three within the 30 s after which a process counts as dead.
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 10,
        "TRIGGERER__JOB_HEARTBEAT_SEC": 10,
        "SCHEDULER__ENABLE_HEALTH_CHECK": False,
        # Tasks outlast an API server that is away for five minutes: their calls are tried again for longer than that
        # (75 times, with 1 to 10 s between: 390 s and 22 s of spread), and no heartbeat is missed before.
        "WORKERS__EXECUTION_API_RETRIES": 75,
        "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": 10,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 420,
        # A changed file is seen at the next look into the folder. Without a change it is parsed for its imports alone:
        # doing so every 30 s, as Airflow has it, was most of what an idle platform used.
        "DAG_PROCESSOR__REFRESH_INTERVAL": 30,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 300,
        "DAG_PROCESSOR__PARSING_PROCESSES": 2,
        # How long a process may have ended untold: a deferred task goes on only then (see airflow_scheduler.py).
        "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
    }
    return (
        base_environment(settings)
        | {f"AIRFLOW__{key}": str(value) for key, value in options.items()}
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_AWS_DEFAULT": aws_connection(settings),
            "SCONES_STACK_NAME": settings.stack_name,
            "CIFAR100_ARCHIVE": settings.cifar100_archive,
            "SCONES_CACHE_DIR": str(settings.run_dir / "cache"),
        }
    )
