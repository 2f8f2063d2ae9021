"""Evaluation and threshold against a real S3."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from scones.evaluation.evaluate import (
    champion_needs_transform,
    check_gate,
    evaluate_model,
    publish_threshold,
    transform_prefix,
)
from scones.evaluation.metrics import EvaluationError
from scones.evaluation.threshold import ThresholdError, parse

FILES = [f"image_{number:03d}.png" for number in range(40)]
LABELS = {name: number % 2 for number, name in enumerate(FILES)}


@pytest.fixture(scope="module")
def s3(ministack: str, aws: Callable[..., Any]) -> Any:
    return aws("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"evaluation-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    put_manifest(s3, name, "ds-1")
    return name


def put_manifest(s3: Any, bucket: str, version: str) -> None:
    files = [{"key": f"test/{name}", "split": "test", "label": label} for name, label in LABELS.items()]
    document = {
        "classes": ["bicycle", "motorcycle"],
        "dataset_version": version,
        "files": files,
        "source": {"kind": "sample"},
    }
    s3.put_object(Bucket=bucket, Key=f"datasets/{version}/manifest.json", Body=json.dumps(document))


def put_answers(s3: Any, bucket: str, job: str, wrong: int, classes: int = 2, skip: int = 0) -> None:
    rnd = random.Random(job)
    for number, (name, label) in enumerate(LABELS.items()):
        if number < skip:
            continue
        sure = rnd.uniform(0.6, 0.99)
        shown = 1 - label if number < wrong else label
        answer = [sure if index == shown else (1 - sure) / (classes - 1) for index in range(classes)]
        body = json.dumps({"prediction": answer}) + "\n"
        s3.put_object(Bucket=bucket, Key=f"{transform_prefix(job)}{name}.out", Body=body)


def evaluated(s3: Any, bucket: str, job: str, version: str = "ds-1", **options: Any) -> dict[str, Any]:
    key = f"datasets/{version}/manifest.json"
    return evaluate_model(bucket=bucket, manifest_key=key, training_job_name=job, s3=s3, **options)


def stored(s3: Any, bucket: str, key: str) -> bytes:
    return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


class TestEvaluate:
    def test_writes_both_documents(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "job-1", wrong=6)
        summary = evaluated(s3, bucket, "job-1")
        assert summary["test_accuracy"] == pytest.approx(34 / 40)
        assert summary["champion"] is None
        document = json.loads(stored(s3, bucket, "evaluations/job-1/evaluation.json"))
        assert document["dataset_version"] == "ds-1"
        assert len(document["mistakes"]) == 6
        assert {item["key"].rsplit("/", 1)[-1] for item in document["mistakes"]} == set(FILES[:6])
        page = s3.get_object(Bucket=bucket, Key="evaluations/job-1/evaluation.html")
        assert page["ContentType"].startswith("text/html")
        assert b"Evaluation of job-1" in page["Body"].read()
        json.dumps(summary)

    def test_answers_in_folders_are_found(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "job-1", wrong=0)
        first = f"{transform_prefix('job-1')}{FILES[0]}.out"
        s3.copy_object(
            Bucket=bucket, Key=f"{transform_prefix('job-1')}part/{FILES[0]}.out", CopySource=f"{bucket}/{first}"
        )
        s3.delete_object(Bucket=bucket, Key=first)
        assert evaluated(s3, bucket, "job-1")["images"] == 40

    def test_images_without_an_answer_are_named(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "job-1", wrong=0, skip=12)
        with pytest.raises(
            EvaluationError, match=r"12 of 40 test images have no answer .*image_000\.png.*image_009\.png, \.\.\."
        ):
            evaluated(s3, bucket, "job-1")

    def test_a_malformed_answer_is_named(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "job-1", wrong=0)
        s3.put_object(Bucket=bucket, Key=f"{transform_prefix('job-1')}{FILES[7]}.out", Body=b"<html>")
        with pytest.raises(EvaluationError, match=r"image_007\.png is not JSON"):
            evaluated(s3, bucket, "job-1")

    def test_answers_of_another_model_are_refused(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "job-1", wrong=0, classes=3)
        with pytest.raises(EvaluationError, match=r"expected \(40, 2\)"):
            evaluated(s3, bucket, "job-1")


class TestChampion:
    def test_evaluated_on_the_same_version_needs_nothing(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "old", wrong=9)
        evaluated(s3, bucket, "old")
        question = {"bucket": bucket, "champion_job_name": "old", "s3": s3}
        assert not champion_needs_transform(**question, dataset_version="ds-1")
        assert champion_needs_transform(**question, dataset_version="ds-2")
        assert not champion_needs_transform(bucket=bucket, champion_job_name=None, dataset_version="ds-1", s3=s3)
        put_answers(s3, bucket, "new", wrong=3)
        summary = evaluated(s3, bucket, "new", champion_job_name="old")
        assert summary["champion"]["accuracy"] == pytest.approx(31 / 40)
        assert summary["champion"]["difference"] == pytest.approx(6 / 40)
        assert (summary["champion"]["only_challenger_right"], summary["champion"]["only_champion_right"]) == (6, 0)
        assert check_gate(evaluation=summary, min_accuracy=0.9, max_drop=0.02)["passed"]

    def test_its_figures_on_other_images_are_never_taken(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "old", wrong=9)
        evaluated(s3, bucket, "old")
        put_manifest(s3, bucket, "ds-2")
        put_answers(s3, bucket, "new", wrong=3)
        with pytest.raises(EvaluationError, match="has not answered the test images of ds-2"):
            evaluated(s3, bucket, "new", "ds-2", champion_job_name="old")
        put_answers(s3, bucket, "old-again", wrong=1)
        prefix = transform_prefix("old-again")
        summary = evaluated(s3, bucket, "new", "ds-2", champion_job_name="old", champion_transform_prefix=prefix)
        assert summary["champion"]["accuracy"] == pytest.approx(39 / 40)
        refused = check_gate(evaluation=summary, min_accuracy=0.8, max_drop=0.02)
        assert not refused["passed"]
        assert "0.0500 worse than the live model" in refused["summary"]

    def test_one_of_other_classes_is_named(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "old", wrong=0, classes=5)
        put_answers(s3, bucket, "new", wrong=3)
        options = {"champion_job_name": "old", "champion_transform_prefix": transform_prefix("old")}
        summary = evaluated(s3, bucket, "new", **options)
        assert summary["champion"]["comparable"] is False
        assert check_gate(evaluation=summary, min_accuracy=0.9, max_drop=0)["passed"]
        assert b"cannot be compared" in stored(s3, bucket, "evaluations/new/evaluation.html")


class TestThreshold:
    def publish(self, s3: Any, bucket: str, value: Any) -> dict[str, Any]:
        return publish_threshold(bucket=bucket, threshold=value, set_by="test", reason="because", s3=s3)

    def test_versions(self, s3: Any, bucket: str) -> None:
        assert self.publish(s3, bucket, 0.93)["version"] == 1
        assert self.publish(s3, bucket, 0.93)["version"] == 1
        assert self.publish(s3, bucket, 0.9)["version"] == 2
        document = parse(stored(s3, bucket, "config/threshold.json"))
        assert (document.threshold, document.version, document.set_by) == (0.9, 2, "test")

    def test_bad_values_and_documents_change_nothing(self, s3: Any, bucket: str) -> None:
        self.publish(s3, bucket, 0.93)
        for value in (0, 1.5, "0.9", None):
            with pytest.raises(ThresholdError):
                self.publish(s3, bucket, value)
        assert parse(stored(s3, bucket, "config/threshold.json")).version == 1
        s3.put_object(Bucket=bucket, Key="config/threshold.json", Body=b"{")
        with pytest.raises(ThresholdError, match="not JSON"):
            self.publish(s3, bucket, 0.9)

    def test_a_writer_in_between_is_not_overwritten(self, s3: Any, bucket: str) -> None:
        self.publish(s3, bucket, 0.5)

        class Racing:
            """Somebody else publishes between our reading and our writing, once."""

            def __init__(self) -> None:
                self.raced = False

            def get_object(self, **options: Any) -> Any:
                answer = s3.get_object(**options)
                if not self.raced:
                    self.raced = True
                    publish_threshold(bucket=bucket, threshold=0.6, set_by="other", reason="first", s3=s3)
                return answer

            def put_object(self, **options: Any) -> Any:
                return s3.put_object(**options)

        ours = publish_threshold(bucket=bucket, threshold=0.7, set_by="us", reason="second", s3=Racing())
        assert (ours["version"], ours["threshold"]) == (3, 0.7)

    def test_parallel_writers_all_count(self, s3: Any, bucket: str) -> None:
        threads = [threading.Thread(target=self.publish, args=(s3, bucket, 0.5 + n / 10)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert parse(stored(s3, bucket, "config/threshold.json")).version == 3
