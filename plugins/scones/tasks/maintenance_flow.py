"""The tasks of `rollback_endpoint` and `cleanup`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from scones.defaults import MODEL_ASSET
from scones.tasks.training_flow import JsonDict, resolve_resources

__all__ = ["check_rolled_back", "choose_version", "delete_planned", "plan_cleanup", "resolve_resources"]


@task(multiple_outputs=False, task_id="choose_version")
def choose_version(resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Find the approved version to go back to."""
    from scones.tasks.rollback import choose_version as choose

    return choose(resources=resources, version=params["version"] or None)


@task(multiple_outputs=False, task_id="check_rolled_back", outlets=[MODEL_ASSET])
def check_rolled_back(
    deployment: JsonDict,
    chosen: JsonDict,
    resources: Mapping[str, str],
    run_id: Any = None,
    outlet_events: Any = None,
) -> JsonDict:
    """Ask the endpoint about the golden images."""
    from scones.tasks.rollback import check_rolled_back as check

    result = check(deployment=deployment, chosen=chosen, bucket=resources["BucketName"], run_id=run_id)
    outlet_events[MODEL_ASSET].extra = {
        "endpoint_name": deployment["endpoint_name"],
        "model_package_arn": chosen["model_package_arn"],
        "version": chosen["version"],
    }
    return result


@task(multiple_outputs=False, task_id="plan_cleanup")
def plan_cleanup(resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Print the table of what is there, what it costs and what would go."""
    from scones.tasks.cleanup import plan_cleanup as plan

    return plan(
        resources=resources,
        older_than_days=params["older_than_days"],
        objects_older_than_days=params["objects_older_than_days"],
    )


@task(multiple_outputs=False, task_id="delete_planned")
def delete_planned(planned: JsonDict, resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Delete what was planned, unless this is a dry run."""
    from scones.tasks.cleanup import delete_planned as delete

    if params["dry_run"]:
        raise AirflowSkipException(
            f"A dry run: {planned['delete']} items worth {planned['monthly_usd_freed']} USD a month stay. "
            "Run again with dry_run off to delete them."
        )
    return delete(planned, resources=resources)
