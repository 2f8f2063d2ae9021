"""The tasks of `train_and_deploy`: each takes what earlier tasks returned, calls one function, and returns its answer.

``multiple_outputs=False``: one XCom per task; Airflow would write one more for each key of a returned dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import PokeReturnValue, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from scones.defaults import DATASET_ASSET, MODEL_ASSET
from scones.page_links import evaluation_task, report_task

JsonDict = dict[str, Any]


@task(multiple_outputs=False, task_id="resolve_resources", execution_timeout=timedelta(minutes=5))
def resolve_resources() -> dict[str, str]:
    """Read the stack's outputs: bucket, roles, endpoint name, topic."""
    from scones.tasks.models import resolve_resources as resolve

    return resolve()


@task(multiple_outputs=False, task_id="stage_images", outlets=[DATASET_ASSET], execution_timeout=timedelta(hours=2))
def stage_images(resources: Mapping[str, str], params: Any = None, outlet_events: Any = None) -> JsonDict:
    """Stage the archive as a versioned dataset in S3."""
    from scones.tasks.staging import stage_images as stage

    dataset = stage(
        bucket=resources["BucketName"],
        classes=params["classes"],
        validation_share=params["validation_share"],
        seed=params["seed"],
        training_input=params["input_kind"],
        mini_batch_size=params["mini_batch_size"],
    )
    outlet_events[DATASET_ASSET].extra = {
        key: dataset[key] for key in ("dataset_version", "manifest_uri", "counts", "classes")
    }
    return dataset


@task(multiple_outputs=False, task_id="create_model")
def create_model(training: JsonDict, resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Create the SageMaker model; find the champion."""
    from scones.tasks.models import create_model as create

    return create(training, resources, list(params["classes"]))


@task(multiple_outputs=False, task_id="choose_champion")
def choose_champion(model: JsonDict) -> JsonDict:
    """Return the champion, or skip its transform when there is none."""
    if model["champion"] is None:
        raise AirflowSkipException("There is no champion to compare with")
    champion: JsonDict = model["champion"]
    return champion


@evaluation_task(task_id="evaluate_model", trigger_rule="none_failed")
def evaluate_model(model: JsonDict, dataset: JsonDict, answers: JsonDict) -> JsonDict:
    """Measure the model on the test images, and the champion on the same ones."""
    from scones.tasks.evaluation import evaluate_model as evaluate
    from scones.tasks.evaluation import transform_prefix

    champion = model["champion"]
    return evaluate(
        bucket=dataset["bucket"],
        manifest_key=f"{dataset['prefix']}/manifest.json",
        training_job_name=model["job_name"],
        champion_job_name=champion["job_name"] if champion else None,
        champion_transform_prefix=transform_prefix(champion["job_name"]) if champion else None,
    )


@task.branch(task_id="check_quality")
def check_quality(evaluation: JsonDict, params: Any = None, ti: Any = None) -> str:
    """Go on to the registry, or refuse."""
    from scones.tasks.evaluation import check_gate

    decision = check_gate(
        evaluation=evaluation, min_accuracy=params["minimum_accuracy"], max_drop=params["champion_tolerance"]
    )
    ti.xcom_push(key="decision", value=decision)
    return "register_model" if decision["passed"] else "refuse_model"


@task(multiple_outputs=False, task_id="register_model")
def register_model(
    model: JsonDict,
    dataset: JsonDict,
    evaluation: JsonDict,
    training: JsonDict,
    params: Any = None,
    dag: Any = None,
    run_id: Any = None,
) -> JsonDict:
    """Register the model with metrics and lineage."""
    from scones.tasks.models import register_model as register

    return register(
        model=model,
        dataset=dataset,
        evaluation=evaluation,
        training=training,
        require_approval=params["require_approval"],
        dag_id=dag.dag_id,
        run_id=run_id,
    )


@task(multiple_outputs=False, task_id="smoke_test_candidate")
def smoke_test_candidate(candidate: JsonDict, dataset: JsonDict, transform: JsonDict, run_id: Any = None) -> JsonDict:
    """Ask the candidate about the golden images before the live endpoint is touched."""
    from scones.tasks.deployment import smoke_test

    return smoke_test(
        endpoint_name=candidate["endpoint_name"], dataset=dataset, transform_uri=transform["output_uri"], run_id=run_id
    )


@task(task_id="delete_candidate")
def delete_candidate(candidate: JsonDict) -> None:
    """Delete the candidate endpoint and its config."""
    from scones.hooks.sagemaker import SageMakerResourcesHook

    hook = SageMakerResourcesHook()
    hook.delete("delete_endpoint", EndpointName=candidate["endpoint_name"])
    if candidate["endpoint_config_name"] not in hook.configs_in_use(besides=candidate["endpoint_name"]):
        hook.delete("delete_endpoint_config", EndpointConfigName=candidate["endpoint_config_name"])


@task(multiple_outputs=False, task_id="verify_endpoint", outlets=[MODEL_ASSET])
def verify_endpoint(
    deployment: JsonDict,
    dataset: JsonDict,
    transform: JsonDict,
    registration: JsonDict,
    evaluation: JsonDict,
    run_id: Any = None,
    outlet_events: Any = None,
) -> JsonDict:
    """Compare the live endpoint's answers with the evaluated model's; roll back when they differ."""
    from scones.tasks.deployment import verify_endpoint as verify

    result = verify(deployment, dataset=dataset, transform_uri=transform["output_uri"], run_id=run_id)
    outlet_events[MODEL_ASSET].extra = {
        "endpoint_name": deployment["endpoint_name"],
        "model_package_arn": registration["model_package_arn"],
        "version": registration["version"],
        "test_accuracy": evaluation.get("test_accuracy"),
        "dataset_version": dataset["dataset_version"],
    }
    return result


@task(multiple_outputs=False, task_id="publish_threshold")
def publish_threshold(evaluation: JsonDict, resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Put the recommended threshold into force, if the run is to do so and one could be proven."""
    from scones.tasks.evaluation import publish_threshold as publish

    recommended = evaluation.get("recommended_threshold")
    if not params["adopt_threshold"] or recommended is None:
        raise AirflowSkipException(f"The threshold in force stays; the evaluation recommends {recommended}")
    return publish(
        bucket=resources["BucketName"],
        threshold=recommended,
        set_by="train_and_deploy",
        reason=f"Recommended by the evaluation of {evaluation['training_job_name']}",
    )


@task(multiple_outputs=False, task_id="retire_superseded")
def retire_superseded(deployment: JsonDict) -> dict[str, list[str]]:
    """Delete the replaced endpoint config and model, if nothing uses them."""
    from scones.tasks.deployment import retire_superseded as retire

    return retire(deployment)


@task.sensor(
    task_id="await_capture",
    poke_interval=2,
    exponential_backoff=True,
    max_wait=timedelta(seconds=30),
    timeout=900,
    mode="poke",
)
def await_capture(
    deployment: JsonDict, resources: Mapping[str, str], check: JsonDict, params: Any = None
) -> PokeReturnValue:
    """Wait until the capture holds the golden requests (seconds here, minutes on AWS)."""
    from scones.tasks.deployment import capture_is_complete

    return PokeReturnValue(
        is_done=capture_is_complete(
            resources["BucketName"], deployment["endpoint_name"], check, params["capture_percent"]
        )
    )


@report_task(task_id="write_report")
def write_report(deployment: JsonDict, resources: Mapping[str, str], run_id: Any = None) -> JsonDict:
    """Write the monitoring report over what the endpoint has captured."""
    from scones.tasks.monitoring import write_report as write

    return write(resources, deployment["endpoint_name"], run_id, dag_id="train_and_deploy")


@task(task_id="refuse_model", retries=0)
def refuse_model(
    model: JsonDict, evaluation: JsonDict, decision: JsonDict, resources: Mapping[str, str], run_id: Any = None
) -> None:
    """Record and announce the refusal, then fail the run: it was asked to deploy and did not."""
    from scones.tasks.models import record_refusal

    record = record_refusal(
        model=model, evaluation=evaluation, reasons=decision["reasons"], resources=resources, run_id=run_id
    )
    raise AirflowFailException(
        f"The quality gate refused {record['job_name']}: {'; '.join(record['reasons'])}. The live endpoint was not "
        f"touched. Record: {record['record_uri']}"
    )
