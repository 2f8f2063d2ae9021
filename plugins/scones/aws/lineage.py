"""Where a model comes from: the same few facts as tags on resources and as metadata of the model package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PROJECT_TAG = "scones:project"
PROJECT = "scones-courier"

# Characters a tag value may hold (AWS tagging rules); anything else becomes "-".
_ILLEGAL_IN_TAG = re.compile(r"[^\w\s_.:/=+\-@]")


@dataclass(frozen=True)
class Lineage:
    """The facts that let anyone rebuild a model.

    Attributes:
        dataset_version: "ds-..." of the staged data.
        training_job: name of the job that made the artifact.
        image: training image URI.
        git_revision: revision of the project's code, "unknown" outside a checkout.
        dag_id: DAG of the run that made it.
        run_id: run that made it.
    """

    dataset_version: str
    training_job: str
    image: str
    git_revision: str
    dag_id: str
    run_id: str

    def as_metadata(self, **extra: str | float | int) -> dict[str, str]:
        """Return CustomerMetadataProperties: at most 50 string pairs, keys <= 128 and values <= 256 characters."""
        pairs = {**asdict(self), **{key: str(value) for key, value in extra.items()}}
        return {key[:128]: str(value)[:256] for key, value in pairs.items() if str(value)}


def tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return AWS tags (``[{"Key", "Value"}]``) with the project's own first, keys prefixed ``scones:``."""
    pairs = [{"Key": PROJECT_TAG, "Value": PROJECT}]
    for key, value in sorted(values.items()):
        if value:
            pairs.append({"Key": f"scones:{key}"[:128], "Value": _ILLEGAL_IN_TAG.sub("-", str(value))[:256]})
    return pairs


def training_job_of_artifact(model_data_url: str) -> str:
    """Return the training job's name in ``s3://bucket/training/<job>/output/model.tar.gz``.

    Raises:
        ValueError: the address is not of that form.
    """
    parts = model_data_url.split("/")
    if len(parts) < 4 or parts[-2] != "output" or not model_data_url.startswith("s3://"):
        raise ValueError(
            f"{model_data_url!r} is not the artifact of a training job: expected s3://.../<job>/output/model.tar.gz"
        )
    return parts[-3]
