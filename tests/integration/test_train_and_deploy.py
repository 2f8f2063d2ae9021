"""The DAGs for real: `dag.test()` against MiniStack and sagemaker_local, on the sample the project draws itself.

One story in order, as the versions build on one another: deploy, again, refuse, deploy the next, roll back, clean up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded import environment, services
from embedded.settings import EmbeddedSettings
from tests.integration import run_dag

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

QUICK = {"epochs": 1, "mini_batch_size": 16}


@pytest.fixture(scope="module")
def run(
    stack: dict[str, str],
    sagemaker_local: str,
    platform_settings: EmbeddedSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., dict[str, Any]]:
    """`run(dag_id, conf)`: one run in a process of its own, and what came of it."""
    services.migrate(platform_settings)
    folder = tmp_path_factory.mktemp("runs")

    def start(dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        out = folder / f"{len(list(folder.iterdir()))}.json"
        done = subprocess.run(
            [sys.executable, str(Path(run_dag.__file__)), dag_id, json.dumps(conf), str(out)],
            env=environment.airflow_environment(platform_settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert out.exists(), done.stdout[-5000:] + done.stderr[-5000:]
        return {**json.loads(out.read_text()), "log": done.stdout + done.stderr}

    return start


@pytest.fixture(scope="module")
def sagemaker(aws: Callable[..., Any], sagemaker_local: str) -> Any:
    return aws("sagemaker")


@pytest.fixture(scope="module")
def first(run: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return run("train_and_deploy", QUICK)


@pytest.fixture(scope="module")
def second(run: Callable[..., dict[str, Any]], first: dict[str, Any]) -> dict[str, Any]:
    return run("train_and_deploy", {**QUICK, "epochs": 2})


def value(result: dict[str, Any], task_id: str, key: str = "return_value") -> Any:
    return result["xcoms"][f"{task_id}:{key}"]


def states(result: dict[str, Any]) -> dict[str, str]:
    return {task_id: task["state"] for task_id, task in result["tasks"].items()}


def jobs(sagemaker: Any) -> list[str]:
    return [job["TrainingJobName"] for job in sagemaker.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]]


def test_the_first_run_ends_with_a_proven_endpoint_and_a_report(
    first: dict[str, Any], sagemaker: Any, aws: Callable[..., Any], stack: dict[str, str]
) -> None:
    assert first["state"] == "success", first["log"][-4000:]
    skipped = {task_id for task_id, state in states(first).items() if state == "skipped"}
    assert skipped == {
        "refuse_model",
        "evaluation.choose_champion",
        "evaluation.transform_champion",
        "publish_threshold",
        "track_run",
    }
    deployed = value(first, "deploy_endpoint")
    endpoint = sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == (
        "InService",
        deployed["endpoint_config_name"],
    )
    assert value(first, "verify_endpoint")["problems"] == []
    assert value(first, "write_report")["captured_records"] >= value(first, "verify_endpoint")["images"]
    assert value(first, "train_model")["metrics"]["validation:accuracy"] > 0.7
    assert "Epoch[0] Validation-accuracy" in first["log"], "the job's log must be in the task's log"
    names = [found["EndpointName"] for found in sagemaker.list_endpoints()["Endpoints"]]
    assert names == [stack["EndpointName"]], "the candidate must be gone"
    package = sagemaker.describe_model_package(ModelPackageName=value(first, "register_model")["model_package_arn"])
    assert package["ModelApprovalStatus"] == "Approved"
    assert package["CustomerMetadataProperties"]["dataset_version"] == value(first, "stage_images")["dataset_version"]


def test_an_unchanged_run_trains_nothing_uploads_nothing_and_leaves_the_endpoint_alone(
    run: Callable[..., dict[str, Any]], first: dict[str, Any], sagemaker: Any
) -> None:
    before = jobs(sagemaker)
    again = run("train_and_deploy", QUICK)
    assert again["state"] == "success", again["log"][-4000:]
    assert jobs(sagemaker) == before
    assert value(again, "stage_images")["unchanged"] is True
    assert value(again, "train_model")["reused"] is True
    assert value(again, "evaluation.transform_test_images")["reused"] is True
    assert value(again, "deploy_endpoint")["action"] == "unchanged"
    assert value(again, "register_model")["created"] is False


def test_a_refused_model_is_recorded_and_announced_and_the_endpoint_untouched(
    run: Callable[..., dict[str, Any]],
    first: dict[str, Any],
    sagemaker: Any,
    aws: Callable[..., Any],
    stack: dict[str, str],
) -> None:
    before = sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])["LastModifiedTime"]
    refused = run("train_and_deploy", {**QUICK, "minimum_accuracy": 1.0, "learning_rate": 0.02})
    job = value(refused, "train_model")["job_name"]
    if value(refused, "evaluation.evaluate_model")["test_accuracy"] == 1.0:
        pytest.skip("the drawn sample was learnt without a mistake: there is nothing to refuse")
    assert refused["state"] == "failed"
    assert (states(refused)["refuse_model"], states(refused)["register_model"]) == ("failed", "skipped")
    body = aws("s3").get_object(Bucket=stack["BucketName"], Key=f"refused/{job}.json")["Body"].read()
    assert "below the minimum" in json.loads(body)["reasons"][0]
    assert f"The quality gate refused {job}" in refused["log"]
    assert sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])["LastModifiedTime"] == before


def test_a_model_of_other_classes_is_not_let_past_the_live_one(
    run: Callable[..., dict[str, Any]], first: dict[str, Any], sagemaker: Any, stack: dict[str, str]
) -> None:
    before = sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])["LastModifiedTime"]
    refused = run("train_and_deploy", {**QUICK, "classes": ["bus", "motorcycle"], "minimum_accuracy": 0})
    assert (refused["state"], states(refused)["refuse_model"]) == ("failed", "failed"), refused["log"][-4000:]
    assert states(refused)["evaluation.transform_champion"] == "skipped"
    assert value(refused, "evaluation.evaluate_model")["champion"]["classes"] == ["bicycle", "motorcycle"]
    assert "it cannot be compared with the live model" in refused["log"]
    assert sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])["LastModifiedTime"] == before


def test_the_next_model_is_measured_against_the_champion_and_replaces_it(
    first: dict[str, Any], second: dict[str, Any], sagemaker: Any
) -> None:
    assert second["state"] == "success", second["log"][-4000:]
    champion = value(second, "evaluation.evaluate_model")["champion"]
    assert champion["training_job_name"] == value(first, "train_model")["job_name"]
    deployed = value(second, "deploy_endpoint")
    assert deployed["action"] == "updated"
    old = value(first, "deploy_endpoint")["endpoint_config_name"]
    assert deployed["previous_endpoint_config_name"] == old
    assert f"endpoint config {old}" in value(second, "retire_superseded")["deleted"]


def test_one_click_goes_back_to_the_earlier_version(
    run: Callable[..., dict[str, Any]],
    first: dict[str, Any],
    second: dict[str, Any],
    sagemaker: Any,
    stack: dict[str, str],
) -> None:
    back = run("rollback_endpoint", {})
    assert back["state"] == "success", back["log"][-4000:]
    assert value(back, "choose_version")["version"] == value(first, "register_model")["version"]
    config = sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])["EndpointConfigName"]
    model = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]["ModelName"]
    artifact = sagemaker.describe_model(ModelName=model)["PrimaryContainer"]["ModelDataUrl"]
    assert artifact == value(first, "train_model")["model_artifacts"]
    assert value(back, "check_rolled_back")["compared"] is True
    nowhere = run("rollback_endpoint", {"version": 999})
    assert nowhere["state"] == "failed"
    assert "There is no model version 999. Approved versions:" in nowhere["log"]


def test_cleanup_shows_first_and_then_deletes_only_what_is_unused(
    run: Callable[..., dict[str, Any]], second: dict[str, Any], sagemaker: Any, stack: dict[str, str]
) -> None:
    before = len(sagemaker.list_endpoint_configs(MaxResults=100)["EndpointConfigs"])
    dry = run("cleanup", {"older_than_days": 0, "objects_older_than_days": 0})
    assert dry["state"] == "success", dry["log"][-4000:]
    assert states(dry)["delete_planned"] == "skipped"
    assert "USD/month" in dry["log"]
    assert len(sagemaker.list_endpoint_configs(MaxResults=100)["EndpointConfigs"]) == before
    done = run("cleanup", {"dry_run": False, "older_than_days": 0, "objects_older_than_days": 0})
    assert done["state"] == "success", done["log"][-4000:]
    endpoint = sagemaker.describe_endpoint(EndpointName=stack["EndpointName"])
    assert endpoint["EndpointStatus"] == "InService"
    left = [found["EndpointConfigName"] for found in sagemaker.list_endpoint_configs(MaxResults=100)["EndpointConfigs"]]
    assert left == [endpoint["EndpointConfigName"]]


@pytest.mark.parametrize(
    ("conf", "task_id", "words"),
    [
        ({"classes": ["bicycle", "hoverboard"]}, "stage_images", "hoverboard"),
        ({"mini_batch_size": 4096}, "stage_images", "4096"),
        ({"training_instance_type": "ml.m5.large"}, "train_model", "trains on GPU instances only"),
    ],
)
def test_bad_input_fails_at_once_and_says_what_to_do(
    run: Callable[..., dict[str, Any]], sagemaker: Any, conf: dict[str, Any], task_id: str, words: str
) -> None:
    before = jobs(sagemaker)
    result = run("train_and_deploy", {**QUICK, **conf})
    assert result["state"] == "failed"
    assert (states(result)[task_id], result["tasks"][task_id]["tries"]) == ("failed", 1)
    assert words in result["log"]
    assert jobs(sagemaker) == before


def test_the_production_endpoint_ends_by_its_typed_name_alone(
    run: Callable[..., dict[str, Any]], first: dict[str, Any], sagemaker: Any, stack: dict[str, str]
) -> None:
    everything = {"dry_run": False, "older_than_days": 0, "objects_older_than_days": 0}
    slip = run("cleanup", {**everything, "end_production": "the-endpoint"})
    assert (slip["state"], states(slip)["delete_planned"]) == ("failed", "upstream_failed")
    assert f"the production endpoint is {stack['EndpointName']!r}" in slip["log"]
    done = run("cleanup", {**everything, "end_production": stack["EndpointName"]})
    assert done["state"] == "success", done["log"][-4000:]
    assert f"endpoint {stack['EndpointName']}" in value(done, "delete_planned")["deleted"]
    assert sagemaker.list_endpoints(StatusEquals="InService")["Endpoints"] == []
