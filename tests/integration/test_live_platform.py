"""What only a real scheduler and API server show: a person's answer, safe deployments, one-click DAGs, pages.

One story in order: a model goes live, people answer for the next ones, deployments bake, all of it is cleared away.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.integration.live import LivePlatform, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DAG = "train_and_deploy"
QUICK = {"epochs": 1, "mini_batch_size": 16}


@pytest.fixture(scope="module")
def serving(live: LivePlatform) -> str:
    """The endpoint, with a first model on it."""
    name = live.stack_output("EndpointName")
    endpoints = live.client("sagemaker").list_endpoints(NameContains=name, StatusEquals="InService")["Endpoints"]
    if name not in [endpoint["EndpointName"] for endpoint in endpoints]:
        run_id = live.start(DAG, f"base-{time.time():.0f}", QUICK)
        assert live.wait_run(DAG, run_id) == "success", live.failures(DAG, run_id)
    return name


def served_config(live: LivePlatform, endpoint: str) -> str:
    return str(live.client("sagemaker").describe_endpoint(EndpointName=endpoint)["EndpointConfigName"])


def asked(live: LivePlatform, **conf: Any) -> tuple[str, str]:
    """Start a run that trains another model and asks about it; return its id and the address of the question."""
    run_id = live.start(DAG, f"asked-{time.time():.0f}", {**QUICK, "require_approval": True, **conf})
    path = f"/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances/approve_model/-1/hitlDetails"

    def question() -> bool:
        assert live.api.run_state(DAG, run_id) not in {"success", "failed"}, live.failures(DAG, run_id)
        found = live.api.call("GET", f"/dags/{DAG}/dagRuns/{quote(run_id)}/hitlDetails")["hitl_details"]
        return bool(found)

    eventually("the run asks", question, 600)
    return run_id, path


def answer(live: LivePlatform, run_id: str, path: str, option: str) -> None:
    """Answer as a person would, not before the scheduler has heard from its executor that the question was put.

    An answer in that third of a second makes Airflow take the executor's message for the end of the resumed task: it
    fails the try, and the next one asks again.
    """
    scheduler_log = live.run_dir / "logs" / "airflow-scheduler.log"

    def heard() -> bool:
        said = ("Received executor event with state success", "task_id='approve_model'", f"run_id='{run_id}'")
        return any(all(part in line for part in said) for line in scheduler_log.read_text().splitlines())

    eventually("the scheduler knows that the question was put", heard)
    live.api.call("PATCH", path, json={"chosen_options": [option]})


def approval_status(live: LivePlatform, run_id: str) -> str:
    arn = live.api.xcom(DAG, run_id, "register_model")["model_package_arn"]
    return str(live.client("sagemaker").describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"])


def test_an_approved_model_goes_live(live: LivePlatform, serving: str) -> None:
    before = served_config(live, serving)
    run_id, path = asked(live, epochs=2)
    assert approval_status(live, run_id) == "PendingManualApproval"
    assert served_config(live, serving) == before
    assert "Deploy the model of" in live.api.call("GET", path)["subject"]
    answer(live, run_id, path, "Approve")
    assert live.wait_run(DAG, run_id) == "success", live.failures(DAG, run_id)
    assert approval_status(live, run_id) == "Approved"
    assert live.api.xcom(DAG, run_id, "deploy_endpoint")["endpoint_config_name"] == served_config(live, serving)
    assert served_config(live, serving) != before


def test_a_rejected_model_does_not(live: LivePlatform, serving: str) -> None:
    before = served_config(live, serving)
    run_id, path = asked(live, epochs=3)
    answer(live, run_id, path, "Reject")
    assert live.wait_run(DAG, run_id) == "success", live.failures(DAG, run_id)
    states = live.states(DAG, run_id)
    after = ("candidate.start_candidate", "deploy_endpoint", "verify_endpoint", "write_report")
    assert {states[task] for task in after} == {"skipped"}
    assert approval_status(live, run_id) == "Rejected"
    assert served_config(live, serving) == before


def test_a_question_nobody_answers_fails_the_run_and_changes_nothing(live: LivePlatform, serving: str) -> None:
    before = served_config(live, serving)
    run_id, _ = asked(live, epochs=4, approval_timeout_minutes=1)
    assert live.wait_run(DAG, run_id) == "failed"
    states = live.states(DAG, run_id)
    assert (states["approve_model"], states["deploy_endpoint"]) == ("failed", "upstream_failed")
    assert approval_status(live, run_id) == "PendingManualApproval"
    assert served_config(live, serving) == before


CANARY = {**QUICK, "epochs": 2, "strategy": "canary", "endpoint_instance_count": 2}


def test_an_alarm_of_the_stack_that_rings_rolls_a_canary_back_and_the_run_says_why(
    live: LivePlatform, serving: str
) -> None:
    alarm = live.stack_output("Endpoint5xxAlarmName")
    before = served_config(live, serving)
    run_id = live.start(DAG, f"alarm-{time.time():.0f}", {**CANARY, "bake_time_s": 120, "alarms": [alarm]})
    live.wait_task(DAG, run_id, "deploy_endpoint", {"deferred"})
    sagemaker = live.client("sagemaker")

    def baking() -> bool:
        summary = sagemaker.describe_endpoint(EndpointName=serving).get("PendingDeploymentSummary", {})
        return any(one["VariantStatus"][0]["Status"] == "Baking" for one in summary.get("ProductionVariants", ()))

    eventually("the canary bakes", baking)
    dimensions = [{"Name": "EndpointName", "Value": serving}, {"Name": "VariantName", "Value": "AllTraffic"}]
    errors = {"MetricName": "Invocation5XXErrors", "Dimensions": dimensions, "Value": 5}
    live.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[errors])
    assert live.wait_run(DAG, run_id) == "failed"
    assert live.task(DAG, run_id, "deploy_endpoint")["try_number"] == 1, "the same deployment would fail again"
    told = live.failures(DAG, run_id)
    assert alarm in told
    assert "rolled back" in told
    assert served_config(live, serving) == before


def test_a_canary_that_bakes_in_peace_takes_over(live: LivePlatform, serving: str) -> None:
    alarm = live.stack_output("Endpoint5xxAlarmName")
    cloudwatch = live.client("cloudwatch")
    eventually(
        "the alarm is quiet again",
        lambda: cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"] != "ALARM",
        180,
    )
    run_id = live.start(DAG, f"canary-{time.time():.0f}", {**CANARY, "bake_time_s": 3, "alarms": [alarm]})
    assert live.wait_run(DAG, run_id) == "success", live.failures(DAG, run_id)
    assert live.api.xcom(DAG, run_id, "deploy_endpoint")["endpoint_config_name"] == served_config(live, serving)
    endpoint = live.client("sagemaker").describe_endpoint(EndpointName=serving)
    routing = endpoint["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"


def test_roll_back_and_cleanup_by_their_forms(live: LivePlatform, serving: str) -> None:
    before = served_config(live, serving)
    run_id = live.start("rollback_endpoint", f"back-{time.time():.0f}", {"version": 1})
    assert live.wait_run("rollback_endpoint", run_id) == "success", live.failures("rollback_endpoint", run_id)
    assert live.api.xcom("rollback_endpoint", run_id, "check_rolled_back")["problems"] == []
    assert served_config(live, serving) != before
    conf = {"older_than_days": 0, "objects_older_than_days": 0}
    dry = live.start("cleanup", f"dry-{time.time():.0f}", conf)
    assert live.wait_run("cleanup", dry) == "success", live.failures("cleanup", dry)
    assert live.states("cleanup", dry)["delete_planned"] == "skipped"
    assert live.api.xcom("cleanup", dry, "plan_cleanup")["delete"] > 0
    done = live.start("cleanup", f"clean-{time.time():.0f}", {**conf, "dry_run": False})
    assert live.wait_run("cleanup", done) == "success", live.failures("cleanup", done)
    configs = live.client("sagemaker").list_endpoint_configs(MaxResults=100)["EndpointConfigs"]
    assert [config["EndpointConfigName"] for config in configs] == [served_config(live, serving)]


def test_the_buttons_of_a_task_lead_to_pages_that_need_a_login(live: LivePlatform, serving: str) -> None:
    run_id = live.start(DAG, f"links-{time.time():.0f}", QUICK)
    assert live.wait_run(DAG, run_id) == "success", live.failures(DAG, run_id)
    for task_id, name in (("train_model", "Training job"), ("deploy_endpoint", "Endpoint")):
        path = f"/dags/{DAG}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/links"
        address = live.api.call("GET", path)["extra_links"][name]
        assert address.startswith(live.state["airflow_url"])
        assert requests.get(address, timeout=30, allow_redirects=False).status_code == 401
        page = live.get(address)
        assert page.status_code == 200
        assert name in page.text
    job = live.api.xcom(DAG, run_id, "train_model")["job_name"]
    for path, wanted in ((f"lineage/{job}", "Training images, the first 24"), (f"trainings?a={job}&b={job}", job)):
        assert wanted in live.get(f"{live.state['airflow_url']}/scones/{path}").text
    missing = f"{live.state['airflow_url']}/scones/resources/training-jobs/nothing"
    assert live.get(missing).status_code == 404
