"""The tasks around a training job: its model, its registration, its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

JsonDict = dict[str, Any]


@task(multiple_outputs=False, task_id="create_model")
def create_model(training: JsonDict, resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Create the SageMaker model; find the champion."""
    from scones.training.models import create_model as create

    return create(training, resources, list(params["classes"]))


@task(multiple_outputs=False, task_id="choose_champion")
def choose_champion(model: JsonDict) -> JsonDict:
    """Return the champion, or skip its transform when there is none."""
    if model["champion"] is None:
        raise AirflowSkipException("There is no champion to compare with")
    champion: JsonDict = model["champion"]
    return champion


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
    from scones.training.models import register_model as register

    return register(
        model=model,
        dataset=dataset,
        evaluation=evaluation,
        training=training,
        require_approval=params["require_approval"],
        dag_id=dag.dag_id,
        run_id=run_id,
    )


@task(task_id="refuse_model", retries=0)
def refuse_model(
    model: JsonDict, evaluation: JsonDict, decision: JsonDict, resources: Mapping[str, str], run_id: Any = None
) -> None:
    """Record and announce the refusal, then fail the run: it was asked to deploy and did not."""
    from scones.training.models import record_refusal

    record = record_refusal(
        model=model, evaluation=evaluation, reasons=decision["reasons"], resources=resources, run_id=run_id
    )
    raise AirflowFailException(
        f"The quality gate refused {record['job_name']}: {'; '.join(record['reasons'])}. The live endpoint was not "
        f"touched. Record: {record['record_uri']}"
    )
