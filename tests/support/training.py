"""What the tests of training, evaluation and deployment share: a staged dataset, trained, registered and served models,
the provider's hook, a task's context.
"""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import TaskDeferred
from botocore.validate import ParamValidator

from sagemaker_local.errors import ValidationException
from sagemaker_local.protocol import parse_request, service_model
from scones.evaluation.data import Evaluation
from scones.evaluation.verdict import Approval, Work
from scones.evaluation.verdict import register as register_version
from scones.training.data import StagedDataset
from scones.training.models import create_model
from scones.training.operator import TrainingOperator
from tests.support.fake_aws import FakeRegistryHook, FakeS3, FakeSageMaker, store

RESOURCES = {
    "BucketName": "b",
    "SageMakerRoleArn": "arn:aws:iam::111122223333:role/r",
    "EndpointName": "courier",
    "AlertTopicArn": "arn:topic",
}
STACK = {"BucketName": "b", "SageMakerRoleArn": "arn:aws:iam::111122223333:role/r"}

DATASET: dict[str, Any] = {
    "dataset_version": "ds-0123456789ab",
    "bucket": "b",
    "prefix": "datasets/ds-0123456789ab/",
    "train_uri": "s3://b/train/",
    "validation_uri": "s3://b/validation/",
    "test_uri": "s3://b/test/",
    "train_lst_uri": "s3://b/train.lst",
    "validation_lst_uri": "s3://b/validation.lst",
    "recordio_train_uri": "s3://b/rec/train/",
    "recordio_validation_uri": "s3://b/rec/validation/",
    "classes": ["bicycle", "motorcycle"],
    "counts": {"train": 800, "validation": 200, "test": 200},
    "image_shape": "3,32,32",
    "baseline_uri": "s3://b/datasets/ds-0123456789ab/baseline/",
}
EVALUATION: dict[str, Any] = {
    "evaluation_uri": "s3://b/evaluations/j/evaluation.json",
    "training_job_name": "j",
    "images": 200,
    "test_accuracy": 0.91,
    "log_loss": 0.2,
    "recall": {"bicycle": 0.95, "motorcycle": 0.87},
    "champion": None,
}


def training(job: str) -> Any:
    return {
        "job_name": job,
        "image": "repo/image-classification:1",
        "model_artifacts": f"s3://b/training/{job}/output/model.tar.gz",
        "instance_type": "ml.g4dn.xlarge",
        "billable_seconds": 600,
        "metrics": {"validation:accuracy": 0.9},
        "fingerprint": "f",
    }


def create(sagemaker: FakeSageMaker, job: str, s3: FakeS3 | None = None) -> Any:
    return create_model(training(job), RESOURCES, store(client=s3), FakeRegistryHook(sagemaker))


def register(sagemaker: FakeSageMaker, job: str, *, ask: bool = False, always: bool = False, **dataset: Any) -> Any:
    """Register the model of a job, with the dataset's facts changed."""
    create(sagemaker, job)
    staged, evaluation = cast(StagedDataset, {**DATASET, **dataset}), cast(Evaluation, EVALUATION)
    work = Work(staged, training(job), evaluation, "train_and_deploy", "manual__1")
    sagemaker.things.setdefault(("model_package_group", "scones-courier"), {})
    return register_version(work, Approval(ask, always), FakeRegistryHook(sagemaker))


def serve(sagemaker: FakeSageMaker, job: str) -> None:
    """Let the endpoint serve a job's model, from the config ``c-<job>``."""
    name = create(sagemaker, job)["model_name"]
    variant = {"VariantName": "AllTraffic", "ModelName": name}
    sagemaker.create_endpoint_config(EndpointConfigName=f"c-{job}", ProductionVariants=[variant])
    sagemaker.things.pop(("endpoint", "courier"), None)
    sagemaker.create_endpoint(EndpointName="courier", EndpointConfigName=f"c-{job}")
    sagemaker.finish_deployment("courier")


def legal(operation: str, request: dict[str, Any]) -> str:
    """What botocore's service model says against a request, its patterns and bounds too; empty when nothing."""
    described = service_model().operation_model(operation)
    report = ParamValidator().validate(request, described.input_shape)
    if report.has_errors():
        return report.generate_report()
    try:
        parse_request(described, json.dumps(request, default=str).encode())
    except ValidationException as error:
        return str(error)
    return ""


class Ti:
    dag_id = "train_and_deploy"

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value


class StockHook:
    """What the operators use of the provider's hook."""

    conn_region_name = "us-east-1"

    def __init__(self, client: FakeSageMaker) -> None:
        self.conn = client
        self.conn_client_meta = type("Meta", (), {"endpoint_url": "http://127.0.0.1:4580"})
        self.checked: list[Any] = []

    def check_training_config(self, request: dict[str, Any]) -> None:
        self.checked.append(request)

    check_tuning_config = check_training_config


def context(task_id: str = "train_model") -> Any:
    return {"ti": Ti(task_id), "run_id": "manual__1"}


def another_run() -> Any:
    return {"ti": Ti("train_model"), "run_id": "manual__2"}


def operator(sagemaker: FakeSageMaker, **changes: Any) -> TrainingOperator:
    arguments: dict[str, Any] = {
        "task_id": "train_model",
        "dataset": DATASET,
        "stack": STACK,
        "training_image": "repo/image-classification:1",
        "hyperparameters": {"epochs": "3", "mini_batch_size": "32"},
        "region_name": "us-east-1",
        "botocore_config": {"read_timeout": 7},
        "verify": False,
    }
    task = TrainingOperator(**{**arguments, **changes})
    task.__dict__["hook"] = StockHook(sagemaker)
    task._resources_hook = lambda: FakeRegistryHook(sagemaker)  # type: ignore[method-assign]
    return task


def deferred(task: Any, where: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(where)
    return caught.value
