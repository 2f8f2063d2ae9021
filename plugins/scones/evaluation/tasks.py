"""The tasks that measure a model and decide on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from scones.evaluation.links import mlflow_task
from scones.jobs.links import evaluation_task

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from scones.evaluation.data import Decision, Evaluation, Registration
    from scones.training.data import Candidate, Champion, StagedDataset, TrainingResult


@task(multiple_outputs=False, task_id="choose_champion")
def choose_champion(model: Candidate, dataset: StagedDataset) -> Champion:
    """Return the champion, or skip its transform when there is none to compare with."""
    from scones.evaluation.evaluate import comparable

    champion = model["champion"]
    if champion is None:
        raise AirflowSkipException("There is no other model live to compare with")
    if not comparable(champion, dataset["classes"]):
        raise AirflowSkipException(f"The live model knows other classes: {', '.join(champion['classes']) or 'unknown'}")
    return champion


@evaluation_task(task_id="evaluate_model", trigger_rule="none_failed")
def evaluate_model(model: Candidate, dataset: StagedDataset, answers: Any) -> Evaluation:
    """Measure the model on the test images, and the champion on the same ones."""
    from scones.evaluation.evaluate import evaluate_model as evaluate
    from scones.evaluation.store import EvaluationStore

    return evaluate(EvaluationStore(dataset["bucket"]), dataset["dataset_version"], model)


@task.branch(task_id="check_quality")
def check_quality(evaluation: Evaluation, params: Any = None, ti: Any = None) -> str:
    """Go on to the registry, or refuse."""
    from scones.evaluation.gate import Rules, decide

    rules = Rules(
        min_accuracy=params["minimum_accuracy"],
        max_drop=params["champion_tolerance"],
        replace_classes=params["replace_classes"],
        person_decides=params["require_approval"],
    )
    decision = decide(evaluation, evaluation["champion"], rules)
    log.info("%s", decision["summary"])
    ti.xcom_push(key="decision", value=decision)
    return "register_model" if decision["passed"] else "refuse_model"


@task(multiple_outputs=False, task_id="register_model")
def register_model(
    dataset: StagedDataset,
    training: TrainingResult,
    evaluation: Evaluation,
    decision: Decision,
    params: Any = None,
    dag: Any = None,
    run_id: Any = None,
) -> Registration:
    """Register the model with metrics and lineage."""
    from scones.evaluation.verdict import Approval, Work, register

    return register(
        Work(dataset, training, evaluation, dag.dag_id, run_id),
        Approval(wanted=params["require_approval"], always=decision["needs_person"]),
    )


@task(task_id="refuse_model", retries=0)
def refuse_model(evaluation: Evaluation, decision: Decision, resources: Mapping[str, str], run_id: Any = None) -> None:
    """Record and announce the refusal, then fail the run: it was asked to deploy and did not."""
    from scones.aws.alerts import publish_alert
    from scones.evaluation.store import EvaluationStore
    from scones.evaluation.verdict import record_refusal

    document, uri = record_refusal(EvaluationStore(resources["BucketName"]), evaluation, decision["reasons"], run_id)
    job = evaluation["training_job_name"]
    publish_alert("model_refused", f"Model {job} was refused", document, topic_arn=resources["AlertTopicArn"])
    raise AirflowFailException(
        f"The quality gate refused {job}: {'; '.join(decision['reasons'])}. The live endpoint was not touched. "
        f"Record: {uri}"
    )


@mlflow_task(task_id="track_run", retries=1, execution_timeout=timedelta(minutes=5))
def track_run(dag: Any = None, run_id: Any = None, ti: Any = None) -> str:
    """Tell MLflow of the training and what was decided on it, if there is a connection to one.

    A teardown: it comes whatever was decided, and its failure fails no run.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException

    from scones.evaluation.aws import send_to_mlflow

    dataset, training, evaluation, registration = (
        ti.xcom_pull(task_ids=name)
        for name in ("stage_images", "train_model", "evaluation.evaluate_model", "register_model")
    )
    if not training:
        raise AirflowSkipException("Nothing was trained")
    decision = ti.xcom_pull(task_ids="check_quality", key="decision")
    try:
        return send_to_mlflow((dataset, training), (evaluation, decision, registration), dag.dag_id, run_id)
    except AirflowNotFoundException as error:
        raise AirflowSkipException("There is no connection mlflow_default: nobody tracks this run") from error


@task(multiple_outputs=False, task_id="publish_threshold")
def publish_threshold(evaluation: Evaluation, resources: Mapping[str, str], params: Any = None) -> dict[str, Any]:
    """Put the recommended threshold into force, if the run is to do so and one could be proven."""
    from dataclasses import asdict

    from scones.evaluation.evaluate import publish_threshold as publish
    from scones.evaluation.store import EvaluationStore
    from scones.evaluation.threshold import Why

    recommended = evaluation["recommended_threshold"]
    if not params["adopt_threshold"] or recommended is None:
        raise AirflowSkipException(f"The threshold in force stays; the evaluation recommends {recommended}")
    job = evaluation["training_job_name"]
    why = Why("train_and_deploy", f"Recommended by the evaluation of {job}", job)
    return asdict(publish(EvaluationStore(resources["BucketName"]), recommended, why))
