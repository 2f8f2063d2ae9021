"""Asking a person: only when it is needed, with what it takes to decide, and written into the registry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput

from scones.evaluation import operator
from scones.evaluation.operator import ModelApprovalOperator
from tests.support.fake_aws import FakeRegistryHook, FakeSageMaker
from tests.support.training import EVALUATION, register, training


class Ti:
    id = "1"


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> FakeSageMaker:
    from airflow.providers.standard.operators import hitl

    fake = FakeSageMaker()
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **_: None)
    monkeypatch.setattr(operator, "ModelRegistryHook", lambda: FakeRegistryHook(fake))
    return fake


def approval(registration: Any) -> ModelApprovalOperator:
    return ModelApprovalOperator(
        task_id="approve_model",
        registration=registration,
        evaluation=EVALUATION,
        decision={"summary": "Accepted: accurate enough"},
        training=training("j"),
        fleet={"instance_type": "ml.m5.large", "instance_count": "2"},
        timeout_minutes="5",
        subject="Deploy?",
    )


def test_nobody_is_asked_when_the_registration_says_so(sagemaker: FakeSageMaker) -> None:
    assert approval(register(sagemaker, "j")).execute({}) == {"decision": "not asked"}


def test_a_person_is_asked_with_the_figures_and_the_time_limit_of_the_run(sagemaker: FakeSageMaker) -> None:
    task = approval(register(sagemaker, "j", ask=True))
    context: Any = {"task_instance": Ti(), "ti": Ti()}
    with pytest.raises(TaskAwaitingInput) as waiting:
        task.execute(context)
    assert waiting.value.timeout == timedelta(minutes=5)
    assert "Accuracy 91.0%" in str(task.body)
    assert "/scones/evaluations/j)" in str(task.body)


@pytest.mark.parametrize(("answer", "status"), [("Approve", "Approved"), ("Reject", "Rejected")])
def test_the_answer_is_written_into_the_registry(sagemaker: FakeSageMaker, answer: str, status: str) -> None:
    registration = register(sagemaker, "j", ask=True)
    task = approval(registration)
    event = {
        "chosen_options": [answer],
        "params_input": {},
        "responded_at": datetime.now(UTC),
        "responded_by_user": {"id": "1", "name": "ann"},
    }
    context: Any = {"task": task, "ti": Ti()}
    task.execute_complete(context, event)
    package = sagemaker.things["model_package", registration["model_package_arn"]]
    assert (package["ModelApprovalStatus"], package["ApprovalDescription"]) == (status, f"{status} in Airflow by ann")
    assert register(sagemaker, "j", ask=True)["asks_person"] is (status == "Rejected")


def test_no_answer_in_time_fails_and_leaves_the_registry_alone(sagemaker: FakeSageMaker) -> None:
    task = approval(register(sagemaker, "j", ask=True))
    late: Any = {"error": "late", "error_type": "timeout"}
    with pytest.raises(AirflowFailException, match="start a new run"):
        task.execute_complete({}, late)
    assert sagemaker.called("update_model_package") == []
