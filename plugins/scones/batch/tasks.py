"""The tasks of the DAGs that score images, as Airflow sees them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from scones.batch.links import batch_task
from scones.batch.names import batch_id_for

if TYPE_CHECKING:
    from scones.batch.plan import ChunkReference, Plan
    from scones.batch.store import BatchStore
    from scones.batch.summary import BatchSummary
    from scones.training.served import ServedModel

log = logging.getLogger(__name__)

BATCH_ASSET = Asset(name="scones_batch", uri="x-scones://batch/results", group="scones")
HEADLINE = (
    *("batch_id", "images", "classified", "rejected", "failed", "timed_out", "aborted", "seconds", "accuracy"),
    *("images_per_second", "summary_uri", "report_uri", "results_uri"),
)
PICTURE_BYTES_MAX = 8 * 1024 * 1024


class IncompleteResultsError(RuntimeError):
    """The parts of the results do not hold every image of the plan exactly once."""


@task
def plan_batch(
    resources: Mapping[str, str], params: Any = None, run_id: Any = None, dag: Any = None
) -> list[ChunkReference]:
    """Freeze what the run scores, as chunk files and plan.json in S3; a retry finds the same plan again.

    Raises:
        AirflowFailException: the input cannot be used; a retry would not help.
    """
    from scones.batch.plan import make_plan

    return _planned(make_plan, resources, dict(params), batch_id_for(dag.dag_id, run_id))


@task
def prepare_traffic(
    resources: Mapping[str, str], params: Any = None, run_id: Any = None, dag: Any = None
) -> list[ChunkReference]:
    """Draw the requests, upload the changed images, and plan them as one chunk; a retry finds the same plan again.

    Raises:
        AirflowFailException: the params cannot be used.
    """
    from scones.batch.traffic import make_traffic

    return _planned(make_traffic, resources, dict(params), batch_id_for(dag.dag_id, run_id))


@task
def plan_arrivals(
    resources: Mapping[str, str], params: Any = None, run_id: Any = None, dag: Any = None
) -> list[ChunkReference]:
    """Take what arrived out of the queue and plan it as a batch; a retry goes on with what the first try took.

    Raises:
        AirflowSkipException: no image is new, or no endpoint answers; then the messages stay in the queue.
        AirflowFailException: the params cannot be used.
    """
    from scones.aws.queue import ArrivalQueue
    from scones.batch.arrivals import NothingArrivedError, make_arrivals
    from scones.batch.aws import EndpointNotServingError

    make = partial(make_arrivals, ArrivalQueue(resources))
    try:
        return _planned(make, resources, dict(params), batch_id_for(dag.dag_id, run_id))
    except NothingArrivedError as error:
        raise AirflowSkipException(str(error)) from error
    except EndpointNotServingError as error:
        raise AirflowSkipException(f"{error} What arrived stays in the queue until then.") from error


def _planned(
    make: Callable[[BatchStore, str, dict[str, Any], Mapping[str, str], ServedModel], Plan],
    resources: Mapping[str, str],
    params: dict[str, Any],
    batch_id: str,
) -> list[ChunkReference]:
    from scones.batch.aws import served_model
    from scones.batch.inputs import BatchInputError
    from scones.batch.plan import Plan
    from scones.batch.store import BatchStore

    store = BatchStore(resources["BucketName"])
    plan = Plan.load(store, batch_id)
    if plan is None:
        try:
            model = served_model(resources["EndpointName"], store, params.get("classes") or ())
            plan = make(store, batch_id, params, resources, model)
        except BatchInputError as error:
            raise AirflowFailException(str(error)) from error
    else:
        log.info("Batch %s was planned before: it goes on with the same %d images", batch_id, plan.images)
    log.info("Batch %s: %d images in %d chunks. Counts: %s", batch_id, plan.images, plan.chunks, plan.counts)
    for warning in plan.warnings:
        log.warning("%s", warning)
    return plan.references()


@task(trigger_rule="none_failed")
def collect_results(resources: Mapping[str, str], run_id: Any = None, dag: Any = None) -> str:
    """Write what follows from the parts of results: Parquet, rejected.csv, summary.json and report.html.

    No chunk at all (only_new, and nothing is new) is a batch of no images, not a failure.

    Returns:
        The URI of summary.json.

    Raises:
        IncompleteResultsError: an image of the plan is missing or doubled.
    """
    from scones.batch.aws import endpoint_price
    from scones.batch.store import BatchStore
    from scones.batch.summary import describe
    from scones.jobs.links import page_url

    hourly, on_aws = endpoint_price(resources["EndpointName"])
    store, batch_id = BatchStore(resources["BucketName"]), batch_id_for(dag.dag_id, run_id)
    summary = collect(store, batch_id, hourly, on_aws=on_aws, predictions=page_url("predictions"))
    log.info("%s", describe(summary))
    return summary["summary_uri"]


@batch_task()
def summarize_batch(
    resources: Mapping[str, str], params: Any = None, run_id: Any = None, dag: Any = None
) -> dict[str, Any]:
    """Hold the batch against the limits of its params.

    Returns:
        The summary's fields of ``HEADLINE``.

    Raises:
        AirflowFailException: too many failures or rejections; the message is the summary. A retry would not help.
    """
    from scones.batch.store import BatchStore
    from scones.batch.summary import BatchLimitError, check_limits, describe

    summary: Any = BatchStore(resources["BucketName"]).summary(batch_id_for(dag.dag_id, run_id))
    log.info("%s", describe(summary))
    log.info("Report: %s", summary["report_uri"])
    try:
        check_limits(
            summary, max_failed_share=params["max_failed_share"], max_rejected_share=params["max_rejected_share"]
        )
    except BatchLimitError as error:
        raise AirflowFailException(f"{error}. Report: {summary['report_uri']}") from error
    return {name: summary[name] for name in HEADLINE}


def collect(
    store: BatchStore, batch_id: str, hourly: float | None = None, *, on_aws: bool = False, predictions: str = ""
) -> BatchSummary:
    """Gather all parts of a batch, one at a time. Repeating it changes nothing.

    Args:
        hourly, on_aws: see :func:`scones.batch.aws.endpoint_price`.
        predictions: see :func:`scones.batch.report.render`.

    Raises:
        IncompleteResultsError: an image of the plan is missing or doubled.
    """
    from scones.batch.items import REJECTED, to_parquet
    from scones.batch.labels import REJECTED_HEADER, rejected_line
    from scones.batch.plan import Plan
    from scones.batch.report import Gallery, render, shown
    from scones.batch.store import KeyLedger
    from scones.batch.summary import Summary, summarise

    plan = Plan.load(store, batch_id)
    if plan is None:
        raise IncompleteResultsError(f"Batch {batch_id} has no plan: run plan_batch again.")
    figures, gallery, seen = Summary(plan.model.classes), Gallery(), KeyLedger()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".csv") as rejected:
        rejected.write(REJECTED_HEADER)
        for number in range(plan.chunks):
            rows = list(store.rows(batch_id, number))
            for row in rows:
                if not seen.add(row["item_id"]):
                    raise IncompleteResultsError(f"{row['key']!r} has two rows in batch {batch_id}")
                figures.add(row)
                gallery.add(row)
                if row["outcome"] == REJECTED:
                    rejected.write(rejected_line(row))
            store.write_parquet(batch_id, number, to_parquet(rows))
        if figures.images != plan.images:
            raise IncompleteResultsError(
                f"Batch {batch_id} has {figures.images} rows for {plan.images} images: clear run_chunk."
            )
        rejected.flush()
        rejected_uri = store.upload_rejected(batch_id, rejected.name)
    seen.close()
    uris = {**store.uris(batch_id), "rejected_uri": rejected_uri}
    summary = summarise(plan, figures.figures(), uris, hourly, on_aws=on_aws)
    rejects, failures = (
        [shown(row, store.picture(row["key"], PICTURE_BYTES_MAX)) for row in rows]
        for rows in (gallery.rejected, gallery.failed)
    )
    page = render(summary, rejects, failures, predictions)
    store.write_report(batch_id, page)
    store.write_summary(batch_id, summary)
    return summary
