"""
### Put an earlier model back into service

Deploys an earlier **approved** version of the model package group `scones-courier` to the endpoint, with the same
operator and the same checks as `train_and_deploy`. Where the threshold in force was recommended for another model, the
version's own comes into force again. Runs by hand only.

**Params**: `version`, the version number; 0 for the newest approved version before the one that is live.

**Safe to run again**: yes. If the endpoint serves that version already, nothing changes. With version 0 each run goes
one version further back: name the version when you retry.

**When it fails**: the last line of the failed task's log says what was wrong. An unknown or unapproved version fails
before anything is touched and lists the versions there are. If the deployment fails, SageMaker keeps serving what it
served. The next `train_and_deploy` run deploys a new model again: pause that DAG if it should not, and let a running
one end first, as both would deploy to the same endpoint.
"""

from __future__ import annotations

from airflow.sdk import dag

from scones import defaults
from scones.aws.tasks import resolve_resources
from scones.deployment import tasks
from scones.deployment.operator import EndpointDeployOperator
from scones.notifications import DAG_DEFAULT_ARGS, late_after, run_failed_notifier
from scones.training.params import ROLLBACK_FORM


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DAG_DEFAULT_ARGS,
    params=defaults.params_of(ROLLBACK_FORM),
    tags=[*defaults.TAGS, "deployment"],
    doc_md=__doc__,
    on_failure_callback=run_failed_notifier(),
    deadline=late_after("rollback_endpoint", hours=1),
)
def rollback_endpoint() -> None:
    resources = resolve_resources()
    chosen = tasks.choose_version(resources)
    deployed = EndpointDeployOperator(
        task_id="deploy_endpoint",
        endpoint_name=defaults.ENDPOINT,
        model=chosen,
        fleet={
            "instance_type": "{{ params.endpoint_instance_type }}",
            "instance_count": "{{ params.endpoint_instance_count }}",
        },
        capture={"uri": f"s3://{defaults.BUCKET}/capture", "percent": "{{ params.capture_percent }}"},
    ).output
    tasks.check_rolled_back(deployed, chosen, resources)


rollback_endpoint()
