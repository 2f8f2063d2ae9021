"""What the pages in the Airflow UI show: read from S3 through Airflow's connection, rendered without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scones.aws import layout
from scones.aws.store import ObjectStore
from scones.batch.labels import accept_labels, read_accepted, read_rejected
from scones.batch.names import batch_id_for
from scones.report import charts
from scones.report.formatting import environment
from scones.ui.resources import Described

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_REPORTS = 50
TREND_REPORTS = 30
SHOWN_REJECTS = 24
_BATCHES_SEARCHED = 20
_LARGEST_IMAGE = 5_000_000


def _render(template: str, base: str, **values: Any) -> str:
    return environment(TEMPLATES).get_template(template).render(base=base, **values)


def problem(base: str, status: int, message: str) -> str:
    """A page for an error."""
    return _render("problem.html.j2", base, status=status, message=message)


def resource(base: str, described: Described) -> str:
    """The page of a job, an endpoint or an execution."""
    return _render("resource.html.j2", base, one=described)


# ---- overview


def overview(bucket: ObjectStore, base: str) -> str:
    """The state of every endpoint that has reports."""
    endpoints = [_endpoint(index) for index in _indexes(bucket)]
    return _render("overview.html.j2", base, endpoints=[endpoint for endpoint in endpoints if endpoint])


def _indexes(bucket: ObjectStore) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(8) as executor:
        read = executor.map(lambda folder: bucket.read_json(f"{folder}index.json"), bucket.folders(layout.REPORTS))
        return [index for index in read if index]


def _endpoint(index: Mapping[str, Any]) -> dict[str, Any] | None:
    reports = index.get("reports", [])
    if not reports:
        return None
    recent = [entry for entry in reports[:TREND_REPORTS] if entry["captured_records"]][::-1]
    trends = [
        (title, charts.trend([entry[name] for entry in recent]), recent[-1][name] if recent else None, form)
        for title, name, form in (
            ("Records", "captured_records", "number"),
            ("Rejection rate", "rejection_rate", "percent"),
            ("Mean confidence", "mean_confidence", "number"),
            ("Latency p95, ms", "latency_p95_ms", "number"),
            ("Violations", "violations", "number"),
        )
    ]
    return {
        "name": index["endpoint_name"],
        "latest": reports[0],
        "trends": trends,
        "reports": [{**entry, "run_url": _run_url(entry["run"])} for entry in reports[:SHOWN_REPORTS]],
        "total": len(reports),
    }


def _run_url(run: Mapping[str, str]) -> str:
    dag_id, run_id = run.get("dag_id", ""), run.get("run_id", "")
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}" if dag_id and run_id else ""


# ---- the tab of a run


def run_documents(bucket: ObjectStore, base: str, dag_id: str, run_id: str, show: int) -> str:
    """The documents a DAG run wrote, the chosen one in a frame."""
    documents: list[dict[str, str]] = []
    for index in _indexes(bucket):
        for entry in index.get("reports", []):
            if entry["run"] != {"dag_id": dag_id, "run_id": run_id}:
                continue
            name = index["endpoint_name"]
            documents.append({"title": f"Monitoring {name}", "url": f"{base}/reports/{name}/{entry['report_id']}"})
            job = entry.get("training_job_name")
            if job and dag_id == "train_and_deploy" and bucket.exists(f"evaluations/{job}/evaluation.html"):
                documents.append({"title": "Evaluation", "url": f"{base}/evaluations/{job}"})
    batch_id = batch_id_for(dag_id, run_id)
    if bucket.exists(f"batches/{batch_id}/report.html"):
        documents.append({"title": "Batch", "url": f"{base}/batches/{batch_id}"})
    here = f"{base}/runs/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    chosen = documents[min(show, len(documents) - 1)] if documents else None
    return _render("run.html.j2", base, documents=documents, chosen=chosen, here=here, dag_id=dag_id, run_id=run_id)


# ---- the reject queue


def reject_queue(bucket: ObjectStore, base: str, offset: int, accepted: str) -> str:
    """Rejected images that have no label yet, the least sure first."""
    waiting = _waiting(bucket)
    part = waiting[offset : offset + SHOWN_REJECTS]
    with ThreadPoolExecutor(8) as executor:
        pictures = list(executor.map(lambda row: _thumbnail(bucket, row["key"]), part))
    return _render(
        "rejects.html.j2",
        base,
        rows=[{**row, "picture": picture} for row, picture in zip(part, pictures, strict=True)],
        classes=_classes(bucket),
        total=len(waiting),
        offset=offset,
        step=SHOWN_REJECTS,
        accepted=accepted,
        labelled=len(_accepted(bucket)),
    )


def _accepted(bucket: ObjectStore) -> dict[str, str]:
    return read_accepted(bucket.read(layout.ACCEPTED_LABELS))


def _classes(bucket: ObjectStore) -> list[str]:
    version = (bucket.read_json("datasets/current.json") or {}).get("dataset_version")
    labels = bucket.read_json(f"datasets/{version}/label_map.json") if version else None
    return [labels[str(index)] for index in range(len(labels))] if labels else []


def _waiting(bucket: ObjectStore) -> list[dict[str, Any]]:
    newest = sorted(
        (item for item in bucket.objects("batches/") if item["Key"].endswith("/rejected.csv")),
        key=lambda item: item["LastModified"],
        reverse=True,
    )
    accepted = _accepted(bucket)
    rows: dict[str, dict[str, Any]] = {}
    for item in newest[:_BATCHES_SEARCHED]:
        for row in read_rejected(bucket.read(item["Key"]) or b"", item["Key"]):
            if row.key not in accepted:
                rows.setdefault(row.key, asdict(row))
    return sorted(rows.values(), key=lambda row: (row["confidence"] is None, row["confidence"] or 0.0, row["key"]))


def _thumbnail(bucket: ObjectStore, key: str) -> str | None:
    from scones.images.thumbnails import thumbnail_uri

    data = bucket.read(key)
    return thumbnail_uri(data, side=160) if data and len(data) <= _LARGEST_IMAGE else None


def accept_label(bucket: ObjectStore, key: str, label: str) -> None:
    """Take a label for an image of the queue.

    Raises:
        ValueError: the image is not in the queue, or the label is no class.
    """
    if not label:
        raise ValueError("No label was given.")
    # Only what the queue shows: a form must not put any key of the bucket among the training images.
    if all(row["key"] != key for row in _waiting(bucket)):
        raise ValueError("This image is not in the reject queue, or somebody labelled it already.")
    accept_labels({key: label}, bucket, _classes(bucket))
