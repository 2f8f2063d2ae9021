"""Evaluation and threshold against a real S3."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from scones.aws.layout import transform as transform_prefix
from scones.evaluation.evaluate import evaluate_model, publish_threshold
from scones.evaluation.gate import Rules, decide
from scones.evaluation.metrics import EvaluationError
from scones.evaluation.store import EvaluationStore
from scones.evaluation.threshold import ThresholdError, Why, parse

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


def put_answers(
    s3: Any, bucket: str, job: str, wrong: int, classes: int = 2, skip: int = 0, turned: bool = False
) -> None:
    rnd = random.Random(job)
    for number, (name, label) in enumerate(LABELS.items()):
        if number < skip:
            continue
        sure = rnd.uniform(0.6, 0.99)
        shown = 1 - label if number < wrong else label
        answer = [sure if index == shown else (1 - sure) / (classes - 1) for index in range(classes)]
        body = json.dumps({"prediction": answer[::-1] if turned else answer}) + "\n"
        s3.put_object(Bucket=bucket, Key=f"{transform_prefix(job)}{name}.out", Body=body)


def model(job: str, champion: str = "", classes: tuple[str, ...] = ("bicycle", "motorcycle")) -> Any:
    live = {"job_name": champion, "classes": list(classes)} if champion else None
    return {"job_name": job, "champion": live}


def evaluated(s3: Any, bucket: str, job: str, version: str = "ds-1", **champion: Any) -> Any:
    return evaluate_model(EvaluationStore(bucket, client=s3), version, model(job, **champion))


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
    def test_it_is_measured_on_the_same_images(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "old", wrong=9)
        put_answers(s3, bucket, "new", wrong=3)
        summary = evaluated(s3, bucket, "new", champion="old")
        champion = summary["champion"]
        assert champion["accuracy"] == pytest.approx(31 / 40)
        assert champion["difference"] == pytest.approx(6 / 40)
        assert (champion["only_challenger_right"], champion["only_champion_right"]) == (6, 0)
        assert decide(summary, champion, Rules(0.9, 0.02))["passed"]
        assert summary["recall"] == pytest.approx({"bicycle": 18 / 20, "motorcycle": 19 / 20})

    def test_its_figures_on_other_images_are_never_taken(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "old", wrong=9, skip=1)
        put_answers(s3, bucket, "new", wrong=3)
        with pytest.raises(EvaluationError, match="1 of 40 test images have no answer"):
            evaluated(s3, bucket, "new", champion="old")

    def test_one_of_another_order_is_compared_by_name(self, s3: Any, bucket: str) -> None:
        put_answers(s3, bucket, "old", wrong=1, turned=True)
        put_answers(s3, bucket, "new", wrong=3)
        summary = evaluated(s3, bucket, "new", champion="old", classes=("motorcycle", "bicycle"))
        assert summary["champion"]["accuracy"] == pytest.approx(39 / 40)
        refused = decide(summary, summary["champion"], Rules(0.8, 0.02))
        assert not refused["passed"]
        assert "0.0500 worse than the live model" in refused["summary"]

    @pytest.mark.parametrize("classes", [("bus", "tank"), ("bicycle", "motorcycle", "bus"), ()])
    def test_one_of_other_classes_is_named_and_its_answers_not_needed(
        self, s3: Any, bucket: str, classes: tuple[str, ...]
    ) -> None:
        put_answers(s3, bucket, "new", wrong=3)
        summary = evaluated(s3, bucket, "new", champion="old", classes=classes)
        assert summary["champion"]["comparable"] is False
        assert not decide(summary, summary["champion"], Rules(0.5, 0.5))["passed"]
        assert b"cannot be compared" in stored(s3, bucket, "evaluations/new/evaluation.html")


class TestThreshold:
    def publish(self, s3: Any, bucket: str, value: Any) -> dict[str, Any]:
        return asdict(publish_threshold(EvaluationStore(bucket, client=s3), value, Why("test", "because")))

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
                    publish_threshold(EvaluationStore(bucket, client=s3), 0.6, Why("other", "first"))
                return answer

            def put_object(self, **options: Any) -> Any:
                return s3.put_object(**options)

        ours = publish_threshold(EvaluationStore(bucket, client=Racing()), 0.7, Why("us", "second"))
        assert (ours.version, ours.threshold) == (3, 0.7)

    def test_parallel_writers_all_count(self, s3: Any, bucket: str) -> None:
        threads = [threading.Thread(target=self.publish, args=(s3, bucket, 0.5 + n / 10)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert parse(stored(s3, bucket, "config/threshold.json")).version == 3
