"""Tasks of `batch_inference` before the chunks: find the resources, freeze the plan."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from scones.aws import layout
from scones.batch.names import batch_id_for
from scones.batch.planning import (
    IMAGE_SUFFIXES,
    BatchInputError,
    Filters,
    chunk_size_for,
    cut,
    parse_date,
    sample_lines,
    spool,
)
from scones.batch.sources import find_source
from scones.batch.store import THRESHOLD_KEY, BatchStore, open_store
from scones.defaults import AWS_CONN_ID

log = logging.getLogger(__name__)

FAN_OUTS = ("executions", "distributed_map", "express")
# A parent execution reads its whole chunk by itself, so its chunks can be larger.
MAP_CHUNK_SIZE = 10_000


def resolve_resources() -> dict[str, str | None]:
    """Find the deployed resources that a batch uses.

    Returns:
        ``{"bucket", "endpoint_name", <fan-out>: state machine ARN or None}``.

    Raises:
        ResourcesNotDeployedError: the stack is absent or incomplete.
    """
    from scones.aws.resources import stack_outputs

    outputs = stack_outputs()
    return {
        "bucket": outputs["BucketName"],
        "endpoint_name": outputs["EndpointName"],
        "executions": outputs["StateMachineArn"],
        "distributed_map": outputs.get("DistributedMapStateMachineArn"),
        "express": outputs.get("ExpressStateMachineArn"),
    }


SMALL_BATCH = 500


def plan_batch(
    resources: dict[str, Any],
    params: Any = None,
    run_id: Any = None,
    dag: Any = None,
) -> list[dict[str, Any]]:
    """Freeze what the run scores, as chunk files and plan.json in S3; a retry finds the same plan again.

    Returns:
        One ``{"batch_id", "number", "images", "title", "small"}`` per chunk: what the mapped tasks get. The images stay
        in S3.

    Raises:
        AirflowFailException: the input cannot be used; a retry would not help.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from scones.batch.serving import serving_model

    store = open_store(resources["bucket"], AWS_CONN_ID)
    batch_id = batch_id_for(dag.dag_id, run_id)
    plan = store.read_json(layout.plan(batch_id))
    if plan is None:
        try:
            model = serving_model(resources["endpoint_name"])
            plan = make_plan(store, batch_id, dict(params), resources, model)
        except BatchInputError as error:
            raise AirflowFailException(str(error)) from error
    else:
        log.info("Batch %s was planned before: it goes on with the same %d images", batch_id, plan["images"])
    log.info("Batch %s: %d images in %d chunks. Counts: %s", batch_id, plan["images"], plan["chunks"], plan["counts"])
    return chunk_references(plan)


def chunk_references(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what identifies each chunk of a plan, in order."""
    size, images = plan["chunk_size"], plan["images"]
    references = []
    for number in range(plan["chunks"]):
        first, last = number * size + 1, min(images, (number + 1) * size)
        references.append(
            {
                "batch_id": plan["batch_id"],
                "number": number,
                "images": last - first + 1,
                "title": f"images {first} to {last}",
                # Done in the time that a deferral takes; and alone, so that one process keeps the whole batch's pace.
                "small": plan["mode"] == "executions" and plan["chunks"] == 1 and images <= SMALL_BATCH,
            }
        )
    return references


def make_plan(
    store: BatchStore,
    batch_id: str,
    params: dict[str, Any],
    resources: Mapping[str, Any],
    model: Mapping[str, str | None],
) -> dict[str, Any]:
    """List, filter, sample and cut the images; write the chunks and, last, the plan. Memory does not grow with them.

    Raises:
        BatchInputError: the params contradict each other, or no image is left.
    """
    fan_out = params["fan_out"]
    if not resources.get(fan_out):
        raise BatchInputError(
            f"The stack has no state machine for fan_out {fan_out!r}: deploy the current template with `make deploy`."
        )
    source = find_source(store, params)
    threshold, threshold_version = find_threshold(store, params["threshold"])
    filters = Filters(
        tuple(suffix.lower() for suffix in params["suffixes"]) or IMAGE_SUFFIXES,
        parse_date(params["modified_after"], "modified_after"),
        parse_date(params["modified_before"], "modified_before"),
    )
    skip = store.scored_before(batch_id) if params["only_new"] else None
    try:
        with tempfile.TemporaryFile("w+", encoding="ascii") as file:
            counts = spool(source.candidates, filters, skip, file)
            if not counts["items"] and not counts["already_scored"]:
                raise BatchInputError(source.nothing_left(counts, filters))
            images = min(counts["items"], params["sample_size"] or counts["items"])
            wanted = MAP_CHUNK_SIZE if fan_out == "distributed_map" else params["chunk_size"]
            size = chunk_size_for(images, wanted)
            file.seek(0)
            chunks = 0
            for lines in cut(sample_lines(file, counts["items"], images, params["sample_seed"]), size):
                store.write_text(layout.chunk(batch_id, chunks), "".join(lines), "application/x-ndjson")
                chunks += 1
    finally:
        if skip is not None:
            skip.close()
    plan = {
        "batch_id": batch_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bucket": store.bucket,
        "source": source.name,
        "mode": fan_out,
        "state_machine_arn": resources[fan_out],
        "images": images,
        "chunks": chunks,
        "chunk_size": size,
        "counts": counts,
        "classes": source.classes,
        "threshold": threshold,
        "threshold_version": threshold_version,
        "execution_timeout_seconds": params["execution_timeout_seconds"],
        "model": dict(model),
        "params": params,
    }
    store.write_json(layout.plan(batch_id), plan)
    return plan


def find_threshold(store: BatchStore, asked: float | None) -> tuple[float, int | None]:
    """Return the threshold (and its version) that the whole batch is judged by.

    Raises:
        BatchInputError: none was asked for and none is set in the bucket.
    """
    if asked is not None:
        return float(asked), None
    found = store.read_json(THRESHOLD_KEY)
    if not found:
        raise BatchInputError(
            f"s3://{store.bucket}/{THRESHOLD_KEY} is missing: run `make deploy`, or give the param threshold."
        )
    return float(found["threshold"]), int(found["version"])
