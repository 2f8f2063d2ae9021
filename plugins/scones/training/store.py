"""What training keeps in the bucket, and what it reads of the datasets there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from scones.aws import layout
from scones.aws.store import ObjectStore

if TYPE_CHECKING:
    from scones.training.data import Manifest, TrainingResult


class TrainingStore(ObjectStore):
    """Datasets as they are read, training jobs, and their models' answers."""

    def manifest(self, dataset_version: str) -> Manifest | None:
        """Return what a dataset version holds; None when it has no manifest.

        Raises:
            DamagedDocumentError: what is stored is no JSON object.
        """
        return cast("Manifest | None", self.read_json(layout.manifest(dataset_version)))

    def dataset_of(self, prefix: str) -> str:
        """Return the dataset version that a prefix lies in; "" when it lies in none."""
        return prefix.split("/")[1] if prefix.startswith(layout.DATASETS) and prefix.count("/") > 1 else ""

    def dataset_prefix(self, dataset_version: str) -> str:
        """Return where a dataset lies; ends in "/"."""
        return layout.dataset(dataset_version)

    def test_images(self, dataset_version: str) -> str:
        """Return the folder of a dataset's test images."""
        return layout.test_images(dataset_version)

    def dataset_file(self, dataset_version: str, key: str) -> bytes | None:
        """Return a file of a dataset; None when it is gone.

        Args:
            key: as the manifest has it, below the dataset's prefix.
        """
        return self.read(layout.dataset(dataset_version) + key)

    def label_map(self, dataset_version: str) -> dict[str, Any] | None:
        """Return the label map of a dataset version; None when there is none that can be understood."""
        if not dataset_version:
            return None
        otherwise = "the class names are taken from the model package"
        return self.read_usable(layout.label_map(dataset_version), otherwise) or None

    def answers_uri(self, job: str) -> str:
        """Return the folder of the answers that a training job's model gave to the test images."""
        return self.uri(layout.transform(job))

    def job_that_did(self, mark: str) -> str | None:
        """Return the training job that did what a fingerprint stands for; None when none did."""
        record = self.read_json(layout.fingerprint(mark))
        return str(record["job_name"]) if record else None

    def note_job(self, result: TrainingResult) -> None:
        """Note a training job by its fingerprint, for runs that ask for the same."""
        record = {"job_name": result["job_name"], "metrics": result["metrics"]}
        self.write_json(layout.fingerprint(result["fingerprint"]), record)
