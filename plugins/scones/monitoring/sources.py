"""What a monitoring report is made from: documents of the live model, capture files, ground truth."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from scones.aws import layout
from scones.images.pictures import Geometry
from scones.images.statistics import NoveltyScale, check_baseline, image_size
from scones.monitoring.build import ModelDocuments, with_confidence
from scones.monitoring.capture_files import CaptureFile, Watermark, endpoint_prefix
from scones.monitoring.capture_reader import read_capture
from scones.monitoring.capture_summary import ReadSettings
from scones.monitoring.ground_truth import GroundTruth, Quality, model_quality
from scones.monitoring.store import MonitoringStore, fetcher, list_captures, listed

if TYPE_CHECKING:
    from scones.monitoring.document import EndpointFacts
    from scones.monitoring.index import Window
    from scones.training.served import ServedModel

log = logging.getLogger(__name__)

#: A capture file that arrives later than this after its hour is not looked for.
LATE = timedelta(hours=24)
#: A clock ahead of ours may have named files for the next hour.
AHEAD = timedelta(hours=1)
POLL_S = 2.0


class CaptureDestinationError(RuntimeError):
    """The endpoint captures to another bucket than the project's; the message says how to bring them together."""


def _check_threshold(document: dict[str, Any]) -> None:
    if not 0 < float(document["threshold"]) <= 1:
        raise ValueError(f"{document['threshold']} is no confidence")


# Constraints are a person's: what is wrong in them is said by an error of their own.
_CHECKS: dict[str, Callable[[Any], object]] = {
    "threshold": _check_threshold,
    "baseline": check_baseline,
    "constraints": dict,
    "evaluation": lambda document: with_confidence({"features": []}, document),
}


def documents_of(store: MonitoringStore, served: ServedModel) -> ModelDocuments:
    """Read what belongs to the live model; what is not there, or can't be understood, keeps its default."""
    version, job = served.dataset_version, served.training_job
    keys = {
        "threshold": layout.THRESHOLD,
        "baseline": layout.baseline(version, "statistics") if version else "",
        "constraints": layout.baseline(version, "constraints") if version else "",
        "evaluation": layout.evaluation(job, "evaluation.json") if job else "",
    }
    found: dict[str, Any] = {}
    for name, key in keys.items():
        try:
            document = store.read_json(key) if key else None
            if document is None:
                continue
            _CHECKS[name](document)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # Whatever is wrong in somebody's document: no report fails by it.
            log.warning("%s can't be used, the report goes on without it: %s: %s", key, type(error).__name__, error)
            continue
        found[name] = document
    return ModelDocuments(served, **found)


@dataclass(frozen=True)
class CapturePlace:
    """Where an endpoint's captures and their ground truth lie."""

    store: MonitoringStore
    endpoint_name: str
    prefix: str
    fetch: Callable[[CaptureFile], Iterator[bytes]]

    @classmethod
    def of(cls, store: MonitoringStore, endpoint: EndpointFacts) -> CapturePlace:
        """Find it.

        Raises:
            CaptureDestinationError: it is in another bucket.
        """
        name = endpoint["name"]
        bucket, prefix = endpoint_prefix(endpoint["destination"] or store.uri(layout.CAPTURE), name)
        if bucket != store.bucket:
            raise CaptureDestinationError(
                f"Endpoint {name!r} captures to bucket {bucket!r}, but the project's is {store.bucket!r}. Set "
                "DataCaptureConfig.DestinationS3Uri to the project's bucket (train_and_deploy does) and deploy again."
            )
        return cls(store, name, prefix, fetcher(store))

    def between(self, window: Window) -> list[CaptureFile]:
        """All files that may hold records of a window."""
        return list_captures(self.store, self.prefix, window.since - AHEAD, window.until + AHEAD)

    def new(self, mark: Watermark, until: datetime) -> list[CaptureFile]:
        """What arrived since the mark."""
        start = mark.arrived - LATE if mark.arrived else None
        return mark.select(list_captures(self.store, self.prefix, start, until + AHEAD))

    def invocations_reported(self, mark: Watermark, window: Window, endpoint: EndpointFacts) -> int:
        """How many invocations of a window's first minute lie before the mark, as their records tell.

        CloudWatch counts whole minutes, so the requests of the minute in which a report ended are in the next sum too.
        """
        minute = window.since.replace(second=0, microsecond=0)
        unread = {file.key for file in self.new(mark, window.until)}
        # What is of that minute arrived in it, or later.
        files = [file for file in self.between(window) if file.modified >= minute and file.key not in unread]
        settings = ReadSettings(since=minute.timestamp(), images=False)
        records = read_capture(files, self.fetch, settings, workers=0).records
        return round(records * 100 / max(1, endpoint["sampling_percentage"]))

    def of_hours(self, hours: set[str]) -> list[CaptureFile]:
        """All files of some hours (``yyyy/mm/dd/HH``), of every variant."""
        prefixes = [f"{variant}{hour}/" for variant in self.store.folders(self.prefix) for hour in sorted(hours)]
        return [file for prefix in prefixes for file in listed(self.store, prefix)]


def read_settings(model: ModelDocuments, since: datetime | None, until: datetime | None) -> ReadSettings:
    """How to read records of a model."""
    seen: dict[str, Any] = {}
    if model.baseline:
        width, height = image_size(model.baseline)
        seen = {"geometry": Geometry(height, width), "scale": NoveltyScale.of(model.baseline)}
    return ReadSettings(
        classes=model.classes,
        threshold=model.least_confidence,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        **seen,
    )


@dataclass(frozen=True)
class Judged:
    """What ground truth that arrived says of the answers: of all, and of those that were rejected and labelled."""

    all: Quality | None
    rejected: Quality | None
    files: list[CaptureFile]


def judge(captures: CapturePlace, model: ModelDocuments, mark: Watermark) -> Judged:
    """Compare the answers with the ground truth that arrived since the mark.

    The labels lie under the hour of their prediction, so only those hours of the captures are read again.
    """
    prefix, there = captures.store.ground_truth(captures.endpoint_name)
    files = mark.select(there)
    truth, hours = GroundTruth(), set[str]()
    for file in files:
        truth.read(captures.store.read(file.key) or b"", model.classes)
        hours.add(file.key.removeprefix(prefix).rpartition("/")[0])
        for problem in truth.problems[:5]:
            log.warning("Ground truth %s, %s", file.key, problem)
        truth.problems.clear()
    wanted = frozenset(truth.labels) | frozenset(truth.rejected)
    if not wanted:
        return Judged(None, None, files)
    settings = ReadSettings(classes=model.classes, inference_ids=wanted, images=False)
    predictions = read_capture(captures.of_hours(hours), captures.fetch, settings, workers=0).labelled

    def quality(labels: dict[str, int]) -> Quality | None:
        return model_quality(predictions, labels, model.classes, model.least_confidence)

    return Judged(quality(truth.labels), quality(truth.rejected), files)


class CaptureWait(TypedDict):
    """How waiting for captures went."""

    expected: int
    captured: int
    complete: bool
    waited_s: float


def wait_for_records(captures: CapturePlace, mark: Watermark, expected: int, timeout_s: float) -> CaptureWait:
    """Wait until the unread captures hold ``expected`` records, or ``timeout_s`` is over.

    Captures are delivered some time after the answer: a second on one machine, minutes on AWS.
    """
    began, lines = time.monotonic(), dict[str, int]()
    while True:
        for file in captures.new(mark, datetime.now(UTC)):
            if file.key not in lines:
                lines[file.key] = sum(chunk.count(b"\n") for chunk in captures.fetch(file))
        captured, waited = sum(lines.values()), time.monotonic() - began
        if captured >= expected or waited >= timeout_s:
            break
        time.sleep(min(POLL_S, max(0.0, timeout_s - waited)))
    if captured < expected:
        log.warning(
            "After %.0f s there are %d of %d records; the report will tell of the gap", waited, captured, expected
        )
    return {
        "expected": expected,
        "captured": captured,
        "complete": captured >= expected,
        "waited_s": round(waited, 1),
    }
