"""The bucket as the pages read it. What is damaged is not shown; it costs no page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import nlargest
from operator import itemgetter
from typing import Any

from scones.aws import layout
from scones.batch.store import BatchStore
from scones.images.pictures import MOST_BYTES
from scones.images.thumbnails import thumbnail_uri

_NOT_SHOWN = "it is not shown"
# Holds that many photographs of CIFAR's size many times over.
_BEGINNING_BYTES = 512 * 1024


class PageStore(BatchStore):
    """What is shown of reports, batches, captures, datasets and labels."""

    def thumbnail(self, key: str, side: int) -> str | None:
        """Return a ``data:`` URI of an image; None where there is nothing to show."""
        content = self.picture(key, MOST_BYTES)
        return thumbnail_uri(content, side) if content else None

    # Documents: pages that tasks wrote

    def report_page(self, endpoint: str, report_id: str) -> bytes | None:
        """Return a report's page."""
        return self.read(layout.report(endpoint, report_id, "report.html"))

    def batch_page(self, batch_id: str) -> bytes | None:
        """Return a batch's page."""
        return self.read(layout.batch_report(batch_id))

    def has_batch_page(self, batch_id: str) -> bool:
        """Return whether a batch has a page."""
        return self.exists(layout.batch_report(batch_id))

    def evaluation_page(self, job: str) -> bytes | None:
        """Return the page of a training job's evaluation."""
        return self.read(layout.evaluation(job, "evaluation.html"))

    def has_evaluation_page(self, job: str) -> bool:
        """Return whether there is such a page."""
        return self.exists(layout.evaluation(job, "evaluation.html"))

    def evaluation(self, job: str) -> dict[str, Any]:
        """Return the figures of a training job's evaluation; {} when it was never evaluated."""
        return self.read_usable(layout.evaluation(job, "evaluation.json"), f"the figures of {job} are not shown")

    def was_refused(self, job: str) -> bool:
        """Return whether the gate refused a training job's model."""
        return self.exists(layout.refusal(job))

    def report_indexes(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield every endpoint that was ever reported on, with the index of its reports."""

        def read(folder: str) -> tuple[str, bytes | None]:
            name = folder.removeprefix(layout.REPORTS).rstrip("/")
            return name, self.read(layout.report_index(name))

        with ThreadPoolExecutor(8) as executor:
            yield from executor.map(read, self.folders(layout.REPORTS))

    # Batches

    def newest_of_batches(self, name: str, most: int) -> list[dict[str, Any]]:
        """Return the objects of this name that batches wrote last, as S3 lists them, the newest first."""
        listed = (item for item in self.objects(layout.BATCHES) if item["Key"].endswith(f"/{name}"))
        return nlargest(most, listed, key=itemgetter("LastModified"))

    def newest_batches(self, most: int) -> list[str]:
        """Return the ids of the batches that ended last."""
        return [item["Key"].split("/")[-2] for item in self.newest_of_batches("summary.json", most)]

    def summary_shown(self, batch_id: str) -> dict[str, Any]:
        """Return a batch's summary; {} when there is none."""
        return self.read_usable(layout.summary(batch_id), _NOT_SHOWN)

    def model_of(self, batch_id: str) -> Mapping[str, Any]:
        """Return what is noted of the model that answered a batch."""
        model = self.summary_shown(batch_id).get("model")
        return model if isinstance(model, Mapping) else {}

    def result_lines(self, batch_id: str) -> Iterator[bytes]:
        """Yield the lines of a batch's results."""
        for item in self.objects(layout.results(batch_id)):
            if item["Key"].endswith(".jsonl"):
                yield from self.lines(item["Key"]) or ()

    # Captures

    def captured_files(self, hours: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (endpoint, the object as S3 lists it) of what all variants captured in these hours."""
        variants = [variant for endpoint in self.folders(layout.CAPTURE) for variant in self.folders(endpoint)]
        for item in (item for hour in hours for variant in variants for item in self.objects(variant + hour)):
            yield item["Key"].removeprefix(layout.CAPTURE).split("/")[0], item

    # Datasets

    def manifest_shown(self, version: str) -> tuple[dict[str, Any], str]:
        """Return what a dataset version holds, and where that is written; ({}, "") when there is nothing."""
        found = self.read_usable(layout.manifest(version), _NOT_SHOWN) if version else {}
        return found, self.uri(layout.manifest(version)) if found else ""

    def beginning_of_recordio(self, version: str) -> bytes:
        """Return the first of a dataset's training images as RecordIO; nothing when it trains as PNGs."""
        first = next(self.objects(layout.recordio(version, "train")), None)
        return self.beginning(first["Key"], _BEGINNING_BYTES) if first else b""

    def training_image_keys(self, version: str) -> Iterator[str]:
        """Yield the keys of a dataset's training images."""
        return (item["Key"] for item in self.objects(layout.training_images(version)))

    def test_image_behind(self, key: str) -> str:
        """Return the test image that an object is or was made of; "" for none."""
        return layout.test_image_behind(key, self.metadata(key))

    # Labels

    def accepted_labels(self) -> bytes | None:
        """Return the table of accepted labels."""
        return self.read(layout.ACCEPTED_LABELS)

    def label_history(self) -> bytes | None:
        """Return who said what."""
        return self.read(layout.LABEL_HISTORY)

    def truth_keys(self, endpoint: str, hours: Sequence[str], token: str) -> list[str]:
        """Return where an image's ground truth goes: under every hour in which its answer may have been captured."""
        return [f"{layout.ground_truth(endpoint)}{hour}/queue-{token}.jsonl" for hour in hours]

    def add_to_history(self, lines: bytes) -> None:
        """Append to the history; no concurrent addition is lost."""
        self.update(layout.LABEL_HISTORY, lambda content: (content or b"") + lines, "application/jsonlines")
