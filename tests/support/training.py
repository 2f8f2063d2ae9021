"""What the tests of training and deployment share: a staged dataset, the provider's hook, a task's context."""

from __future__ import annotations

from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from tests.support.fake_aws import FakeSageMaker

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
}


def legal(operation: str, request: dict[str, Any]) -> str:
    """What botocore's own service model says against a request; empty when nothing."""
    model = botocore.session.Session().get_service_model("sagemaker")
    report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
    return report.generate_report() if report.has_errors() else ""


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


def context(task_id: str = "train_model") -> Any:
    return {"ti": Ti(task_id), "run_id": "manual__1"}
