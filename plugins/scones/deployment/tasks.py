"""The tasks around the endpoint: try the candidate, verify, go back, clean up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, PokeReturnValue, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from scones.deployment.data import Cleaned, CleanupPlan, Deployment, GoldenCheck, Version
    from scones.evaluation.data import Evaluation, Registration
    from scones.training.data import StagedDataset

MODEL_ASSET = Asset(name="scones_model", uri="x-scones://model/deployed", group="scones")


@task(multiple_outputs=False, task_id="smoke_test_candidate")
def smoke_test_candidate(
    candidate: Deployment, dataset: StagedDataset, evaluation: Evaluation, run_id: Any = None
) -> GoldenCheck:
    """Ask the candidate about the golden images before the live endpoint is touched."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.golden import Golden, check_answers

    golden = Golden(dataset["dataset_version"], evaluation["training_job_name"], len(dataset["classes"]))
    check = check_answers(candidate["endpoint_name"], golden, run_id, DeploymentAws.connect(dataset["bucket"]))
    if check["problems"]:
        raise AirflowFailException(
            f"The candidate {candidate['endpoint_name']} answers wrongly, the live endpoint was not touched: "
            + "; ".join(check["problems"])
        )
    return check


@task(task_id="delete_candidate")
def delete_candidate(candidate: Deployment) -> None:
    """Delete the candidate endpoint and its config."""
    from scones.aws.sagemaker import SageMakerResourcesHook

    hook = SageMakerResourcesHook()
    hook.delete("delete_endpoint", EndpointName=candidate["endpoint_name"])
    if candidate["endpoint_config_name"] not in hook.configs_in_use(besides=candidate["endpoint_name"]):
        hook.delete("delete_endpoint_config", EndpointConfigName=candidate["endpoint_config_name"])


@task(multiple_outputs=False, task_id="verify_endpoint", outlets=[MODEL_ASSET])
def verify_endpoint(
    deployment: Deployment,
    dataset: StagedDataset,
    registration: Registration,
    evaluation: Evaluation,
    run_id: Any = None,
    outlet_events: Any = None,
) -> GoldenCheck:
    """Compare the live endpoint's answers with the evaluated model's; roll back when they differ."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.golden import Golden, check_answers
    from scones.deployment.verify import roll_back

    golden = Golden(dataset["dataset_version"], evaluation["training_job_name"], len(dataset["classes"]))
    aws = DeploymentAws.connect(dataset["bucket"])
    check = check_answers(deployment["endpoint_name"], golden, run_id, aws)
    if check["problems"]:
        done = roll_back(deployment, aws)
        raise AirflowFailException(
            f"Endpoint {deployment['endpoint_name']} does not answer as the evaluated model does, {done}: "
            + "; ".join(check["problems"])
        )
    outlet_events[MODEL_ASSET].extra = {
        "endpoint_name": deployment["endpoint_name"],
        "model_package_arn": registration["model_package_arn"],
        "version": registration["version"],
        "test_accuracy": evaluation["test_accuracy"],
        "dataset_version": dataset["dataset_version"],
    }
    return check


@task(multiple_outputs=False, task_id="retire_superseded")
def retire_superseded(deployment: Deployment, resources: Mapping[str, str]) -> Cleaned:
    """Delete the replaced endpoint config and model, if nothing uses them."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.verify import retire_superseded as retire

    return retire(deployment, DeploymentAws.connect(resources["BucketName"]))


@task.sensor(
    task_id="await_capture",
    poke_interval=2,
    exponential_backoff=True,
    max_wait=timedelta(seconds=30),
    timeout=900,
    mode="poke",
)
def await_capture(
    deployment: Deployment, resources: Mapping[str, str], check: GoldenCheck, params: Any = None
) -> PokeReturnValue:
    """Wait until the capture holds the golden requests (seconds here, minutes on AWS)."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.verify import capture_is_complete

    aws = DeploymentAws.connect(resources["BucketName"])
    done = capture_is_complete(aws, deployment["endpoint_name"], check, params["capture_percent"])
    return PokeReturnValue(is_done=done)


@task(multiple_outputs=False, task_id="choose_version")
def choose_version(resources: Mapping[str, str], params: Any = None) -> Version:
    """Find the approved version to go back to."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.rollback import choose_version as choose

    return choose(resources, params["version"] or None, DeploymentAws.connect(resources["BucketName"]))


@task(multiple_outputs=False, task_id="check_rolled_back", outlets=[MODEL_ASSET])
def check_rolled_back(
    deployment: Deployment,
    chosen: Version,
    resources: Mapping[str, str],
    run_id: Any = None,
    outlet_events: Any = None,
) -> GoldenCheck:
    """Ask the endpoint about the golden images of the version's own dataset; bring its threshold back."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.golden import Golden, check_answers
    from scones.evaluation.evaluate import follow_rollback

    golden = Golden(chosen["dataset_version"], chosen["job_name"], len(chosen["classes"]), need_answers=False)
    aws = DeploymentAws.connect(resources["BucketName"])
    check = check_answers(deployment["endpoint_name"], golden, run_id, aws)
    if check["problems"]:
        raise AirflowFailException(
            "The endpoint does not answer as the chosen version did: " + "; ".join(check["problems"])
        )
    follow_rollback(aws.store, chosen["job_name"], chosen["recommended_threshold"])
    outlet_events[MODEL_ASSET].extra = {
        "endpoint_name": deployment["endpoint_name"],
        "model_package_arn": chosen["model_package_arn"],
        "version": chosen["version"],
    }
    return check


@task(multiple_outputs=False, task_id="plan_cleanup")
def plan_cleanup(resources: Mapping[str, str], params: Any = None) -> CleanupPlan:
    """Print the table of what is there, what it costs and what would go."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.cleanup import CleanupRequest
    from scones.deployment.cleanup import plan_cleanup as plan

    aws = DeploymentAws.connect(resources["BucketName"])
    return plan(CleanupRequest.of(params), resources["EndpointName"], aws)


@task(multiple_outputs=False, task_id="delete_planned")
def delete_planned(planned: CleanupPlan, resources: Mapping[str, str], params: Any = None) -> Cleaned:
    """Delete what was planned, unless this is a dry run."""
    from scones.deployment.aws import DeploymentAws
    from scones.deployment.cleanup import CleanupRequest
    from scones.deployment.cleanup import delete_planned as delete

    if params["dry_run"]:
        raise AirflowSkipException(
            f"A dry run: {planned['delete']} items worth {planned['monthly_usd_freed']} USD a month stay. "
            "Run again with dry_run off to delete them."
        )
    aws = DeploymentAws.connect(resources["BucketName"])
    return delete(planned, CleanupRequest.of(params), resources["EndpointName"], aws)
