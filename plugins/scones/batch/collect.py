"""Tasks of `batch_inference` after the chunks: collect the parts, judge the batch, take labels for rejected images."""

from __future__ import annotations

import csv
import io
import logging
import tempfile
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from scones.aws import layout
from scones.batch.labels import (
    ACCEPTED_KEY,
    REJECTED_COLUMNS,
    check_labels,
    merge_accepted,
    read_labelled,
    rejected_record,
)
from scones.batch.names import batch_id_for
from scones.batch.outcomes import OUTCOMES, REJECTED
from scones.batch.planning import KeyLedger
from scones.batch.report import IMAGE_BYTES_MAX, Gallery, render, thumbnail
from scones.batch.results import COLUMNS, BatchLimitError, Summary, check_limits, describe
from scones.batch.store import BatchStore, open_store
from scones.defaults import AWS_CONN_ID

log = logging.getLogger(__name__)

HEADLINE = ("batch_id", "images", *OUTCOMES, "seconds", "accuracy", "images_per_second")
HEADLINE_URIS = ("summary_uri", "report_uri", "results_uri")
ACCEPT_TRIES = 10


class IncompleteResultsError(RuntimeError):
    """The parts of the results do not hold every image of the plan exactly once."""


def collect_results(resources: dict[str, Any], run_id: Any = None, dag: Any = None) -> str:
    """Write what follows from the parts of results: Parquet, rejected.csv, summary.json and report.html.

    Returns:
        The URI of summary.json.

    Raises:
        IncompleteResultsError: an image of the plan is missing or doubled.
    """
    store = open_store(resources["bucket"], AWS_CONN_ID)
    summary = collect(store, batch_id_for(dag.dag_id, run_id))
    log.info("%s", describe(summary))
    return str(summary["summary_uri"])


def summarize_batch(
    resources: dict[str, Any],
    params: Any = None,
    run_id: Any = None,
    dag: Any = None,
) -> dict[str, Any]:
    """Hold the batch against the limits of its params.

    Returns:
        ``{"batch_id", "images", <outcome>: n, "seconds", "accuracy", "images_per_second", "summary_uri", "report_uri",
        "results_uri"}``.

    Raises:
        AirflowFailException: too many failures or rejections; the message is the summary. A retry would not help.
    """
    from airflow.sdk.exceptions import AirflowFailException

    store = open_store(resources["bucket"], AWS_CONN_ID)
    summary = store.read_json(layout.summary(batch_id_for(dag.dag_id, run_id)))
    log.info("%s", describe(summary))
    log.info("Report: %s", summary["report_uri"])
    try:
        check_limits(
            summary, max_failed_share=params["max_failed_share"], max_rejected_share=params["max_rejected_share"]
        )
    except BatchLimitError as error:
        raise AirflowFailException(f"{error}. Report: {summary['report_uri']}") from error
    return {name: summary[name] for name in (*HEADLINE, *HEADLINE_URIS)}


def collect(store: BatchStore, batch_id: str) -> dict[str, Any]:
    """Gather all parts of a batch, one at a time; returns the content of summary.json. Repeating it changes nothing.

    Raises:
        IncompleteResultsError: an image of the plan is missing or doubled.
    """
    plan = store.read_json(layout.plan(batch_id))
    figures, gallery = Summary(plan["classes"]), Gallery()
    seen = KeyLedger()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".csv") as file:
        rejected = csv.DictWriter(file, REJECTED_COLUMNS, lineterminator="\n")
        rejected.writeheader()
        for number in range(plan["chunks"]):
            rows = list(store.rows(batch_id, number))
            for row in rows:
                if not seen.add(row["item_id"]):
                    raise IncompleteResultsError(f"{row['key']!r} has two rows in batch {batch_id}")
                figures.add(row)
                gallery.add(row)
                if row["outcome"] == REJECTED:
                    rejected.writerow(rejected_record(row))
            write_parquet(store, layout.part(batch_id, number, "parquet"), rows)
        if figures.images != plan["images"]:
            raise IncompleteResultsError(
                f"Batch {batch_id} has {figures.images} rows for {plan['images']} images: clear run_chunk."
            )
        file.flush()
        rejected_uri = store.upload(layout.rejected(batch_id), file.name, "text/csv")
    seen.close()
    summary = summary_document(plan, figures.figures())
    summary |= {
        "summary_uri": store.uri(layout.summary(batch_id)),
        "report_uri": store.uri(layout.batch_report(batch_id)),
        "results_uri": store.uri(layout.results(batch_id)),
        "rejected_uri": rejected_uri,
    }
    page = render(summary, _with_pictures(store, gallery.rejected), _with_pictures(store, gallery.failed))
    store.write_text(layout.batch_report(batch_id), page, "text/html; charset=utf-8")
    store.write_json(layout.summary(batch_id), summary)
    return summary


def summary_document(plan: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Join the plan's facts and the figures; ``seconds`` is from the first start to the last end of an execution."""
    first, last = figures["first_started_at"], figures["last_ended_at"]
    seconds = None
    if first and last:
        seconds = round((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds(), 3)
    facts = ("batch_id", "created_at", "source", "mode", "threshold", "threshold_version", "model", "classes", "counts")
    return {
        **{name: plan[name] for name in facts},
        "limits": {name: plan["params"][name] for name in ("max_failed_share", "max_rejected_share")},
        **figures,
        "seconds": seconds,
        "images_per_second": round(figures["images"] / seconds, 2) if seconds else None,
    }


def write_parquet(store: BatchStore, key: str, rows: list[dict[str, Any]]) -> None:
    """Write one part as Parquet, with the columns and types of ``COLUMNS``."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        "string": pa.string(),
        "int32": pa.int32(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "list<double>": pa.list_(pa.float64()),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    store.write_bytes(key, buffer.getvalue(), "application/vnd.apache.parquet")


def _with_pictures(store: BatchStore, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "picture": thumbnail(store.read_bytes(row["key"], IMAGE_BYTES_MAX))} for row in rows]


def accept_labels(labels: Mapping[str, str], bucket: str, s3: Any, classes: list[str] | None = None) -> int:
    """Add labels that people gave to rejected images: the next staging takes them as extra training images.

    Args:
        labels: S3 key -> class name or index; empty values are left out. A later label replaces an earlier one.
        bucket: the project's bucket.
        s3: a boto3 S3 client.
        classes: class names; by default those of the current dataset.

    Returns:
        How many labels were taken.

    Raises:
        UnknownLabelError: a label is no class; nothing is written.
        RuntimeError: others kept changing the file at the same time.
    """
    from botocore.exceptions import ClientError

    store = BatchStore(bucket, s3)
    if classes is None:
        dataset = store.dataset_manifest()
        if dataset is None:
            raise LookupError(f"No dataset is staged in s3://{bucket}: run train_and_deploy before accepting labels.")
        classes = list(dataset["classes"])
    accepted = check_labels(labels, classes)
    if not accepted:
        return 0
    for _ in range(ACCEPT_TRIES):
        try:
            answer = s3.get_object(Bucket=bucket, Key=ACCEPTED_KEY)
            text, condition = answer["Body"].read().decode("utf-8"), {"IfMatch": answer["ETag"]}
        except s3.exceptions.NoSuchKey:
            text, condition = "", {"IfNoneMatch": "*"}
        body = merge_accepted(text, accepted).encode("utf-8")
        try:
            # Conditional, so that two people who accept labels at once both keep theirs.
            s3.put_object(Bucket=bucket, Key=ACCEPTED_KEY, Body=body, ContentType="text/csv", **condition)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                raise
            continue
        return len(accepted)
    raise RuntimeError(f"s3://{bucket}/{ACCEPTED_KEY} was changed by others {ACCEPT_TRIES} times in a row: try again.")


def accept_labelled_csv(text: str, bucket: str, s3: Any) -> int:
    """Add the labels of a filled-in rejected.csv; see :func:`accept_labels`."""
    return accept_labels(read_labelled(text), bucket, s3)
