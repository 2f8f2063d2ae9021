"""Training runs beside each other, and the lineage of one."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from scones.aws import layout
from scones.dataset.recordio import pack_image
from scones.monitoring.index import DagRun, IndexEntry, Window
from scones.ui.aws import read_trainings
from scones.ui.pages import Endpoint
from scones.ui.store import PageStore
from scones.ui.trainings import Training, compared, lineage_page, trainings_page
from tests.support.batch_world import png
from tests.support.fake_aws import FakeS3

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


def job(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:{name}",
        "TrainingJobStatus": "Completed",
        "CreationTime": AT,
        "BillableTimeInSeconds": 100,
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge"},
        "HyperParameters": {"epochs": "3"},
        "InputDataConfig": [{"DataSource": {"S3DataSource": {"S3Uri": "s3://b/datasets/ds-1/train/"}}}],
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://b/training/{name}/output/model.tar.gz"},
        **changes,
    }


def package(name: str, version: int) -> dict[str, Any]:
    return {
        "ModelPackageArn": f"arn:package/{version}",
        "ModelPackageVersion": version,
        "ModelApprovalStatus": "Approved",
        "CustomerMetadataProperties": {"approved_by": "ann"},
        "InferenceSpecification": {
            "Containers": [{"Image": "i", "ModelDataUrl": f"s3://b/training/{name}/output/model.tar.gz"}]
        },
    }


@pytest.fixture
def bucket() -> PageStore:
    store = PageStore("b", client=FakeS3())
    store.write_json(layout.evaluation("one", "evaluation.json"), {"test_accuracy": 0.91, "log_loss": 0.3})
    store.write(layout.evaluation("two", "evaluation.json"), b"[", "application/json")
    store.write_json(layout.refusal("two"), {})
    store.write_json(layout.manifest("ds-1"), {"counts": {"train": {"a": 450, "b": 450}, "test": {"a": 200}}})
    store.write_json(layout.summary("batch-1"), {"model": {"training_job": "one"}})
    store.write(layout.summary("batch-2"), b"[]", "application/json")
    return store


class Hook:
    """Two jobs, one of which is registered and live."""

    conn_client_meta = SimpleNamespace(endpoint_url="http://127.0.0.1:4580")

    def packages(self, _: str) -> Any:
        return iter([package("one", 4)])

    def pages(self, operation: str, *_: Any, **__: Any) -> Any:
        if operation == "search":
            source, parents = {"SourceArn": "arn:one"}, [{"TrialName": "a-run"}, {"TrialName": "its-reuse"}]
            return iter([{"TrialComponent": {"Source": source, "Parents": parents}}, {"TrialComponent": {}}])
        names = {"list_endpoints": ["courier", "other"], "list_training_jobs": ["two", "one", "running"]}[operation]
        member = {"list_endpoints": "EndpointName", "list_training_jobs": "TrainingJobName"}[operation]
        return iter([{member: name} for name in names])

    def served_model(self, endpoint: str) -> dict[str, Any] | None:
        return {"PrimaryContainer": {"ModelPackageName": "arn:package/4"}} if endpoint == "courier" else None

    def training_job(self, name: str) -> dict[str, Any] | None:
        if name == "never":
            return None
        return job(name, **({"ModelArtifacts": {}, "HyperParameters": {"epochs": "9"}} if name == "running" else {}))


def found(bucket: PageStore) -> dict[str, Training]:
    hook: Any = Hook()
    return {one.name: one for one in read_trainings(bucket, hook)}


def test_each_run_has_its_figures_its_decision_and_where_it_is_live(bucket: PageStore) -> None:
    runs = found(bucket)
    assert list(runs) == ["two", "one", "running"]
    one = runs["one"].facts
    assert (one["Accuracy"], one["Log loss"], one["Dataset"], one["Version"]) == ("91.0 %", "0.3", "ds-1", "4")
    assert (one["Decision"], one["Live on"], one["Cost"]) == ("Approved by ann", "courier", "0.0204 USD on AWS")
    assert (runs["two"].facts["Decision"], runs["two"].facts["Accuracy"]) == ("refused by the gate", "\u2013")
    assert runs["running"].facts["Live on"] == "\u2013"
    assert (one["Trial"], runs["two"].facts["Trial"]) == ("a-run, its-reuse", "\u2013")


def test_one_job_is_read_however_many_are_newer(bucket: PageStore) -> None:
    hook: Any = Hook()
    assert [one.name for one in read_trainings(bucket, hook, job="long-ago")] == ["long-ago"]
    assert read_trainings(bucket, hook, job="never") == []


def test_a_tuned_run_names_its_tuning_job(bucket: PageStore) -> None:
    tuned = Training(job("t-001", TuningJobArn="arn:aws:sagemaker:r:111122223333:hyper-parameter-tuning-job/scones-t"))
    assert tuned.facts["Tuning job"] == "scones-t"
    for page in (trainings_page("/scones", [tuned], "", ""), lineage_page(bucket, "/scones", tuned, [])):
        assert 'href="/scones/resources/tuning-jobs/scones-t"' in page


def test_two_runs_are_shown_side_by_side(bucket: PageStore) -> None:
    runs = found(bucket)
    rows = {row.name: (row.a, row.b) for row in compared(runs["one"], runs["running"])}
    assert rows["epochs"] == ("3", "9")
    assert rows["Dataset"] == ("ds-1", "ds-1")
    page = trainings_page("/scones", list(runs.values()), "one", "running")
    assert "What differs is marked" in page
    assert "What differs is marked" not in trainings_page("/scones", list(runs.values()), "one", HOSTILE)


def test_the_lineage_goes_from_the_dataset_to_what_the_model_answered(bucket: PageStore) -> None:
    entry = IndexEntry(
        report_id="report-1",
        created_at=AT,
        window=Window(AT, AT),
        run=DagRun(),
        status="ok",
        headline="",
        captured_records=7,
        rejection_rate=None,
        mean_confidence=None,
        latency_p95_ms=None,
        violations=0,
        training_job_name="one",
    )
    page = lineage_page(bucket, "/scones", found(bucket)["one"], [Endpoint("courier", [entry])])
    for wanted in (
        "ds-1 (200 test, 900 train)",
        "s3://b/datasets/ds-1/manifest.json",
        'href="/scones/resources/training-jobs/one"',
        'href="/scones/evaluations/one"',
        "arn:package/4",
        'href="/scones/resources/endpoints/courier"',
        'href="/scones/reports/courier/report-1"',
        'href="/scones/predictions?batch=batch-1"',
    ):
        assert wanted in page
    assert "batch-2" not in page
    assert "Training images" not in page


@pytest.mark.parametrize("as_recordio", [True, False])
def test_the_lineage_shows_training_images_whichever_way_they_train(bucket: PageStore, as_recordio: bool) -> None:
    bucket.write_json(layout.manifest("ds-1"), {"counts": {}, "classes": ["bicycle", HOSTILE]})
    if as_recordio:
        records = pack_image(1, 7, png(10)) + pack_image(0, 8, b"no image") + pack_image(0, 9, png(20))[:40]
        bucket.write(f"{layout.recordio('ds-1', 'train')}train-00000.rec", records, "")
    else:
        bucket.write(f"{layout.training_images('ds-1')}a_<1>.png", png(10), "image/png")
    page = lineage_page(bucket, "/scones", found(bucket)["one"], [])
    assert page.count('<img src="data:image/png;base64,') == 1
    assert f"the first {2 if as_recordio else 1}" in page
    assert "<script" not in page


def test_what_others_named_stays_text(bucket: PageStore) -> None:
    hostile = Training(
        job(HOSTILE, HyperParameters={HOSTILE: HOSTILE}, TrainingJobStatus=HOSTILE),
        {"ModelApprovalStatus": HOSTILE, "ModelPackageArn": HOSTILE},
        {"test_accuracy": float("inf"), "log_loss": 10**400},
        live_on=[HOSTILE],
    )
    pages = [
        trainings_page("/scones", [hostile, found(bucket)["one"]], HOSTILE, "one"),
        lineage_page(bucket, "/scones", hostile, []),
    ]
    assert all("<script" not in page and "&lt;script&gt;" in page for page in pages)


def test_without_runs_the_page_says_what_to_do() -> None:
    assert "Run train_and_deploy" in trainings_page("/scones", [], "", "")
