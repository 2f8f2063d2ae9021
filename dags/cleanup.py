"""
### Delete what costs money and serves nobody

Lists the project's endpoints, endpoint configs, models, training outputs and captures, says what each costs a month
at list price, and deletes what is old and unused, in the order in which it is possible. Runs by hand only.

**Params**: `dry_run` (on by default: only the table is printed), `older_than_days` for endpoints, configs and models,
`objects_older_than_days` for training outputs and captures, `end_production`: the production endpoint's name, typed
out, to end that too.

**Never deleted**: the production endpoint unless its name was typed, whatever an endpoint or a config uses, artifacts
of registered versions, anything without the project's tag, endpoints that had requests within `older_than_days`.

**Safe to run again**: yes. What is already gone is passed over; what came into use since the table was made is kept.

**When it fails**: the log names the resource and AWS's reason. Run it again; it goes on with what is left.
"""

from __future__ import annotations

from airflow.sdk import dag

from scones import defaults
from scones.aws.tasks import resolve_resources
from scones.deployment import tasks
from scones.deployment.params import CLEANUP_FORM
from scones.notifications import DAG_DEFAULT_ARGS, late_after, run_failed_notifier


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DAG_DEFAULT_ARGS,
    params=defaults.params_of(CLEANUP_FORM),
    tags=[*defaults.TAGS, "maintenance"],
    doc_md=__doc__,
    on_failure_callback=run_failed_notifier(),
    deadline=late_after("cleanup", hours=1),
)
def cleanup() -> None:
    resources = resolve_resources()
    planned = tasks.plan_cleanup(resources)
    tasks.delete_planned(planned, resources)


cleanup()
