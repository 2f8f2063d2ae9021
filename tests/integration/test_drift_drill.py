"""The drill: drifted traffic, a violation, an alarm, a retraining that starts by itself, a recovered report.

Everything is real: Airflow's scheduler and API server, the workflow, the endpoint and its capture, SNS. Set
SCREENSHOTS_DIR to a folder to keep pictures of it.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import requests

from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi
from embedded.settings import VARIABLES, EmbeddedSettings
from scones.dataset.sample import draw_images
from scones.images.transformations import transform
from tests.support import pictures
from tests.support.checkout import Checkout
from tests.support.picture_files import encoded
from tests.support.running_platform import give_labels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1700)]

TRAFFIC = {"images": 100, "concurrency": 8}
LABELLED = 20


class PatientApi(AirflowApi):
    """Asks again when the server is too busy to answer in time; only what may be asked twice."""

    def call(self, method: str, path: str, **options: Any) -> Any:
        for left in reversed(range(8)):
            try:
                return super().call(method, path, **options)
            except (requests.ConnectionError, requests.Timeout):
                if not left or method == "POST":
                    raise
        raise AssertionError("unreachable")


@dataclass
class Platform:
    """A running platform, as its users reach it."""

    settings: EmbeddedSettings
    api: AirflowApi
    outputs: dict[str, str]

    def client(self, service: str) -> Any:
        url = self.settings.sagemaker_url if service == "sagemaker" else self.settings.aws_url
        return boto3.Session("test", "test", region_name=self.settings.region).client(service, endpoint_url=url)

    def read_json(self, key: str) -> Any:
        return json.loads(self.client("s3").get_object(Bucket=self.outputs["BucketName"], Key=key)["Body"].read())

    def run(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run, wait for its end, and return its id; a failed one fails the test with its logs."""
        self.api.wait_dag(dag_id)
        run_id = f"drill-{uuid.uuid4().hex[:8]}"
        self.api.trigger(dag_id, run_id, conf)
        self.finish(dag_id, run_id)
        return run_id

    def finish(self, dag_id: str, run_id: str, timeout_s: float = 600) -> None:
        wait_for(lambda: self.api.run_state(dag_id, run_id) in TERMINAL_RUN_STATES, timeout_s, f"{dag_id} {run_id}")
        if self.api.run_state(dag_id, run_id) != "success":
            failed = [item for item in self.api.task_instances(dag_id, run_id) if item["state"] == "failed"]
            logs = [
                self.api.log_tail(dag_id, run_id, item["task_id"], item["try_number"], item["map_index"])
                for item in failed
            ]
            pytest.fail(f"{dag_id} {run_id} failed: {json.dumps(logs, indent=1)}")

    def runs_of_drift(self) -> list[dict[str, Any]]:
        """Runs of train_and_deploy that an asset started, oldest first."""
        answer = self.api.call(
            "GET", "/dags/train_and_deploy/dagRuns", params={"run_type": "asset_triggered", "limit": 100}
        )
        return sorted(answer["dag_runs"], key=lambda run: str(run["run_after"]))

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {item["task_id"]: item["state"] for item in self.api.task_instances(dag_id, run_id)}

    def endpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=self.outputs["EndpointName"])
        return found


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"After {timeout_s:.0f} s still waiting for {what}")
        time.sleep(0.5)
    return found


def _archive() -> dict[str, str]:
    folder = Path(os.environ.get("SCONES_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    archive = folder / "cifar-100-python.tar.gz"
    # Without the real archive the platform draws its own sample.
    return {"CIFAR100_ARCHIVE": str(archive)} if archive.exists() else {"CIFAR100_MIRRORS": ""}


@pytest.fixture
def platform(checkout_factory: Callable[..., Checkout]) -> Iterator[Platform]:
    checkout = checkout_factory(**_archive())
    up = checkout.call("up")
    assert up.returncode == 0, up.stdout
    try:
        ports = {name: int(checkout.environment[variable]) for name, variable in VARIABLES.items() if "_port" in name}
        settings = replace(EmbeddedSettings(), run_dir=checkout.run_dir, **ports)  # type: ignore[arg-type]
        found = Platform(settings, PatientApi(settings.airflow_url, settings.user, settings.password), {})
        stack = found.client("cloudformation").describe_stacks(StackName=settings.stack_name)["Stacks"][0]
        found.outputs.update({item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]})
        yield found
    finally:
        checkout.call("down")


def _inbox(platform: Platform) -> Callable[[], list[dict[str, Any]]]:
    """Subscribe a queue to the alert topic, as a team's mail box; return what reads everything that came so far."""
    sqs, sns = platform.client("sqs"), platform.client("sns")
    queue = sqs.create_queue(QueueName="drill")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=platform.outputs["AlertTopicArn"], Protocol="sqs", Endpoint=arn)
    received: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        while found := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                received.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [one for one in received if one.get("Subject", "").startswith("[Scones]")]

    return read


def _reports(platform: Platform) -> list[dict[str, Any]]:
    """The endpoint's reports by monitor_endpoint, newest first; by the clock's hour or by hand is the same."""
    index = platform.read_json(f"reports/{platform.outputs['EndpointName']}/index.json")
    return [entry for entry in index["reports"] if entry["run"]["dag_id"] == "monitor_endpoint"]


def _with_traffic(platform: Platform) -> dict[str, Any]:
    """The newest report that covers a whole drill's traffic: a run on the hour may come just before the one by hand."""
    return next(entry for entry in _reports(platform) if entry["captured_records"] >= TRAFFIC["images"])


def _report(platform: Platform, entry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = platform.read_json(
        f"reports/{platform.outputs['EndpointName']}/{entry['report_id']}/report.json"
    )
    return found


def _drifted(report: dict[str, Any]) -> set[str]:
    kinds = ("baseline_drift_check", "model_quality_check")
    return {one["feature_name"] for one in report["violations"] if one["constraint_check_type"] in kinds}


def _label_night_photographs(platform: Platform) -> int:
    """Score night photographs, and label those the model was not sure of through the reject queue of the UI.

    They are photographs of their own: what generate_traffic darkens are test images, whose labels never train.
    """
    s3, bucket, shown = platform.client("s3"), platform.outputs["BucketName"], dict[str, str]()
    for name in ("bicycle", "motorcycle"):
        photographs = draw_images(name, LABELLED // 2, np.random.default_rng(11))
        for index, pixels in enumerate(photographs):
            shown[f"photos/night/{name}-{index}.png"] = name
            body = encoded(transform(pixels, "night", 1.0))
            s3.put_object(Bucket=bucket, Key=f"photos/night/{name}-{index}.png", Body=body)
    conf = {"prefix": "photos/night/", "threshold": 1.0, "max_rejected_share": 1.0, "max_failed_share": 0.0}
    run_id = platform.run("batch_inference", conf)
    batch = platform.api.xcom("batch_inference", run_id, "summarize_batch")
    answer = give_labels(platform.settings, shown)
    said = re.sub(r"<style.*?</style>|<[^>]+>|\s+", " ", answer.text, flags=re.DOTALL)
    assert answer.status_code == 200, (batch, said[:500])
    return len(shown)


def test_drifted_traffic_retrains_the_model_and_the_report_recovers(platform: Platform) -> None:
    inbox = _inbox(platform)
    platform.run("train_and_deploy", {})
    first_config = platform.endpoint()["EndpointConfigName"]
    assert platform.runs_of_drift() == []

    # Night falls: the images change, and the report, the alarm and the asset event follow.
    platform.run("generate_traffic", {**TRAFFIC, "drift": "night", "drifted_share": 1})
    labelled = _label_night_photographs(platform)
    monitor = platform.run("monitor_endpoint", {})
    alarmed = _with_traffic(platform)
    report = _report(platform, alarmed)
    assert "brightness" in _drifted(report)
    assert report["status"] == "alarm"
    messages = wait_for(inbox, 30, "the alarm")
    assert "brightness" in messages[0]["Subject"] + messages[0]["Message"]
    for words in (platform.outputs["EndpointName"], "Violations:", "What to do:", "/scones/reports/"):
        assert words in messages[0]["Message"], messages[0]["Message"]

    # Nobody starts this run: the asset does.
    started = wait_for(platform.runs_of_drift, 60, "train_and_deploy to be started by the drift asset")[0]
    retraining = started["dag_run_id"]
    platform.finish("train_and_deploy", retraining)
    events = platform.api.call("GET", f"/dags/train_and_deploy/dagRuns/{retraining}/upstreamAssetEvents")
    assert events["asset_events"][0]["extra"]["report_id"] == alarmed["report_id"]
    staged = platform.api.xcom("train_and_deploy", retraining, "stage_images")
    assert (labelled, staged["unchanged"]) == (LABELLED, False), "the labelled night images belong to the new data set"
    assert platform.api.xcom("train_and_deploy", retraining, "train_model")["reused"] is False
    retrained = platform.endpoint()
    assert retrained["EndpointStatus"] == "InService"
    assert retrained["EndpointConfigName"] != first_config

    # By day again: the report recovers.
    platform.run("generate_traffic", TRAFFIC)
    platform.run("monitor_endpoint", {})
    recovered = _report(platform, _with_traffic(platform))
    assert recovered["report_id"] != alarmed["report_id"]
    assert _drifted(recovered) == set(), recovered["violations"]
    assert recovered["lineage"]["dataset_version"] == staged["dataset_version"]
    # Beside it is the report before it, the retraining's own; the alarm stays in the history.
    index = platform.read_json(f"reports/{platform.outputs['EndpointName']}/index.json")["reports"]
    ids = [entry["report_id"] for entry in index]
    assert recovered["previous"]["report_id"] == ids[ids.index(recovered["report_id"]) + 1]
    assert ids.index(alarmed["report_id"]) > ids.index(recovered["report_id"])
    assert len(inbox()) == len([entry for entry in index if entry["violations"]])

    # The event once more, and the tasks that emit and alarm cleared: nothing is trained, deployed or sent again.
    jobs = platform.client("sagemaker").list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    alarms, runs = len(inbox()), len(platform.runs_of_drift())
    body = {
        "dry_run": False,
        "only_failed": False,
        "dag_run_id": monitor,
        "task_ids": ["send_alarm", "report_drift"],
        "reset_dag_runs": True,
    }
    platform.api.call("POST", "/dags/monitor_endpoint/clearTaskInstances", json=body)
    platform.finish("monitor_endpoint", monitor)
    assert platform.api.xcom("monitor_endpoint", monitor, "send_alarm")["sent"] is False
    asset = next(
        one
        for one in platform.api.call("GET", "/assets", params={"limit": 100})["assets"]
        if one["name"] == "scones_drift"
    )
    for _ in range(2):
        platform.api.call("POST", "/assets/events", json={"asset_id": asset["id"], "extra": {}})

    def ended() -> list[dict[str, Any]]:
        found = platform.runs_of_drift()[runs:]
        return found if all(run["state"] in TERMINAL_RUN_STATES for run in found) else []

    for run in wait_for(ended, 600, "the runs that the duplicates start"):
        platform.finish("train_and_deploy", run["dag_run_id"])
        assert platform.api.xcom("train_and_deploy", run["dag_run_id"], "train_model")["reused"] is True
        assert platform.api.xcom("train_and_deploy", run["dag_run_id"], "deploy_endpoint")["action"] == "unchanged"
    after = platform.client("sagemaker").list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in after] == [job["TrainingJobName"] for job in jobs]
    assert platform.endpoint()["EndpointConfigName"] == retrained["EndpointConfigName"]
    assert len(inbox()) == alarms

    if folder := os.environ.get("SCREENSHOTS_DIR"):
        problems = pictures.take(
            platform.settings.airflow_url,
            platform.settings.user,
            platform.settings.password,
            Path(folder),
            report=f"/scones/reports/{platform.outputs['EndpointName']}/{alarmed['report_id']}",
            train_run=retraining,
            monitor_run=monitor,
        )
        assert [problem for problem in problems if "/scones" in problem or "Timeout" in problem] == []
