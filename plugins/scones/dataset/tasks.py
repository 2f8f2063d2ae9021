"""The dataset's task as Airflow sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import task

from scones.defaults import DATASET_ASSET

JsonDict = dict[str, Any]


@task(multiple_outputs=False, task_id="stage_images", outlets=[DATASET_ASSET], execution_timeout=timedelta(hours=2))
def stage_images(resources: Mapping[str, str], params: Any = None, outlet_events: Any = None) -> JsonDict:
    """Stage the archive as a versioned dataset in S3."""
    from scones.dataset.staging import stage_images as stage

    dataset = stage(
        bucket=resources["BucketName"],
        classes=params["classes"],
        validation_share=params["validation_share"],
        seed=params["seed"],
        training_input=params["input_kind"],
        mini_batch_size=params["mini_batch_size"],
    )
    outlet_events[DATASET_ASSET].extra = {
        key: dataset[key] for key in ("dataset_version", "manifest_uri", "counts", "classes")
    }
    return dataset
