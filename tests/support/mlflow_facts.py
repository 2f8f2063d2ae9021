"""A training run as MLflow is told of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from scones.evaluation.tracking import Facts

BEGAN, ENDED = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 12, 5, tzinfo=UTC)


def facts(**changes: Any) -> Facts:
    """Three epochs, passed by the gate, not registered yet."""
    training: Any = {
        "job_name": "scones-train-1",
        "image": "image:1",
        "instance_type": "ml.g4dn.xlarge",
        "model_artifacts": "s3://b/training/scones-train-1/output/model.tar.gz",
        "training_seconds": 100.0,
        "billable_seconds": 120.0,
        "metrics": {"validation:accuracy": 0.95, "train:loss": float("nan")},
        "hyperparameters": {"epochs": "3", "learning_rate": "0.01"},
    }
    evaluation: Any = {
        "test_accuracy": 0.94,
        "log_loss": 0.13,
        "expected_calibration_error": 0.02,
        "auc": "no negatives",
        "recommended_threshold": None,
        "recall": {"bicycle": 0.9, "motorcycle": 0.98},
        "champion": {"accuracy": 0.92},
    }
    given: dict[str, Any] = {
        "training": training,
        "dataset": {
            "dataset_version": "ds-1",
            "manifest_uri": "s3://b/datasets/ds-1/manifest.json",
            "classes": ["bicycle", "motorcycle"],
        },
        "job": {"TrainingStartTime": BEGAN, "TrainingEndTime": ENDED},
        "evaluation": evaluation,
        "decision": {"passed": True, "summary": "Accuracy 94.0 % is at least 75.0 %"},
        "log": [f"Epoch[{n}] {kind}-accuracy=0.{90 + n}" for n in range(3) for kind in ("Train", "Validation")],
        "links": {"Lineage": "http://127.0.0.1:8080/scones/lineage/scones-train-1"},
    }
    return Facts(**given | changes)


def approved() -> Facts:
    """The same, registered and approved by a person."""
    package = {
        "ModelPackageArn": "arn:aws:sagemaker:us-east-1:111122223333:model-package/scones-courier/4",
        "ModelPackageVersion": 4,
        "ModelApprovalStatus": "Approved",
        "CustomerMetadataProperties": {"approved_by": "ann", "git_revision": "abc123"},
    }
    return facts(package=package)
