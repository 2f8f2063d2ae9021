"""All training runs beside each other, and what hangs on one: from its dataset to the answers its model gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from scones.aws import layout
from scones.report.formatting import DASH, number, percent, when
from scones.training.costs import job_cost
from scones.training.model_package import APPROVED_BY
from scones.ui.pages import Endpoint, render
from scones.ui.store import PageStore

SHOWN_TRAININGS = 50
SHOWN_IMAGES = 24
BATCHES_SEARCHED = 50


@dataclass(frozen=True)
class Training:
    """A training job and what became of its model.

    Attributes:
        job: DescribeTrainingJob's answer.
        package: its version in the model registry; {} when it has none.
        evaluation: evaluation.json; {} when it was never evaluated.
        refused: whether the gate refused it.
        live_on: endpoints that serve it now.
        trials: the runs of the experiment that trained it or took it over.
        real: whether AWS trained it, so that it cost something.
    """

    job: Mapping[str, Any]
    package: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False
    live_on: Sequence[str] = ()
    trials: Sequence[str] = ()
    real: bool = True

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.job["TrainingJobName"])

    @property
    def created(self) -> datetime | None:
        """When the job was made."""
        return self.job.get("CreationTime")

    @property
    def dataset_version(self) -> str:
        """The dataset it trained on, by the address of its channel."""
        for channel in self.job.get("InputDataConfig", []):
            uri = channel.get("DataSource", {}).get("S3DataSource", {}).get("S3Uri", "")
            _, found, rest = uri.partition(f"/{layout.DATASETS}")
            if found:
                return str(rest.split("/")[0])
        return ""

    @property
    def tuning_job(self) -> str:
        """The tuning job that tried its hyperparameters; "" when they were given."""
        return str(self.job.get("TuningJobArn", "")).rpartition("/")[2]

    @property
    def approval(self) -> str:
        """What was decided on it, and who did."""
        if self.refused:
            return "refused by the gate"
        status, metadata = self.package.get("ModelApprovalStatus", ""), self.package.get("CustomerMetadataProperties")
        by = (metadata or {}).get(APPROVED_BY)
        return f"{status} by {by}" if by else str(status)

    @property
    def cost(self) -> str:
        """What it cost at list price, or would have cost on AWS."""
        billable = self.job.get("BillableTimeInSeconds")
        price = job_cost(self.job.get("ResourceConfig", {}).get("InstanceType", ""), billable or 0)
        if billable is None or price is None:
            return DASH
        return f"{price:.4f} USD" + ("" if self.real else " on AWS")

    @property
    def facts(self) -> dict[str, str]:
        """Everything two runs are compared by, as text."""
        version = self.package.get("ModelPackageVersion")
        return {
            "Status": str(self.job.get("TrainingJobStatus", "")),
            "Began": when(self.created),
            "Trial": ", ".join(self.trials) or DASH,
            "Tuning job": self.tuning_job or DASH,
            "Dataset": self.dataset_version or DASH,
            "Accuracy": percent(_figure(self.evaluation, "test_accuracy")),
            "Log loss": number(_figure(self.evaluation, "log_loss")),
            "Calibration error": number(_figure(self.evaluation, "expected_calibration_error")),
            "Cost": self.cost,
            "Version": str(version) if version else DASH,
            "Decision": self.approval or DASH,
            "Live on": ", ".join(self.live_on) or DASH,
        }


def _figure(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    return value if isinstance(value, float) and math.isfinite(value) else None


class Pair(NamedTuple):
    """A fact of two runs."""

    name: str
    a: str
    b: str


def compared(a: Training, b: Training) -> list[Pair]:
    """The facts and hyperparameters of two runs side by side."""
    sides = [one.facts | dict(sorted(one.job.get("HyperParameters", {}).items())) for one in (a, b)]
    return [Pair(name, sides[0].get(name, DASH), sides[1].get(name, DASH)) for name in sides[0] | sides[1]]


def trainings_page(base: str, found: Sequence[Training], a: str, b: str) -> str:
    """The table of all runs; above it the two that were chosen."""
    by_name = {one.name: one for one in found}
    pair = [by_name[name] for name in (a, b) if name in by_name]
    rows = compared(*pair) if len(pair) == 2 else []
    return render("trainings.html.j2", base, trainings=found, chosen=[a, b], pair=pair, rows=rows)


class Link(NamedTuple):
    """One thing in the lineage of a model: what it is, its name, and its page; "" where it has none."""

    kind: str
    name: str
    path: str = ""


def lineage_page(store: PageStore, base: str, training: Training, endpoints: Sequence[Endpoint]) -> str:
    """What a model was made of, and what it answered."""
    job, version, package = training.name, training.dataset_version, str(training.package.get("ModelPackageArn") or "")
    manifest, written = store.manifest_shown(version)
    images = _images(manifest.get("counts"))
    shown = training_images(store, version, manifest.get("classes")) if manifest else []
    made_of = [
        Link("Dataset", f"{version or DASH} {f'({images})' if images else ''}".strip()),
        Link("Manifest, image by image", written or DASH),
        *[Link("Trial", name) for name in training.trials],
        *([Link("Tuning job", tuned, f"resources/tuning-jobs/{tuned}")] if (tuned := training.tuning_job) else []),
        Link("Training job", job, f"resources/training-jobs/{job}"),
        Link("Evaluation", "on the test images", f"evaluations/{job}")
        if training.evaluation
        else Link("Evaluation", DASH),
        Link("Model package", package or DASH, f"resources/model-packages/{package}" if package else ""),
        Link("Decision", training.approval or DASH),
    ]
    answered = [Link("Serves now on", name, f"resources/endpoints/{name}") for name in training.live_on]
    answered += [
        Link(
            "Report",
            f"{when(entry.created_at)}, {entry.captured_records} records",
            f"reports/{one.name}/{entry.report_id}",
        )
        for one in endpoints
        for entry in one.reports
        if entry.training_job_name == job
    ]
    answered += [
        Link("Batch, image by image", batch_id, f"predictions?batch={batch_id}") for batch_id in _batches(store, job)
    ]
    return render("lineage.html.j2", base, job=job, made_of=made_of, answered=answered, images=shown)


def training_images(store: PageStore, version: str, classes: object) -> list[tuple[str, str | None]]:
    """Some of a dataset's training images: (class, ``data:`` URI), however it trains: as RecordIO or as PNGs."""
    from scones.dataset.recordio import first_images
    from scones.images.thumbnails import thumbnail_uri

    names = classes if isinstance(classes, list) else []
    if recordio := store.beginning_of_recordio(version):
        records = islice(first_images(recordio), SHOWN_IMAGES)
        return [(str(names[label]) if label < len(names) else str(label), thumbnail_uri(one)) for label, one in records]
    keys = islice(store.training_image_keys(version), SHOWN_IMAGES)
    return [(key.rsplit("/", 1)[-1], store.thumbnail(key, 96)) for key in keys]


def _images(counts: object) -> str:
    """Images per split, of a manifest's ``{split: {class: images}}``."""
    if not isinstance(counts, Mapping):
        return ""
    splits = {split: list(per.values()) for split, per in counts.items() if isinstance(per, Mapping)}
    return ", ".join(f"{sum(one for one in per if isinstance(one, int))} {split}" for split, per in splits.items())


def _batches(store: PageStore, job: str) -> list[str]:
    """The newest batches that the job's model answered."""
    newest = store.newest_batches(BATCHES_SEARCHED)
    return [batch_id for batch_id in newest if store.model_of(batch_id).get("training_job") == job]
