"""
### Train the courier model and put it into service

Stages CIFAR-100, trains SageMaker's image-classification algorithm, measures the model on images it never saw, and, if
it is good enough, registers it and deploys it to the endpoint. Runs every Monday at 04:00 UTC, when drift or enough new
labels are reported (the log of `resolve_resources` says which), or by hand.

**Writes** `datasets/`, `training/`, `evaluations/`, `reports/` in the stack's bucket; a SageMaker model, a version in
the model package group `scones-courier`, an endpoint config, the endpoint. The run is a trial of the SageMaker
experiment `scones-courier`, which holds its jobs, so that runs can be compared there too.

**Params**: the form describes each with its limits. The defaults train bicycles against motorcycles; a run that nobody
started by hand trains the classes that are live. A model of other classes than the live one is refused, as the two
can't be compared, unless `replace_classes` is on or a person allows it (`require_approval`).

**Safe to run again**: yes. Unchanged images are not uploaded again; unchanged data, hyperparameters and image reuse the
earlier job (`force_retrain` trains anyway); a retried task re-attaches to its job; what is deployed is left alone.

| the run ends as | meaning |
|---|---|
| success | the endpoint serves the new model, proven by its answers; red at `track_run`: MLflow was not told |
| failed at `refuse_model` | the gate refused the model: see `refused/<job>.json`; the endpoint is untouched |
| success, skipped after `approve_model` | a person rejected the model |
| failed at `approve_model` | nobody answered in time; the package stays PendingManualApproval |
| failed at `deploy_endpoint`, `verify_endpoint` | the log has SageMaker's reason; the earlier config serves again |

**When it fails**: the last line of the failed task's log says what was wrong and what to do. Clear that task to go on
from there. `rollback_endpoint` goes back to an earlier model. Failures, refusals and lateness go to the alert topic.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, chain, dag, task_group

from scones import defaults
from scones.aws.tasks import resolve_resources
from scones.dataset.tasks import stage_images
from scones.deployment import tasks as serving
from scones.deployment.operator import EndpointDeployOperator
from scones.evaluation import tasks as quality
from scones.evaluation.operator import ModelApprovalOperator, TransformOperator
from scones.monitoring.tasks import ASKS_FOR_TRAINING, write_first_report
from scones.notifications import DAG_DEFAULT_ARGS, late_after, run_failed_notifier
from scones.training.operator import TRAINING_POOL, TrainingOperator
from scones.training.params import HYPERPARAMETERS, TRAINING_FORM
from scones.training.tasks import create_model

FLEET = {
    "instance_type": "{{ params.endpoint_instance_type }}",
    "instance_count": "{{ params.endpoint_instance_count }}",
    "max_capacity": "{{ params.max_capacity }}",
}
ROLLOUT = {
    "strategy": "{{ params.strategy }}",
    "canary_percent": "{{ params.canary_percent }}",
    "bake_time_s": "{{ params.bake_time_s }}",
    "alarms": "{{ (params.alarms or []) | join(',') }}",
}


@dag(
    schedule=AssetOrTimeSchedule(timetable=defaults.at("0 4 * * 1"), assets=ASKS_FOR_TRAINING),
    catchup=False,
    allowed_run_types=defaults.RUN_TYPES,
    max_active_runs=1,
    default_args=DAG_DEFAULT_ARGS,
    params=defaults.params_of(TRAINING_FORM),
    tags=[*defaults.TAGS, "training"],
    doc_md=__doc__,
    on_failure_callback=run_failed_notifier(),
    deadline=late_after("train_and_deploy", hours=4),
)
def train_and_deploy() -> None:
    resources = resolve_resources()
    dataset = stage_images(resources)
    training = TrainingOperator(
        task_id="train_model",
        dataset=dataset,
        stack=resources,
        training_image="{{ params.training_image or '' }}",
        instance_type="{{ params.training_instance_type }}",
        max_runtime_s="{{ params.max_runtime_s }}",
        spot_wait_s="{{ params.spot_wait_s }}",
        input_kind="{{ params.input_kind }}",
        hyperparameters={name: f"{{{{ params.{name} }}}}" for name in HYPERPARAMETERS},
        tuning_jobs="{{ params.tuning_jobs }}",
        force_retrain="{{ params.force_retrain }}",
        pool=TRAINING_POOL,
    ).output
    model = create_model(training, resources)

    @task_group
    def evaluation() -> Any:
        transform = partial(TransformOperator, dataset=dataset, pool=TRAINING_POOL)
        answers = transform(task_id="transform_test_images", model=model).output
        champion = transform(task_id="transform_champion", model=quality.choose_champion(model, dataset))
        evaluated = quality.evaluate_model(model, dataset, answers)
        champion >> evaluated
        return evaluated

    evaluated = evaluation()
    verdict = quality.check_quality(evaluated)
    quality.refuse_model(evaluated, verdict["decision"], resources)
    registered = quality.register_model(dataset, training, evaluated, verdict["decision"])
    approved = ModelApprovalOperator(
        task_id="approve_model",
        registration=registered,
        evaluation=evaluated,
        decision=verdict["decision"],
        training=training,
        timeout_minutes="{{ params.approval_timeout_minutes }}",
        fleet=FLEET,
        subject="Deploy the model of {{ ti.xcom_pull(task_ids='train_model')['job_name'] }}?",
        execution_timeout=None,
    )

    @task_group
    def candidate() -> None:
        started = EndpointDeployOperator(
            task_id="start_candidate",
            endpoint_name=f"{defaults.ENDPOINT}-candidate",
            model=model,
            fleet={"instance_type": FLEET["instance_type"]},
            delete_on_failure=True,
        ).as_setup()
        tested = serving.smoke_test_candidate(started.output, dataset, evaluated)
        tested >> serving.delete_candidate(started.output).as_teardown(setups=started)

    deployed = EndpointDeployOperator(
        task_id="deploy_endpoint",
        endpoint_name=defaults.ENDPOINT,
        model=model,
        fleet=FLEET,
        capture={"uri": f"s3://{defaults.BUCKET}/capture", "percent": "{{ params.capture_percent }}"},
        rollout=ROLLOUT,
    )
    checked = serving.verify_endpoint(deployed.output, dataset, registered, evaluated)
    captured = serving.await_capture(deployed.output, resources, checked)
    chain(registered, approved, candidate(), deployed, checked)
    approved >> quality.track_run().as_teardown()
    checked >> [serving.retire_superseded(deployed.output, resources), quality.publish_threshold(evaluated, resources)]
    captured >> write_first_report(deployed.output, resources)


train_and_deploy()
