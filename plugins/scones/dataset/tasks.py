"""The dataset's task as Airflow sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, task

if TYPE_CHECKING:
    from scones.training.data import StagedDataset

# The prefix x- marks a scheme of our own: for any other, Airflow loads every provider (and boto3) to normalise the URI.
DATASET_ASSET = Asset(name="scones_dataset", uri="x-scones://dataset/current", group="scones")


@task(multiple_outputs=False, task_id="stage_images", outlets=[DATASET_ASSET], execution_timeout=timedelta(hours=2))
def stage_images(
    resources: Mapping[str, str], params: Any = None, dag_run: Any = None, outlet_events: Any = None
) -> StagedDataset:
    """Stage the archive as a versioned dataset in S3."""
    from scones.dataset.staging import UPLOAD_THREADS, StagingRequest, stage
    from scones.dataset.store import open_store
    from scones.settings import Settings
    from scones.training.aws import read_served_model

    store = open_store(resources["BucketName"], UPLOAD_THREADS)
    # Nobody filled in the form of a scheduled run or one that drift started: it goes on with what is live.
    alone = dag_run.run_type in ("scheduled", "asset_triggered")
    served = read_served_model(resources["EndpointName"], store) if alone else None
    request = StagingRequest(
        classes=(served.classes if served else ()) or tuple(params["classes"]),
        validation_share=params["validation_share"],
        seed=params["seed"],
        input_kind=params["input_kind"],
        mini_batch_size=params["mini_batch_size"],
    )
    dataset = stage(store, request, Settings.from_environ())
    outlet_events[DATASET_ASSET].extra = {
        key: dataset[key] for key in ("dataset_version", "manifest_uri", "counts", "classes")
    }
    return dataset
