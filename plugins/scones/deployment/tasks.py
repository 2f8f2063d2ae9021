"""The tasks around the endpoint: try the candidate, verify, go back, clean up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import PokeReturnValue, task
from airflow.sdk.exceptions import AirflowSkipException

from scones.defaults import MODEL_ASSET

JsonDict = dict[str, Any]


@task(multiple_outputs=False, task_id="smoke_test_candidate")
def smoke_test_candidate(candidate: JsonDict, dataset: JsonDict, transform: JsonDict, run_id: Any = None) -> JsonDict:
    """Ask the candidate about the golden images before the live endpoint is touched."""
    from scones.deployment.verify import smoke_test

    return smoke_test(
        endpoint_name=candidate["endpoint_name"], dataset=dataset, transform_uri=transform["output_uri"], run_id=run_id
    )


@task(task_id="delete_candidate")
def delete_candidate(candidate: JsonDict) -> None:
    """Delete the candidate endpoint and its config."""
    from scones.aws.sagemaker import SageMakerResourcesHook

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
    from scones.deployment.verify import verify_endpoint as verify

    result = verify(deployment, dataset=dataset, transform_uri=transform["output_uri"], run_id=run_id)
    outlet_events[MODEL_ASSET].extra = {
        "endpoint_name": deployment["endpoint_name"],
        "model_package_arn": registration["model_package_arn"],
        "version": registration["version"],
        "test_accuracy": evaluation.get("test_accuracy"),
        "dataset_version": dataset["dataset_version"],
    }
    return result


@task(multiple_outputs=False, task_id="retire_superseded")
def retire_superseded(deployment: JsonDict) -> dict[str, list[str]]:
    """Delete the replaced endpoint config and model, if nothing uses them."""
    from scones.deployment.verify import retire_superseded as retire

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
    from scones.deployment.verify import capture_is_complete

    return PokeReturnValue(
        is_done=capture_is_complete(
            resources["BucketName"], deployment["endpoint_name"], check, params["capture_percent"]
        )
    )


@task(multiple_outputs=False, task_id="choose_version")
def choose_version(resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Find the approved version to go back to."""
    from scones.deployment.rollback import choose_version as choose

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
    from scones.deployment.rollback import check_rolled_back as check

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
    from scones.deployment.cleanup import plan_cleanup as plan

    return plan(
        resources=resources,
        older_than_days=params["older_than_days"],
        objects_older_than_days=params["objects_older_than_days"],
    )


@task(multiple_outputs=False, task_id="delete_planned")
def delete_planned(planned: JsonDict, resources: Mapping[str, str], params: Any = None) -> JsonDict:
    """Delete what was planned, unless this is a dry run."""
    from scones.deployment.cleanup import delete_planned as delete

    if params["dry_run"]:
        raise AirflowSkipException(
            f"A dry run: {planned['delete']} items worth {planned['monthly_usd_freed']} USD a month stay. "
            "Run again with dry_run off to delete them."
        )
    return delete(planned, resources=resources)
