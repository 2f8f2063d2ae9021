"""The environment each process of the embedded platform gets: nothing of the user's AWS account reaches any of them."""

from __future__ import annotations

import json
import os

from embedded.settings import PROJECT_ROOT, EmbeddedSettings, secret

# Every process carries it, so that leftovers of a killed run are found and ended by the next.
MARKER = "SCONES_RUN_MARKER"

_AWS_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def base_environment(settings: EmbeddedSettings) -> dict[str, str]:
    """The caller's environment without anything of AWS or Airflow that was meant for something else."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "AIRFLOW"))}
    return kept | {
        MARKER: str(settings.run_dir),
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost", settings.host])),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_REGION": settings.region,
        "PYTHONUNBUFFERED": "1",
        # Airflow titles its processes; without this the title overwrites the environment that the marker is read from.
        "SPT_NOENV": "1",
    }


def platform_environment(settings: EmbeddedSettings) -> dict[str, str]:
    """For MiniStack, its Lambdas, the SageMaker service and the deployment: botocore's own endpoint variables."""
    return (
        base_environment(settings)
        | _AWS_CREDENTIALS
        | {
            "AWS_ENDPOINT_URL": settings.aws_url,
            "AWS_ENDPOINT_URL_SAGEMAKER": settings.sagemaker_url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": settings.sagemaker_url,
            "PYTHONPATH": str(PROJECT_ROOT),
        }
    )


def ministack_environment(settings: EmbeddedSettings) -> dict[str, str]:
    state = settings.run_dir / "ministack"
    return platform_environment(settings) | {
        "GATEWAY_PORT": str(settings.aws_port),
        "BIND_HOST": settings.host,
        "MINISTACK_HOST": settings.host,
        "MINISTACK_REGION": settings.region,
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "state"),
        "LAMBDA_ACCOUNT_CONCURRENCY": str(settings.lambda_concurrency),
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(_made(settings.run_dir / "tmp")),
    }


def aws_connection(settings: EmbeddedSettings) -> str:
    """The Airflow connection that routes every AWS service to this machine; the only thing AWS needs changed."""
    sagemaker = {"endpoint_url": settings.sagemaker_url}
    return json.dumps(
        {
            "conn_type": "aws",
            "login": _AWS_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "password": _AWS_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "extra": {
                "region_name": settings.region,
                "endpoint_url": settings.aws_url,
                "service_config": {"sagemaker": sagemaker, "sagemaker-runtime": sagemaker},
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
        "CORE__FERNET_KEY": secret(settings, "fernet_key", 32),
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.user}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "API__HOST": settings.host,
        "API__PORT": settings.airflow_port,
        "API__BASE_URL": settings.airflow_url,
        "API__WORKERS": 1,
        "API__SECRET_KEY": secret(settings, "api_secret_key"),
        "API_AUTH__JWT_SECRET": secret(settings, "jwt_secret"),
        "LOGGING__BASE_LOG_FOLDER": home / "logs",
        "LOGGING__WORKER_LOG_SERVER_HOST": settings.host,
        "LOGGING__WORKER_LOG_SERVER_PORT": settings.worker_log_port,
        "LOGGING__TRIGGER_LOG_SERVER_PORT": settings.triggerer_log_port,
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.5,
        "SCHEDULER__ENABLE_HEALTH_CHECK": False,
        # A task whose process died is tried again after a minute, not after five.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 30,
        "DAG_PROCESSOR__PARSING_PROCESSES": 2,
        # A stale "success" of a deferred task's first half must not outrun its resumption (apache/airflow#71580).
        "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
        "USAGE_DATA_COLLECTION__ENABLED": False,
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


def _made(folder: os.PathLike[str]) -> os.PathLike[str]:
    os.makedirs(folder, exist_ok=True)
    return folder
