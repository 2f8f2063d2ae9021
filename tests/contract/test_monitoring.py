"""The monitoring tasks against a real S3, CloudWatch and SNS (MiniStack)."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from airflow.sdk.exceptions import AirflowSkipException

from scones.monitoring import tasks
from scones.monitoring.aws import EndpointMissingError, MonitoringAws
from scones.monitoring.document import WrittenReport
from scones.monitoring.index import DagRun, parse_index, parse_place
from scones.monitoring.report import ReportOrder, window_of, write_report
from scones.monitoring.store import MonitoringStore
from scones.monitoring.tasks import DRIFT_ASSET
from tests.contract import monitoring_world as world


class World:
    """One bucket and endpoint of its own for each test."""

    def __init__(self, aws: Callable[..., Any]) -> None:
        self.s3, self.cloudwatch = aws("s3"), aws("cloudwatch")
        self.bucket = f"monitor-{uuid.uuid4().hex[:12]}"
        self.endpoint = f"courier-{uuid.uuid4().hex[:8]}"
        self.s3.create_bucket(Bucket=self.bucket)
        sns = aws("sns")
        topic = sns.create_topic(Name=self.endpoint)["TopicArn"]
        sqs = aws("sqs")
        self.queue = sqs.create_queue(QueueName=self.endpoint)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        self.sqs = sqs
        self.start = world.now() - timedelta(minutes=30)
        self.sagemaker = world.FakeSageMaker(self.bucket, self.endpoint, self.start - timedelta(minutes=5))
        self.aws = MonitoringAws(
            store=MonitoringStore(self.bucket, client=self.s3),
            sagemaker=self.sagemaker,  # type: ignore[arg-type]
            cloudwatch=self.cloudwatch,
            sns=sns,
        )
        self.resources = {"BucketName": self.bucket, "AlertTopicArn": topic, "EndpointName": self.endpoint}
        world.put_documents(self.s3, self.bucket)

    def traffic(self, images: np.ndarray, minutes: int = 0, seed: int = 1) -> list[str]:
        return world.put_traffic(
            self.s3,
            self.bucket,
            self.endpoint,
            images,
            world.confidences(len(images), seed),
            self.start + timedelta(minutes=minutes),
        )

    def invocations(self, count: int, minutes: int = 1) -> None:
        world.put_invocations(self.cloudwatch, self.endpoint, self.start + timedelta(minutes=minutes), count)

    def write(self, run_id: str, dag_id: str = "monitor_endpoint", **window: str) -> WrittenReport:
        order = ReportOrder(self.endpoint, DagRun(dag_id, run_id), *window_of(window))
        return write_report(self.aws, order)

    def send_alarm(self, written: WrittenReport) -> dict[str, Any]:
        sent: dict[str, Any] = tasks.send_alarm.function(self.resources, written)
        return sent

    def report_drift(self, written: WrittenReport, cooldown_hours: float = 24) -> dict[str, Any] | None:
        """What the drift asset is told; None when the task is skipped."""
        events: Any = defaultdict(lambda: SimpleNamespace(extra={}))
        params = {"retrain_cooldown_hours": cooldown_hours}
        try:
            asked: dict[str, Any] = tasks.report_drift.function(self.resources, written, params, events)
        except AirflowSkipException:
            return None
        assert events[DRIFT_ASSET].extra == asked
        return asked

    def document(self, written: WrittenReport, name: str = "report.json") -> Any:
        key = f"reports/{self.endpoint}/{written['report_id']}/{name}"
        return json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def messages(self) -> list[dict[str, Any]]:
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        return [json.loads(message["Body"]) for message in found.get("Messages", [])]


@pytest.fixture
def place(ministack: str, aws: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(aws)
    monkeypatch.setattr(MonitoringAws, "connect", lambda _: world.aws)
    return world


def test_report_reads_every_record_and_raises_no_alarm_for_usual_traffic(place: World) -> None:
    place.traffic(world.vehicles(220, seed=2))
    place.invocations(220)
    written = place.write("run-1")
    assert written["captured_records"] == 220
    assert (written["violations"], written["status"]) == (0, "ok"), place.document(written)["checks"]
    report = place.document(written)
    assert report["counts"]["invocations"] == 220
    assert report["counts"]["files"] == 9
    assert report["latency"]["p95_ms"] == pytest.approx(1.5)
    assert report["latency"]["mean_ms"] == pytest.approx(1.5)
    assert report["lineage"]["training_job"] == world.JOB
    assert report["lineage"]["dataset_version"] == world.DATASET
    assert report["lineage"]["version"] == 3
    assert place.document(written, "constraint_violations.json") == {"violations": []}
    assert {feature["name"] for feature in place.document(written, "statistics.json")["features"]} >= {"brightness"}
    page = place.s3.get_object(Bucket=place.bucket, Key=written["html_uri"].split("/", 3)[3])["Body"].read().decode()
    assert "7 of 8 checks are within their limits; not decided: accuracy on ground truth" in page
    assert len(page) < 2_000_000
    assert place.send_alarm(written)["sent"] is False
    assert place.report_drift(written) is None
    assert place.messages() == []


def test_next_report_reads_only_what_is_new_and_a_late_file(place: World) -> None:
    place.traffic(world.vehicles(50, seed=3))
    assert place.write("run-1")["captured_records"] == 50
    assert place.write("run-2")["captured_records"] == 0
    place.traffic(world.vehicles(40, seed=4), minutes=10)
    # Arrives now, with a key and times of five hours ago.
    place.traffic(world.vehicles(5, seed=5), minutes=-300)
    written = place.write("run-3")
    assert written["captured_records"] == 45
    assert (
        place.document(written)["previous"]["report_id"]
        == ReportOrder(place.endpoint, DagRun("monitor_endpoint", "run-1")).report_id
    )


def test_a_report_tried_again_is_the_same_report_over_the_same_records(place: World) -> None:
    place.traffic(world.vehicles(60, seed=6))
    first = place.write("run-1")
    again = place.write("run-1")
    assert again == first
    entries = parse_index(place.aws.store.read(f"reports/{place.endpoint}/index.json"))
    assert [entry.report_id for entry in entries] == [first["report_id"]]


def test_a_record_is_counted_once_whichever_dag_reports_on_it(place: World) -> None:
    place.traffic(world.vehicles(30, seed=7))
    assert place.write("run-1")["captured_records"] == 30
    place.traffic(world.vehicles(8, seed=8), minutes=5)
    deployed = tasks.write_first_report.function({"endpoint_name": place.endpoint}, place.resources, run_id="run-1")
    assert deployed["captured_records"] == 8
    rows = {row["title"]: row for row in place.document(deployed)["previous"]["rows"]}
    assert (rows["Captured records"]["before"], rows["Captured records"]["now"]) == (30, 8)
    assert place.write("run-2")["captured_records"] == 0


def test_the_report_after_a_deployment_sends_its_own_alarm(place: World) -> None:
    place.traffic((world.vehicles(200, seed=9) * 0.35).astype(np.uint8))
    tasks.write_first_report.function({"endpoint_name": place.endpoint}, place.resources, run_id="run-1")
    assert len(place.messages()) == 1


def test_window_reports_on_inference_times_and_moves_no_place(place: World) -> None:
    place.traffic(world.vehicles(120, seed=8))
    since, until = place.start + timedelta(seconds=30), place.start + timedelta(seconds=50)
    written = place.write("run-w", since=since.isoformat(), until=until.isoformat())
    assert written["captured_records"] == 20
    assert place.write("run-1")["captured_records"] == 120


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        ("yesterday", None, "not an ISO 8601 time"),
        (None, "2026-01-01T00:00:00Z", "until is given without since"),
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "is not before until"),
    ],
)
def test_bad_window_fails_in_the_first_task(since: str | None, until: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tasks.resolve_resources.function(
            params={"since": since, "until": until, "endpoint_name": ""},
            dag=SimpleNamespace(params={}),
            dag_run=SimpleNamespace(conf={}),
        )


def test_drift_becomes_violation_alarm_and_one_request_to_retrain(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = (world.vehicles(200, seed=9) * 0.35).astype(np.uint8)
    place.traffic(night)
    written = place.write("run-1")
    assert written["status"] == "alarm"
    assert written["needs_retraining"] is True
    violations = place.document(written, "constraint_violations.json")["violations"]
    assert {"feature_name", "constraint_check_type", "description"} <= set(violations[0])
    assert "brightness" in {entry["feature_name"] for entry in violations}

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow")
    sent = place.send_alarm(written)
    assert sent["sent"] is True
    assert place.send_alarm(written)["sent"] is False
    (message,) = place.messages()
    assert message["Subject"].startswith("[Scones]")
    assert "brightness" in message["Message"]
    assert f"https://airflow/scones/reports/{place.endpoint}/{written['report_id']}" in message["Message"]

    asked = place.report_drift(written)
    assert asked is not None
    assert "brightness" in asked["features"]
    # A retry of the same run asks again (its event may be lost); the next hour's report does not.
    assert place.report_drift(written) is not None
    place.traffic(night, minutes=5)
    later = place.write("run-2")
    assert later["needs_retraining"] is True
    assert place.report_drift(later) is None
    assert place.report_drift(later, cooldown_hours=0) is not None


def test_no_traffic_is_told_from_a_broken_capture(place: World) -> None:
    assert place.write("run-1")["status"] == "no_traffic"
    place.invocations(40)
    written = place.write("run-2", since=place.start.isoformat())
    assert written["status"] == "capture_broken"
    assert place.document(written)["violations"][0]["constraint_check_type"] == "capture_broken_check"
    place.sagemaker.capture_enabled = False
    report = place.document(place.write("run-3", since=place.start.isoformat()))
    assert "switched off" in report["checks"][0]["detail"]


def test_missing_records_are_worth_a_look(place: World) -> None:
    place.traffic(world.vehicles(100, seed=10))
    place.invocations(200)
    report = place.document(place.write("run-1"))
    assert report["checks"][0]["status"] == "attention"
    assert "50% missing" in report["checks"][0]["detail"]


def test_ground_truth_that_arrives_later_gives_the_accuracy(place: World) -> None:
    identifiers = place.traffic(world.vehicles(100, seed=11))
    place.write("run-1")
    answers = world.confidences(100, 1).argmax(axis=1)
    truth = np.where(np.arange(100) < 40, 1 - answers, answers)
    lines = [
        json.dumps(
            {
                "groundTruthData": {"data": str(label), "encoding": "CSV"},
                "eventMetadata": {"eventId": identifier},
                "eventVersion": "0",
            }
        )
        for identifier, label in zip(identifiers, truth, strict=True)
    ]
    lines += ["not json", lines[0].replace(identifiers[0], "nobody")]
    hours: dict[str, list[str]] = {}
    for index, line in enumerate(lines):
        at = place.start + timedelta(seconds=min(index, 99))
        hours.setdefault(f"{at:%Y/%m/%d/%H}", []).append(line)
    for hour, part in hours.items():
        place.s3.put_object(
            Bucket=place.bucket, Key=f"ground-truth/{place.endpoint}/{hour}/labels.jsonl", Body="\n".join(part).encode()
        )
    report = place.document(place.write("run-2"))
    quality = report["quality"]
    assert quality["dataset"] == {"item_count": 100, "labels": 101, "unmatched_labels": 1}
    assert quality["accuracy"] == pytest.approx(0.6)
    assert quality["binary_classification_metrics"]["accuracy"]["value"] == pytest.approx(0.6)
    assert [entry["constraint_check_type"] for entry in report["violations"]] == ["model_quality_check"]
    # The same labels are not counted a second time.
    assert place.document(place.write("run-3"))["quality"] is None


def test_wait_for_capture_returns_when_the_records_are_there(place: World) -> None:
    place.traffic(world.vehicles(30, seed=12))
    place.invocations(30)
    waited = tasks.await_capture.function(place.resources, params={"capture_timeout_s": 20})
    assert (waited["expected"], waited["captured"], waited["complete"]) == (30, 30, True)
    place.invocations(1)
    late = tasks.await_capture.function(place.resources, params={"capture_timeout_s": 0.1})
    assert (late["expected"], late["captured"], late["complete"]) == (31, 30, False)


def test_what_a_report_has_counted_is_not_waited_for_again(place: World) -> None:
    """CloudWatch counts whole minutes: the requests of the minute in which a report ended are in the next sum too."""
    place.traffic(world.vehicles(8, seed=12), minutes=29)
    place.invocations(8, minutes=29)
    assert place.write("run-1")["captured_records"] == 8
    ended = (place.start + timedelta(minutes=29)).replace(second=30)
    key = f"reports/{place.endpoint}/watermark.json"
    place.aws.store.write_json(key, {**(place.aws.store.read_json(key) or {}), "until": ended.isoformat()})
    waited = tasks.await_capture.function(place.resources, params={"capture_timeout_s": 0.1})
    assert (waited["expected"], waited["captured"], waited["complete"]) == (0, 0, True)
    # Nor are they missing from the next report.
    place.traffic(world.vehicles(100, seed=13), minutes=29, seed=2)
    place.invocations(100, minutes=29)
    report = place.document(place.write("run-2"))
    assert (report["counts"]["invocations"], report["captured_records"]) == (100, 100)
    capture = next(check for check in report["checks"] if check["name"] == "capture")
    assert capture["status"] == "ok", capture


def test_metrics_reach_cloudwatch(place: World) -> None:
    place.traffic(world.vehicles(40, seed=13))
    written = place.write("run-1")
    assert tasks.publish_metrics.function(place.resources, written) > 5
    listed = place.cloudwatch.list_metrics(
        Namespace="Scones/ModelMonitor", Dimensions=[{"Name": "Endpoint", "Value": place.endpoint}]
    )["Metrics"]
    assert {"captured_records", "violations", "feature_baseline_drift_brightness"} <= {m["MetricName"] for m in listed}


def test_a_missing_endpoint_says_what_to_do(place: World) -> None:
    with pytest.raises(EndpointMissingError, match="train_and_deploy"):
        write_report(place.aws, ReportOrder("nobody", DagRun("d", "r")))


def test_malformed_lines_and_hostile_payloads_are_counted_and_harmless(place: World) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    at = place.start
    lines = [
        world.capture_line(world.png(world.vehicles(1)[0]), [0.5, 0.5], at, source=hostile, event_id=hostile),
        world.capture_line(b"<svg onload=alert(3)>", [0.6, 0.4], at),
        '{"captureData": "' + hostile,
        "null",
    ]
    key = world.capture_key(place.endpoint, at)
    place.s3.put_object(Bucket=place.bucket, Key=key, Body="\n".join(lines).encode())
    written = place.write("run-1")
    report = place.document(written)
    assert report["captured_records"] == 2
    assert report["counts"]["malformed_lines"] == 2
    assert report["counts"]["undecodable_images"] == 1
    assert key in report["problems"]["malformed_lines"][0]
    page = place.s3.get_object(Bucket=place.bucket, Key=written["html_uri"].split("/", 3)[3])["Body"].read().decode()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_captures_made_by_aws_are_read(place: World, shared_data: Path) -> None:
    root = shared_data / "captured"
    for file in root.rglob("*.jsonl"):
        key = f"capture/{place.endpoint}/{file.relative_to(root).as_posix()}"
        place.s3.put_object(Bucket=place.bucket, Key=key, Body=file.read_bytes())
    report = place.document(place.write("run-1"))
    assert report["captured_records"] == 22
    assert report["counts"]["files"] == 12
    assert report["counts"]["rejected"] == 7
    assert report["counts"]["undecodable_images"] == 0


def test_facts_of_the_model_come_from_the_model_and_not_from_what_was_staged_last(place: World) -> None:
    place.s3.put_object(
        Bucket=place.bucket, Key="datasets/current.json", Body=json.dumps({"dataset_version": "ds-refused"}).encode()
    )
    labels = {"0": "motorcycle", "1": "bicycle"}
    place.s3.put_object(Bucket=place.bucket, Key="datasets/ds-refused/label_map.json", Body=json.dumps(labels).encode())
    place.traffic(world.vehicles(40, seed=18))
    report = place.document(place.write("run-1"))
    assert report["classes"] == world.CLASSES
    assert report["baseline_available"]
    place.sagemaker.dataset = ""
    place.traffic(world.vehicles(40, seed=19), minutes=2)
    unknown = place.document(place.write("run-2"))
    assert unknown["classes"] == ["class 0", "class 1"]
    assert not unknown["baseline_available"]
    assert unknown["counts"]["unusable_outputs"] == 0


def test_an_old_run_tried_again_does_not_take_the_watermark_back(place: World) -> None:
    place.traffic(world.vehicles(10, seed=14))
    place.write("run-1")
    place.traffic(world.vehicles(10, seed=15), minutes=3)
    place.write("run-2")
    earlier = world.now() - timedelta(hours=1)
    write_report(place.aws, ReportOrder(place.endpoint, DagRun("monitor_endpoint", "run-1")), clock=lambda: earlier)
    assert place.write("run-3")["captured_records"] == 0


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[1]", b'{"reports": 5}', b'{"until": "0001-01-01T00:00:00Z"}', b"\xff"]
)
def test_damaged_lists_and_marks_end_no_report(place: World, content: bytes) -> None:
    place.traffic(world.vehicles(10, seed=16))
    place.write("run-1")
    place.s3.put_object(Bucket=place.bucket, Key=f"reports/{place.endpoint}/index.json", Body=content)
    place.traffic(world.vehicles(5, seed=17), minutes=3)
    assert place.write("run-2")["captured_records"] == 5
    place.s3.put_object(Bucket=place.bucket, Key=f"reports/{place.endpoint}/watermark.json", Body=content)
    # The last report's records are read again, not all there ever were.
    assert place.write("run-3")["captured_records"] == 5
    assert parse_place(place.aws.store.read(f"reports/{place.endpoint}/watermark.json"), []).until is not None
