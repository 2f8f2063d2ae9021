"""A real MLflow server, in an environment of its own, is told of a training run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from embedded.processes import http_ok
from embedded.settings import free_port
from scones.evaluation.aws import connect
from scones.evaluation.tracking import MlflowError, record
from tests.support.mlflow_facts import approved, facts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
UV = Path(sys.executable).with_name("uv")
VERSION = "3.17.2"
START_S = 900


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `mlflow server`; what it is installed into has nothing of Airflow's."""
    folder = tmp_path_factory.mktemp("mlflow")
    python = folder / "venv" / "bin" / "python"
    for arguments in (
        ["venv", str(folder / "venv")],
        ["pip", "install", "--python", str(python), f"mlflow=={VERSION}"],
    ):
        done = subprocess.run([str(UV), *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mlflow {VERSION} can't be had here: {done.stderr.strip()[-300:]}")
    port = free_port()
    command = [str(python.with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not http_ok(f"{url}/health"):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def asked(server: str, path: str, **body: Any) -> Any:
    answer = requests.post(f"{server}/api/2.0/mlflow/{path}", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def test_mlflow_shows_the_run_once_with_its_curve_and_who_approved(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", server)
    call, address = connect()
    assert address == server
    path = record(call, "scones-courier", facts())
    assert record(call, "scones-courier", approved()) == path
    _, _, experiment, _, run_id = path.split("/")
    (run,) = asked(server, "runs/search", experiment_ids=[experiment])["runs"]
    assert (run["info"]["run_id"], run["info"]["run_name"]) == (run_id, "scones-train-1")
    assert (run["info"]["status"], run["info"]["end_time"] - run["info"]["start_time"]) == ("FINISHED", 300_000)
    params = {one["key"]: one["value"] for one in run["data"]["params"]}
    assert (params["epochs"], params["dataset_version"]) == ("3", "ds-1")
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    assert (tags["scones.approved_by"], tags["scones.model_version"]) == ("ann", "4")
    history = {"run_id": run_id, "metric_key": "validation/accuracy"}
    curve = requests.get(f"{server}/api/2.0/mlflow/metrics/get-history", params=history, timeout=60).json()["metrics"]
    assert [(one["step"], one["value"]) for one in curve] == [(0, 0.9), (1, 0.91), (2, 0.92)]


def test_mlflow_refuses_in_words_that_are_quoted(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", server)
    call, _ = connect()
    record(call, "refused", facts())
    training: Any = {**facts().training, "hyperparameters": {"epochs": "4"}}
    with pytest.raises(MlflowError, match="epochs") as refused:
        record(call, "refused", facts(training=training))
    assert refused.value.code == "INVALID_PARAMETER_VALUE"
