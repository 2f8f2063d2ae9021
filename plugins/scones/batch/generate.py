"""Tasks of `generate_traffic`: a batch whose images are drawn, and changed, instead of listed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from scones.aws import layout
from scones.batch.items import Item
from scones.batch.names import batch_id_for
from scones.batch.plan import chunk_references, find_threshold
from scones.batch.planning import BatchInputError
from scones.batch.store import BatchStore, open_store
from scones.batch.traffic import Shot, draw_shots, parse_class_mix, request_count
from scones.defaults import AWS_CONN_ID
from scones.images.transformations import KINDS, transform_png

log = logging.getLogger(__name__)

DRIFTS = ("none", *KINDS, "mixed")
UPLOADERS = 8


def prepare_traffic(
    resources: dict[str, Any],
    params: Any = None,
    run_id: Any = None,
    dag: Any = None,
) -> list[dict[str, Any]]:
    """Draw the requests, upload the changed images, and plan them as one chunk; a retry finds the same plan again.

    Returns:
        A list of one chunk reference, as ``plan_batch`` gives them.

    Raises:
        AirflowFailException: the params cannot be used.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from scones.batch.serving import serving_model

    store = open_store(resources["bucket"], AWS_CONN_ID)
    batch_id = batch_id_for(dag.dag_id, run_id)
    plan = store.read_json(layout.plan(batch_id))
    if plan is None:
        try:
            plan = make_traffic(store, batch_id, dict(params), resources, serving_model(resources["endpoint_name"]))
        except BatchInputError as error:
            raise AirflowFailException(str(error)) from error
    log.info("Traffic %s: %s requests. Counts: %s", batch_id, plan["images"], plan["counts"])
    return chunk_references(plan)


def make_traffic(
    store: BatchStore,
    batch_id: str,
    params: dict[str, Any],
    resources: Mapping[str, Any],
    model: Mapping[str, str | None],
) -> dict[str, Any]:
    """Write the images, the chunk and the plan of the traffic.

    Raises:
        BatchInputError: no dataset is staged, or the params cannot be used.
    """
    dataset = store.dataset_manifest()
    if dataset is None:
        raise BatchInputError(f"No dataset is staged in s3://{store.bucket}: run the DAG train_and_deploy first.")
    classes = dataset["classes"]
    count = request_count(params["mode"], params["images"], params["rate_per_second"], params["duration_seconds"])
    shots = draw_shots(
        # The manifest lists the split's other files as well, such as test.lst.
        [file for file in dataset["files"] if file["split"] == "test" and file["key"].startswith("test/")],
        classes,
        count,
        class_mix=parse_class_mix(params["class_mix"] or "", classes),
        drift=params["drift"],
        drifted_share=params["drifted_share"],
        seed=params["seed"],
    )
    folder = f"datasets/{dataset['dataset_version']}/"
    keys = {shot: _shot_key(shot, folder, batch_id) for shot in set(shots)}
    with ThreadPoolExecutor(UPLOADERS) as pool:
        uploads = [
            pool.submit(_upload_changed, store, folder + shot.file, key, shot.drift, params)
            for shot, key in keys.items()
            if shot.drift
        ]
    for upload in uploads:
        upload.result()
    # The same image may be sent more than once: each request is an item of its own.
    items = [Item(keys[shot], shot.label, item_id=f"{index}:{keys[shot]}") for index, shot in enumerate(shots)]
    lines = "".join(item.to_json() + "\n" for item in items)
    store.write_text(layout.chunk(batch_id, 0), lines, "application/x-ndjson")
    threshold, threshold_version = find_threshold(store, None)
    plan = {
        "batch_id": batch_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bucket": store.bucket,
        "source": f"generated traffic ({params['mode']}, drift {params['drift']})",
        "mode": "executions",
        "state_machine_arn": resources["executions"],
        "images": count,
        "chunks": 1,
        "chunk_size": count,
        "counts": {"requests": count, "drifted": sum(bool(shot.drift) for shot in shots)},
        "classes": classes,
        "threshold": threshold,
        "threshold_version": threshold_version,
        "execution_timeout_seconds": params["execution_timeout_seconds"],
        "model": dict(model),
        "params": params,
    }
    store.write_json(layout.plan(batch_id), plan)
    return plan


def _shot_key(shot: Shot, folder: str, batch_id: str) -> str:
    if not shot.drift:
        return folder + shot.file
    return f"traffic/{batch_id}/{shot.drift}/{shot.file.rsplit('/', 1)[-1]}"


def _upload_changed(store: BatchStore, source: str, target: str, drift: str, params: Mapping[str, Any]) -> None:
    data = store.s3.get_object(Bucket=store.bucket, Key=source)["Body"].read()
    changed = transform_png(data, drift, params["drift_strength"], params["seed"])
    store.write_bytes(target, changed, "image/png")
