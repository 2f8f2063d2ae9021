"""A run that takes too long is announced while it still runs, by the real scheduler and triggerer on SQLite."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from embedded import services
from embedded.airflow_api import AirflowApi
from embedded.processes import stop_all
from embedded.settings import EmbeddedSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LATE_DAG = """
from airflow.sdk import dag, task
from scones.notifications import late_after


@dag(schedule=None, deadline=late_after("late", hours=0), max_active_runs=4)
def late():
    @task(retries=0)
    def work(dag_run=None):
        if (dag_run.conf or {}).get("fail"):
            raise ValueError("as asked")
        return 1

    @task.sensor(poke_interval=1, timeout=300, mode="reschedule")
    def wait(dag_run=None):
        return not (dag_run.conf or {}).get("wait")

    work() >> wait()


late()
"""


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, platform_settings: EmbeddedSettings, stack: dict[str, str]
) -> Iterator[AirflowApi]:
    """Airflow's four processes over a DAG folder that holds nothing but a DAG with a tiny deadline."""
    dags = tmp_path_factory.mktemp("dags")
    (dags / "late.py").write_text(LATE_DAG)
    since = datetime.now(UTC)
    services.migrate(platform_settings)
    services.write_passwords(platform_settings)
    processes = [
        replace(service, environment={**service.environment, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)})
        for service in services.airflow(platform_settings)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_ready()
        client = AirflowApi(platform_settings.airflow_url, platform_settings.user, platform_settings.password)
        client.wait_healthy(since)
        client.wait_dag("late")
        yield client
    finally:
        stop_all(processes)


def test_a_missed_deadline_reaches_the_alert_topic(
    api: AirflowApi, aws: Callable[..., Any], stack: dict[str, str]
) -> None:
    sqs = aws("sqs")
    queue = sqs.create_queue(QueueName="missed-deadlines")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws("sns").subscribe(TopicArn=stack["AlertTopicArn"], Protocol="sqs", Endpoint=arn)
    api.trigger("late", "late-1", {})
    until = time.monotonic() + 120
    told: list[dict[str, Any]] = []
    while not told:
        assert time.monotonic() < until, "no alert arrived"
        answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2)
        bodies = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
        told = [json.loads(body["Message"]) for body in bodies]
    assert told[0]["event"] == "deadline_missed"
    assert "Run late-1 of late" in told[0]["text"]


@pytest.mark.parametrize(("conf", "state"), [({}, "success"), ({"fail": True}, "failed"), ({"wait": True}, "running")])
def test_a_run_with_a_deadline_can_be_cleared_in_every_state(
    api: AirflowApi, conf: dict[str, bool], state: str
) -> None:
    """Airflow's own reference to the time of queueing answers HTTP 500 here (apache/airflow#70368)."""
    run_id = f"clear-{state}"
    api.trigger("late", run_id, conf)

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < deadline, api.task_instances("late", run_id)
            time.sleep(0.2)

    def tries() -> int:
        return max(int(item["try_number"]) for item in api.task_instances("late", run_id))

    until(lambda: api.run_state("late", run_id) == state and tries() > 0)
    before = tries()
    cleared = api.call(
        "POST",
        "/dags/late/clearTaskInstances",
        json={"dry_run": False, "dag_run_id": run_id, "reset_dag_runs": True, "only_failed": False},
    )
    assert {item["task_id"] for item in cleared["task_instances"]} == {"work", "wait"}
    until(lambda: tries() > before)
