"""What a monitoring report is made from: documents, the place reached so far, capture files, ground truth."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from scones.defaults import DEFAULT_CLASSES, DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from scones.aws.store import ObjectStore
    from scones.monitoring.capture_files import CaptureFile, Watermark
    from scones.monitoring.capture_summary import ReadSettings

log = logging.getLogger(__name__)

#: A capture file that arrives later than this after its hour is not looked for.
LATE = timedelta(hours=24)


class CaptureDestinationError(RuntimeError):
    """The endpoint captures to another bucket than the project's; the message says how to bring them together."""


class Documents:
    """Baseline, constraints, threshold and evaluation that belong to the live model."""

    def __init__(self) -> None:
        self.baseline: dict[str, Any] | None = None
        self.constraints: dict[str, Any] | None = None
        self.evaluation: dict[str, Any] | None = None
        self.threshold: dict[str, Any] = {"threshold": DEFAULT_THRESHOLD, "version": 0}
        self.classes: list[str] = list(DEFAULT_CLASSES)
        self.dataset_version: str | None = None

    @classmethod
    def read(cls, store: ObjectStore, lineage: Mapping[str, Any]) -> Documents:
        """Read them; what is not there keeps its default."""
        found = cls()
        current = store.read_json("datasets/current.json") or {}
        found.dataset_version = lineage.get("dataset_version") or current.get("dataset_version")
        if found.dataset_version:
            folder = f"datasets/{found.dataset_version}"
            found.baseline = store.read_json(f"{folder}/baseline/statistics.json")
            found.constraints = store.read_json(f"{folder}/baseline/constraints.json")
            label_map = store.read_json(f"{folder}/label_map.json")
            if label_map:
                found.classes = [label_map[str(index)] for index in range(len(label_map))]
        job = lineage.get("training_job_name")
        if job:
            found.evaluation = store.read_json(f"evaluations/{job}/evaluation.json")
        found.threshold = store.read_json("config/threshold.json") or found.threshold
        return found


class Place:
    """How far a DAG has read: the watermarks of captures and ground truth, and the end of its last report."""

    def __init__(self, captures: Watermark, ground_truth: Watermark, since: datetime | None) -> None:
        self.captures = captures
        self.ground_truth = ground_truth
        self.since = since

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Place:
        """Read what :meth:`as_dict` returned; of an empty mapping, the beginning."""
        from scones.monitoring.capture_files import Watermark

        since = value.get("until")
        return cls(
            Watermark.from_dict(value.get("captures", {})),
            Watermark.from_dict(value.get("ground_truth", {})),
            datetime.fromisoformat(since) if since else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "captures": self.captures.as_dict(),
            "ground_truth": self.ground_truth.as_dict(),
            "until": self.since.isoformat() if self.since else None,
        }

    @classmethod
    def find(cls, store: ObjectStore, folder: str, dag_id: str, report_id: str, index: Mapping[str, Any]) -> Place:
        """Where this report starts: for a report that was written before, where it started then."""
        for entry in index.get("reports", []):
            if entry["report_id"] == report_id:
                return cls.from_dict(entry["place_before"])
        return cls.from_dict((store.read_json(f"{folder}/watermark.json") or {}).get(dag_id, {}))

    def advance(
        self,
        store: ObjectStore,
        folder: str,
        dag_id: str,
        files: list[CaptureFile],
        until: datetime,
        ground_truth: list[CaptureFile],
    ) -> None:
        """Store how far the DAG has read after these files."""
        from scones.monitoring.aws import update_json

        reached = Place(self.captures.advance(files), self.ground_truth.advance(ground_truth), until).as_dict()

        def change(document: dict[str, Any]) -> dict[str, Any]:
            known = document.get(dag_id, {}).get("until")
            # An old run that is tried again must not take a newer place back.
            return document if known and known > reached["until"] else {**document, dag_id: reached}

        update_json(store, f"{folder}/watermark.json", change)


def _capture_prefix(store: ObjectStore, endpoint: Mapping[str, Any], endpoint_name: str) -> str:
    from scones.monitoring.capture_files import endpoint_prefix

    bucket, prefix = endpoint_prefix(endpoint["destination"] or f"s3://{store.bucket}/capture", endpoint_name)
    if bucket != store.bucket:
        raise CaptureDestinationError(
            f"Endpoint {endpoint_name!r} captures to bucket {bucket!r}, but the project's is {store.bucket!r}. Set "
            "DataCaptureConfig.DestinationS3Uri to the project's bucket (train_and_deploy does) and deploy again."
        )
    return prefix


def capture_files(
    store: ObjectStore,
    endpoint: Mapping[str, Any],
    endpoint_name: str,
    place: Place,
    first: datetime | None,
    last: datetime,
) -> list[CaptureFile]:
    """The files to read: all of a window that begins at ``first``, or what arrived since the place."""
    from scones.monitoring.capture_store import list_captures

    prefix = _capture_prefix(store, endpoint, endpoint_name)
    # A clock ahead of ours may have named files for the next hour.
    end = last + timedelta(hours=1)
    if first is not None:
        return list_captures(store, prefix, first - timedelta(hours=1), end)
    start = place.captures.arrived - LATE if place.captures.arrived else None
    return place.captures.select(list_captures(store, prefix, start, end))


def read_settings(documents: Documents, first: datetime | None, until: datetime | None) -> ReadSettings:
    """How to read records for these documents."""
    from scones.images.statistics import NoveltyScale, categorical_counts, features_by_name
    from scones.monitoring.capture_summary import ReadSettings

    width, height, scale = 32, 32, None
    if documents.baseline:
        size = next(iter(categorical_counts(features_by_name(documents.baseline)["size"])))
        width, height = (int(side) for side in size.split("x"))
        scale = NoveltyScale.of(documents.baseline)
    return ReadSettings(
        classes=tuple(documents.classes),
        width=width,
        height=height,
        scale=scale,
        threshold=float(documents.threshold["threshold"]),
        since=first.timestamp() if first else None,
        until=until.timestamp() if until else None,
    )


def quality_of(
    store: ObjectStore, endpoint: Mapping[str, Any], endpoint_name: str, documents: Documents, place: Place
) -> tuple[dict[str, Any] | None, list[CaptureFile]]:
    """Accuracy on ground truth that arrived since the last report.

    The labels lie under the hour of their prediction, so only those hours of the captures are read again.
    """
    from scones.monitoring.capture_files import CaptureFile
    from scones.monitoring.capture_reader import read_capture
    from scones.monitoring.capture_store import fetcher
    from scones.monitoring.capture_summary import ReadSettings
    from scones.monitoring.ground_truth import model_quality, parse_ground_truth

    prefix = f"ground-truth/{endpoint_name}/"
    listed = [
        CaptureFile(item["Key"], item["Size"], item["LastModified"].astimezone(UTC)) for item in store.objects(prefix)
    ]
    files = place.ground_truth.select(listed)
    labels: dict[str, int] = {}
    hours: set[str] = set()
    for file in files:
        found, problems = parse_ground_truth(store.read(file.key) or b"", documents.classes)
        labels.update(found)
        hours.add(file.key.removeprefix(prefix).rpartition("/")[0])
        for problem in problems[:5]:
            log.warning("Ground truth %s, %s", file.key, problem)
    if not labels:
        return None, files
    captures = _capture_prefix(store, endpoint, endpoint_name)
    chosen = [
        CaptureFile(item["Key"], item["Size"], item["LastModified"].astimezone(UTC))
        for item in store.objects(captures)
        if "/".join(item["Key"].removeprefix(captures).split("/")[1:5]) in hours
    ]
    settings = ReadSettings(classes=tuple(documents.classes), inference_ids=frozenset(labels), images=False)
    predictions = read_capture(chosen, fetcher(store), settings, workers=0).labelled
    threshold = float(documents.threshold["threshold"])
    return model_quality(predictions, labels, documents.classes, threshold), files
