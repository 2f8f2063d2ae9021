"""What an MLflow server is sent, from AWS, and where it is: Airflow's connection `mlflow_default`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scones.aws.logs import TRAINING_LOGS, read_log
from scones.aws.resources import client
from scones.evaluation.tracking import Call, Facts, record

if TYPE_CHECKING:
    from scones.evaluation.data import Decision, Evaluation, Registration
    from scones.training.data import StagedDataset, TrainingResult

# An MLflow server that is told of each training run, where there is such a connection (of the type HTTP).
MLFLOW_CONN_ID = "mlflow_default"
_TIMEOUT_S = 30


def connect() -> tuple[Call, str]:
    """Return what sends requests to the MLflow server of the connection, and the server's address.

    Raises:
        AirflowNotFoundException: there is no such connection.
    """
    from airflow.providers.http.hooks.http import HttpHook

    server = HttpHook(http_conn_id=MLFLOW_CONN_ID)
    server.get_conn()  # learns the address

    def call(method: str, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        server.method = method
        sent = {"data": dict(body)} if method == "GET" else {"json": dict(body)}
        answer = server.run(path, extra_options={"timeout": _TIMEOUT_S, "check_response": False}, **sent)
        try:
            document = answer.json()
        except ValueError:
            document = None
        return answer.status_code, document if isinstance(document, dict) else {"message": answer.text}

    return call, server.base_url.rstrip("/")


def send_to_mlflow(
    work: tuple[StagedDataset, TrainingResult],
    verdict: tuple[Evaluation | None, Decision | None, Registration | None],
    dag_id: str,
    run_id: str,
) -> str:
    """Send a run's training job to MLflow; return the address of its run there.

    Raises:
        AirflowNotFoundException: there is no connection `mlflow_default`.
        MlflowError: MLflow refused.
    """
    from airflow.sdk.configuration import conf

    from scones.jobs.links import page_url
    from scones.training.model_package import MODEL_PACKAGE_GROUP
    from scones.training.registry import ModelRegistryHook

    call, server = connect()
    dataset, training = work
    evaluation, decision, registration = verdict
    hook, job = ModelRegistryHook(), training["job_name"]
    arn = registration["model_package_arn"] if registration else ""
    airflow = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    facts = Facts(
        training=training,
        dataset=dataset,
        job=hook.training_job(job) or {},
        evaluation=evaluation,
        decision=decision,
        log=read_log(client("logs"), TRAINING_LOGS, f"{job}/"),
        package=(hook.describe("describe_model_package", ModelPackageName=arn) if arn else None) or {},
        links={
            "Lineage": page_url(f"lineage/{quote(job, safe='')}"),
            "Evaluation": page_url(f"evaluations/{quote(job, safe='')}"),
            "Airflow run": f"{airflow}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}",
        },
    )
    return f"{server}/{record(call, MODEL_PACKAGE_GROUP, facts)}"
