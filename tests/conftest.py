"""Fixtures shared by every kind of test: the platform's services as real processes, and the real data where it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from embedded import environment, services
from embedded.processes import Service, end_leftovers, stop_all
from embedded.settings import EmbeddedSettings, free_port
from sagemaker_local.algorithms.image_classification.threads import limit_threads

ROOT = Path(__file__).resolve().parents[1]


def _clean_environment() -> None:
    """No test sees the user's AWS account, Airflow home or archive."""
    for key in list(os.environ):
        if key.startswith(("AWS_", "AIRFLOW", "CIFAR100_")) or (
            key.startswith("SCONES_") and key != "SCONES_SHARED_DATA"
        ):
            del os.environ[key]
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        NO_PROXY="127.0.0.1,localhost",
    )
    # Airflow reads its home when it is first imported: one per test process, never the user's own.
    import tempfile

    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="scones-airflow-"))


def _parse_botocores_files_once() -> None:
    """Airflow's hooks make a session for each client, hundreds of them in the tests, and each would parse them anew."""
    from botocore.loaders import JSONFileLoader

    parsed = cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda self, path: parsed(path)


_clean_environment()
_parse_botocores_files_once()
# As in the algorithm's container.
limit_threads()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real CIFAR-100 images and real captured data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SCONES_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "cifar-100-python.tar.gz").exists():
        pytest.skip(f"no real data in {folder}: set SCONES_SHARED_DATA to a folder with cifar-100-python.tar.gz")
    return folder


def _beside(environment: str, program: str, what: str) -> str:
    """A program of the environment that belongs to this one, e.g. that of `.venv-3.12` for `.venv-deploy-3.12`."""
    path = ROOT / Path(sys.prefix).name.replace(".venv", environment) / "bin" / program
    if not path.exists():
        pytest.skip(f"{what} is not installed: `make {environment}/.ready` does it")
    return str(path)


@pytest.fixture(scope="session")
def sdk_python() -> str:
    """A Python that has the SageMaker SDK: the deployment's. Airflow's has none, as both cannot live in one."""
    return _beside(".venv-deploy", "python", "the SageMaker SDK")


@pytest.fixture(scope="session")
def jupyter() -> str:
    """The notebook's Jupyter."""
    return _beside(".venv-notebook", "jupyter", "Jupyter")


@pytest.fixture
def free_port_number() -> int:
    """A port on loopback that nobody listens on."""
    return free_port()


@pytest.fixture(scope="session")
def platform_settings(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedSettings:
    """Ports and folders of this test process's own platform."""
    ports = {name: free_port() for name in ("aws_port", "sagemaker_port", "airflow_port")}
    return replace(EmbeddedSettings(), run_dir=tmp_path_factory.mktemp("run"), **ports)  # type: ignore[arg-type]


def _running(service: Service, settings: EmbeddedSettings) -> Iterator[Service]:
    service.start()
    try:
        service.wait_ready()
        yield service
    finally:
        stop_all([service])


@pytest.fixture(scope="session")
def stub_port() -> int:
    """A port for a stand-in of a service, which Lambda functions reach although they run in a box."""
    return free_port()


@pytest.fixture(scope="session")
def ministack_service(platform_settings: EmbeddedSettings, stub_port: int) -> Iterator[Service]:
    service = services.ministack(platform_settings)
    service.environment = {**service.environment, "AWS_ENDPOINT_URL_OF_A_STUB": f"http://127.0.0.1:{stub_port}"}
    yield from _running(service, platform_settings)
    end_leftovers(platform_settings.run_dir)


@pytest.fixture(scope="session")
def ministack(ministack_service: Service, platform_settings: EmbeddedSettings) -> str:
    """URL of a real MiniStack (S3, Lambda, Step Functions, ...), one per test process."""
    return platform_settings.aws_url


@pytest.fixture(scope="session")
def sagemaker_local_service(ministack: str, platform_settings: EmbeddedSettings) -> Iterator[Service]:
    yield from _running(services.sagemaker_local(platform_settings), platform_settings)


@pytest.fixture(scope="session")
def sagemaker_local(sagemaker_local_service: Service, platform_settings: EmbeddedSettings) -> str:
    """URL of a real `sagemaker_local`, one per test process."""
    return platform_settings.sagemaker_url


@pytest.fixture(scope="session")
def aws(platform_settings: EmbeddedSettings) -> Callable[..., Any]:
    """`aws("s3")`: a boto3 client of the test platform. Ask for `ministack` or `sagemaker_local` too, to start them."""
    import boto3
    from botocore.config import Config

    session = boto3.Session("test", "test", region_name=platform_settings.region)

    @cache  # tests ask for the same ones hundreds of times, also while they wait, and each takes a while to make
    def client(service: str, **options: Any) -> Any:
        ours = service in {"sagemaker", "sagemaker-runtime"}
        url = platform_settings.sagemaker_url if ours else platform_settings.aws_url
        options.setdefault("config", Config(retries={"max_attempts": 2, "mode": "standard"}, max_pool_connections=50))
        return session.client(service, endpoint_url=url, **options)

    return client


@pytest.fixture(scope="session")
def stack(ministack: str, platform_settings: EmbeddedSettings, aws: Callable[..., Any]) -> dict[str, str]:
    """Outputs of the project's CloudFormation stack, deployed on the test platform by the project's own command."""
    services.deploy(platform_settings)
    found = aws("cloudformation").describe_stacks(StackName=platform_settings.stack_name)["Stacks"][0]
    return {item["OutputKey"]: item["OutputValue"] for item in found["Outputs"]}


@pytest.fixture
def aws_connection(platform_settings: EmbeddedSettings, monkeypatch: pytest.MonkeyPatch) -> str:
    """Airflow's `aws_default` connection, pointing at the test platform for the length of one test."""
    value = environment.aws_connection(platform_settings)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", value)
    return value
