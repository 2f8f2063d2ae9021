"""SageMaker and the bucket that the operators of training and evaluation meet."""

from __future__ import annotations

import pytest

from scones.evaluation import operator as transform
from scones.evaluation.store import EvaluationStore
from scones.training import operator as training
from tests.support.fake_aws import FakeS3, FakeSageMaker


@pytest.fixture
def sagemaker() -> FakeSageMaker:
    return FakeSageMaker()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    s3 = FakeS3()

    def open_store(name: str, aws_conn_id: str | None = None) -> EvaluationStore:
        return EvaluationStore(name, aws_conn_id, client=s3)

    monkeypatch.setattr(training, "TrainingStore", open_store)
    monkeypatch.setattr(transform, "EvaluationStore", open_store)
    return s3
