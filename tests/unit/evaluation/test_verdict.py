"""After the gate: a version in the registry, a question to a person, or a refusal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scones.evaluation.verdict import git_revision, question, record_refusal
from tests.support.fake_aws import FakeRegistryHook, FakeS3, FakeSageMaker, store
from tests.support.training import DATASET, EVALUATION, legal, register, training


@pytest.fixture
def sagemaker() -> FakeSageMaker:
    return FakeSageMaker()


def test_a_package_carries_metrics_lineage_and_approval_and_is_registered_once(sagemaker: FakeSageMaker) -> None:
    first = register(sagemaker, "j")
    assert (first["version"], first["approval_status"], first["created"]) == (1, "Approved", True)
    request = sagemaker.called("create_model_package")[0]
    assert legal("CreateModelPackage", request) == ""
    metadata = request["CustomerMetadataProperties"]
    assert metadata["dataset_version"] == DATASET["dataset_version"]
    assert (metadata["training_job"], metadata["test_accuracy"], metadata["image_shape"]) == ("j", "0.91", "3:32:32")
    assert metadata["classes"] == "bicycle:motorcycle"
    assert metadata["git_revision"]
    assert "image/png" in request["InferenceSpecification"]["SupportedContentTypes"]
    assert request["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"] == EVALUATION["evaluation_uri"]
    again = register(sagemaker, "j")
    assert (again["version"], again["created"]) == (1, False)
    assert register(sagemaker, "k")["version"] == 2


def test_a_person_is_asked_unless_a_person_approved_this_very_model(sagemaker: FakeSageMaker) -> None:
    assert not register(sagemaker, "j")["asks_person"]  # approved by a run that asks nobody
    waiting = register(sagemaker, "j", ask=True)
    assert (waiting["approval_status"], waiting["asks_person"]) == ("Approved", True)
    hook = FakeRegistryHook(sagemaker)
    arn = waiting["model_package_arn"]
    hook.set_approval(arn, "Rejected", "Rejected in Airflow by ann", "ann")
    assert register(sagemaker, "j", ask=True)["asks_person"]
    hook.set_approval(arn, "Approved", "Approved in Airflow by ann", "ann")
    call = sagemaker.called("update_model_package")[-1]
    assert legal("UpdateModelPackage", call) == ""
    assert (call["ModelApprovalStatus"], call["ApprovalDescription"]) == ("Approved", "Approved in Airflow by ann")
    assert not register(sagemaker, "j", ask=True)["asks_person"]
    assert register(sagemaker, "j", ask=True, always=True)["asks_person"]  # other classes than the live ones
    new = register(sagemaker, "k", ask=True)
    assert (new["approval_status"], new["asks_person"]) == ("PendingManualApproval", True)


def test_the_question_says_what_a_person_needs() -> None:
    decision: Any = {"summary": "Accepted: accuracy 0.9100 is at least the minimum 0.8500"}
    evaluation: Any = {
        **EVALUATION,
        "champion": {"comparable": True, "training_job_name": "old", "accuracy": 0.9, "classes": []},
    }
    asked = question(evaluation, decision, training("j"), "http://h/scones/evaluations/j", ("ml.m5.large", 2))
    for words in (
        "Accuracy 91.0%",
        "(old) has 90.0%",
        "Accepted: accuracy 0.9100",
        "| motorcycle | 87.0% |",
        "training: 0.12 USD",
        "167.90 USD a month",
        "(http://h/scones/evaluations/j)",
    ):
        assert words in asked
    blind: Any = {**EVALUATION, "champion": {"comparable": False, "reason": "it knows bus, tank"}}
    assert "cannot be compared: it knows bus, tank" in question(blind, decision, training("j"), "", ("ml.odd", 1))


def test_a_refusal_is_recorded() -> None:
    s3 = FakeS3()
    reasons = ["accuracy 0.6 is below the minimum 0.8"]
    evaluation: Any = EVALUATION
    document, uri = record_refusal(
        store(client=s3), evaluation, reasons, "manual__1", now=datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert uri == document["record"] == "s3://b/refused/j.json"
    stored = json.loads(s3.objects["refused/j.json"])
    assert (stored["reasons"], stored["run_id"]) == (reasons, "manual__1")


def test_the_git_revision_is_given_found_or_unknown(tmp_path: Path) -> None:
    assert git_revision(environ={"SCONES_GIT_REVISION": "abc123"}) == "abc123"
    assert git_revision(folder=tmp_path, environ={}) == "unknown"
