"""The task after a training job: its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow.sdk import task

if TYPE_CHECKING:
    from scones.training.data import Candidate, TrainingResult


@task(multiple_outputs=False, task_id="create_model")
def create_model(training: TrainingResult, resources: Mapping[str, str]) -> Candidate:
    """Create the SageMaker model; find the champion."""
    from scones.training.models import create_model as create
    from scones.training.store import TrainingStore

    return create(training, resources, TrainingStore(resources["BucketName"]))
