"""Sudden deaths in every stage of a training run, and a user who gives up: the run ends well, and pays for one job."""

from __future__ import annotations

import pytest

from tests.integration.live import LivePlatform, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DAG = "train_and_deploy"
QUICK = {"epochs": 1, "mini_batch_size": 16, "force_retrain": True}
STAGES = ["stage_images", "train_model", "evaluation.transform_test_images", "deploy_endpoint"]
VICTIMS = ["airflow scheduler", "task process", "airflow triggerer", "sagemaker_local"]
# Each run loses another process in each of its stages; the four runs together lose each process in each stage.
PLANS = [
    {stage: VICTIMS[(first + index) % len(VICTIMS)] for index, stage in enumerate(STAGES)}
    for first in range(len(VICTIMS))
]


def kill(live: LivePlatform, run_id: str, stage: str, victim: str) -> None:
    if victim == "task process":
        # Found before or after the deferral: both halves carry the task instance's id.
        live.kill_task_process(live.wait_task(DAG, run_id, stage, {"running", "deferred"})["id"])
        return
    live.wait_task(DAG, run_id, stage, {"running"} if stage == "stage_images" else {"deferred"})
    live.kill(victim.removeprefix("airflow "))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "-".join(victim.split()[-1] for victim in plan.values()))
def test_a_run_survives_a_sudden_death_in_every_stage_and_trains_once(live: LivePlatform, plan: dict[str, str]) -> None:
    run_id = live.start(DAG, f"faults-{PLANS.index(plan)}", QUICK)
    for stage, victim in plan.items():
        kill(live, run_id, stage, victim)
    assert live.wait_run(DAG, run_id, 900) == "success", live.failures(DAG, run_id)
    jobs = live.training_jobs(run_id)
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"]
    deployed = live.api.xcom(DAG, run_id, "deploy_endpoint")
    assert deployed["model_data_url"] == jobs[0]["ModelArtifacts"]["S3ModelArtifacts"]
    assert live.api.xcom(DAG, run_id, "verify_endpoint")["problems"] == []


def is_followed(live: LivePlatform, run_id: str) -> bool:
    """Whether the trigger's log tells of the running job."""
    return any(" is InProgress" in line for line in live.api.log_tail(DAG, run_id, "train_model", 1))


def test_marking_the_deferred_training_failed_stops_the_job(live: LivePlatform) -> None:
    run_id = live.start(DAG, "given-up", QUICK)
    live.wait_task(DAG, run_id, "train_model", {"deferred"})
    with live.suspended_training():
        # Until the triggerer has begun the trigger (it looks about once a second), Airflow tells nobody of the kill.
        eventually("the trigger is at work", lambda: is_followed(live, run_id))
        live.mark(DAG, run_id, "train_model", "failed")
        eventually(
            "the job is told to stop", lambda: live.training_jobs(run_id)[0]["TrainingJobStatus"] != "InProgress"
        )
    eventually("the job has stopped", lambda: live.training_jobs(run_id)[0]["TrainingJobStatus"] == "Stopped")
    assert live.wait_run(DAG, run_id) == "failed"
    states = live.states(DAG, run_id)
    assert (states["train_model"], states["deploy_endpoint"]) == ("failed", "upstream_failed")
    assert len(live.training_jobs(run_id)) == 1
