"""Where a model comes from: the same few facts as tags on resources and as metadata of the model package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PROJECT_TAG = "scones:project"
PROJECT = "scones-courier"

# What a tag's value, and a model package's metadata, may not hold; no comma, for one. It becomes "-".
_ILLEGAL = re.compile(r"[^\w .:/=+\-@]")
_VALUE_MAX = 256


def legal_value(value: object) -> str:
    """Return a value as a tag or a model package's metadata may hold it: at most 256 of the characters AWS takes."""
    return _ILLEGAL.sub("-", str(value))[:_VALUE_MAX]


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
        """Return CustomerMetadataProperties: at most 50 pairs, keys of at most 128 characters, `legal_value` values."""
        return {key[:128]: text for key, value in (asdict(self) | extra).items() if (text := legal_value(value))}


def tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return AWS tags (``[{"Key", "Value"}]``) with the project's own first, keys prefixed ``scones:``."""
    pairs = [{"Key": PROJECT_TAG, "Value": PROJECT}]
    for key, value in sorted(values.items()):
        if value:
            pairs.append({"Key": f"scones:{key}"[:128], "Value": legal_value(value)})
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
