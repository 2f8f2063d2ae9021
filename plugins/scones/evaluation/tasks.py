"""The tasks that measure a model and decide on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from scones.aws import layout
from scones.jobs.links import evaluation_task

JsonDict = dict[str, Any]


@evaluation_task(task_id="evaluate_model", trigger_rule="none_failed")
def evaluate_model(model: JsonDict, dataset: JsonDict, answers: JsonDict) -> JsonDict:
    """Measure the model on the test images, and the champion on the same ones."""
    from scones.evaluation.evaluate import evaluate_model as evaluate
    from scones.evaluation.evaluate import transform_prefix

    champion = model["champion"]
    return evaluate(
        bucket=dataset["bucket"],
        manifest_key=layout.manifest(dataset["dataset_version"]),
        training_job_name=model["job_name"],
        champion_job_name=champion["job_name"] if champion else None,
        champion_transform_prefix=transform_prefix(champion["job_name"]) if champion else None,
    )


@task.branch(task_id="check_quality")
def check_quality(evaluation: JsonDict, params: Any = None, ti: Any = None) -> str:
    """Go on to the registry, or refuse."""
    from scones.evaluation.evaluate import check_gate

    decision = check_gate(
        evaluation=evaluation, min_accuracy=params["minimum_accuracy"], max_drop=params["champion_tolerance"]
    )
    ti.xcom_push(key="decision", value=decision)
    return "register_model" if decision["passed"] else "refuse_model"


@task(multiple_outputs=False, task_id="publish_threshold")
def publish_threshold(evaluation: JsonDict, resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Put the recommended threshold into force, if the run is to do so and one could be proven."""
    from scones.evaluation.evaluate import publish_threshold as publish

    recommended = evaluation.get("recommended_threshold")
    if not params["adopt_threshold"] or recommended is None:
        raise AirflowSkipException(f"The threshold in force stays; the evaluation recommends {recommended}")
    return publish(
        bucket=resources["BucketName"],
        threshold=recommended,
        set_by="train_and_deploy",
        reason=f"Recommended by the evaluation of {evaluation['training_job_name']}",
    )
