"""MLflow is told of a training run over its REST API, once however often it is sent; a stand-in speaks it here, and the
real server in tests/integration/test_mlflow.py."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from scones.evaluation.aws import connect
from scones.evaluation.tracking import MlflowError, record
from tests.support.mlflow_facts import approved, facts

WHO = "ann:of-a-stand-in"
AUTHORISED = "Basic " + base64.b64encode(WHO.encode()).decode()


@dataclass
class Mlflow:
    """As much of MLflow's REST API as is used, in memory."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        operation = path.removeprefix("/api/2.0/mlflow/")
        if operation == "experiments/get-by-name":
            if body["experiment_name"] not in self.experiments:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
            return 200, {"experiment": {"experiment_id": self.experiments[body["experiment_name"]]}}
        if operation == "experiments/create":
            return 200, {"experiment_id": self.experiments.setdefault(body["name"], "7")}
        if operation == "runs/search":
            job = body["filter"].split("'")[1]
            found = [run for run in self.runs.values() if run["tags"].get("scones.training_job") == job]
            return 200, {"runs": [{"info": {"run_id": run["id"]}} for run in found]} if found else {}
        if operation == "runs/create":
            run_id = f"run{len(self.runs)}"
            self.runs[run_id] = {"id": run_id, "name": body["run_name"], "tags": {}, "params": {}, "metrics": set()}
            self._add(self.runs[run_id], body)
            return 200, {"run": {"info": {"run_id": run_id}}}
        self._add(self.runs[body["run_id"]], body)
        return 200, {}

    def _add(self, run: dict[str, Any], body: dict[str, Any]) -> None:
        run["tags"] |= {tag["key"]: tag["value"] for tag in body.get("tags", [])}
        run["params"] |= {param["key"]: param["value"] for param in body.get("params", [])}
        run["metrics"] |= {(one["key"], one["step"], one["value"], one["timestamp"]) for one in body.get("metrics", [])}
        run["status"] = body.get("status", run.get("status"))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    """A stand-in that asks for a password, behind Airflow's connection."""
    there = Mlflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

        def do_POST(self) -> None:
            self._send(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _send(self, body: dict[str, Any]) -> None:
            if self.headers["Authorization"] == AUTHORISED:
                status, answer = there.answer(urlsplit(self.path).path, body)
                content = json.dumps(answer).encode()
            else:
                status, content = 401, b"<h1>You are not authenticated</h1>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f"http://{WHO}@127.0.0.1:{server.server_port}")
    yield there
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_job_is_one_run_and_what_was_decided_later_is_added(mlflow: Mlflow) -> None:
    call, address = connect()
    first = record(call, "scones-courier", facts())
    assert record(call, "scones-courier", approved()) == first == "#/experiments/7/runs/run0"
    assert address.startswith("http://127.0.0.1:")
    (run,) = mlflow.runs.values()
    assert (run["name"], run["status"]) == ("scones-train-1", "FINISHED")
    assert run["params"]["epochs"] == "3"
    assert run["params"]["dataset_version"] == "ds-1"
    tags = run["tags"]
    assert (tags["scones.approved_by"], tags["scones.model_version"], tags["scones.verdict"]) == ("ann", "4", "passed")
    assert "(http://127.0.0.1:8080/scones/lineage/scones-train-1)" in tags["mlflow.note.content"]
    curve = sorted((step, value) for name, step, value, _ in run["metrics"] if name == "validation/accuracy")
    assert curve == [(0, 0.9), (1, 0.91), (2, 0.92)]
    figures = {name: value for name, _, value, _ in run["metrics"]}
    assert (figures["test/accuracy"], figures["test/recall bicycle"]) == (0.94, 0.9)
    assert figures["cost_usd"] == pytest.approx(0.0245, abs=1e-4)
    assert {"train/loss", "test/auc", "test/recommended_threshold"}.isdisjoint(figures)


def test_a_long_training_goes_in_parts(mlflow: Mlflow) -> None:
    call, _ = connect()
    log = [f"Epoch[{n}] Train-accuracy=0.5" for n in range(1000)]
    record(call, "scones-courier", facts(log=log, evaluation=None, decision=None))
    (run,) = mlflow.runs.values()
    assert sum(name == "train/accuracy" for name, *_ in run["metrics"]) == 1000
    assert "scones.verdict" not in run["tags"]


def test_a_refusal_is_quoted(mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import BaseHook

    port = BaseHook.get_connection("mlflow_default").port
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f"http://127.0.0.1:{port}")
    call, _ = connect()
    with pytest.raises(MlflowError, match=r"experiments/get-by-name with 401 .*You are not authenticated"):
        record(call, "scones-courier", facts())
    assert mlflow.runs == {}


def test_without_a_connection_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowNotFoundException

    monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT", raising=False)
    with pytest.raises(AirflowNotFoundException):
        connect()
