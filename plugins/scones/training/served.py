"""The model behind an endpoint, and what is known of it: read from that model's own lineage, never from what was
staged or trained last.

A training run moves `layout.CURRENT_DATASET` long before its model serves, and often the gate refuses that model.
Whoever names a class, compares with a baseline or shows a figure of an endpoint takes it from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

QUALITY = ("test_accuracy", "log_loss", "expected_calibration_error", "recommended_threshold")
# A metadata value of a model package ends here, so a longer list of classes is cut off.
METADATA_VALUE_MAX = 256
# Between the items of a list in such a value, which takes no comma.
LIST_SEPARATOR = ":"


class ServedClassesError(ValueError):
    """The classes that were given are not those of the model that answers."""


@dataclass(frozen=True)
class ServedModel:
    """What an endpoint serves. A text is empty, a number None, where nobody knows: the model may be another's.

    Attributes:
        endpoint_name, endpoint_config, variant: the endpoint, its config, the variant with the largest weight.
        model_name, image, model_data_url: that variant's SageMaker model.
        package_arn, version: its version in the model registry.
        training_job, dataset_version, git_revision: what made it.
        classes: class names in label order; empty when unknown (`class_name` then says "class 0").
        image_shape: (channels, height, width) of its training images.
        quality: its figures on its own test images, by the names in `QUALITY`.
    """

    endpoint_name: str
    endpoint_config: str = ""
    variant: str = ""
    model_name: str = ""
    image: str = ""
    model_data_url: str = ""
    package_arn: str = ""
    version: int | None = None
    training_job: str = ""
    dataset_version: str = ""
    git_revision: str = ""
    classes: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    quality: Mapping[str, float] = field(default_factory=dict)

    def class_name(self, index: int) -> str:
        """Return the name of a label."""
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def named(self, classes: Sequence[str]) -> Self:
        """Return the model with the classes a person gave; they count where its lineage names none.

        Raises:
            ServedClassesError: its lineage names others.
        """
        if not classes or tuple(classes) == self.classes:
            return self
        if self.classes:
            raise ServedClassesError(
                f"Endpoint {self.endpoint_name} serves version {self.version} with the classes "
                f"{', '.join(self.classes)}, not {', '.join(classes)}: leave the param empty"
            )
        return replace(self, classes=tuple(classes))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


def main_variant(endpoint: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the production variant, as the config has it, that most requests go to now; {} when there is none."""
    weights = {v["VariantName"]: v.get("CurrentWeight") for v in endpoint.get("ProductionVariants", [])}

    def weight(variant: Mapping[str, Any]) -> float:
        now = weights.get(variant.get("VariantName", ""))
        return float(variant.get("InitialVariantWeight", 1.0) if now is None else now)

    return dict(max(config.get("ProductionVariants", []), key=weight, default={}))


def container_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container of a described model that answers; {} when it has none."""
    return dict(model.get("PrimaryContainer") or next(iter(model.get("Containers", [])), {}))


def quality_of(metadata: Mapping[str, str]) -> dict[str, float]:
    """Return the figures that a model package's metadata holds."""
    return {name: value for name in QUALITY if (value := _number(metadata.get(name))) is not None}


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def classes_of(label_map: Any, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the class names in label order, from the dataset's label map, else from the package; () when unknown.

    Args:
        label_map: the dataset's ``{"0": name, ...}``, or whatever lies in its place.
        metadata: CustomerMetadataProperties of the model package.
    """
    if isinstance(label_map, Mapping):
        names = [label_map.get(str(index)) for index in range(len(label_map))]
        if names and all(isinstance(name, str) for name in names):
            return tuple(str(name) for name in names)
    listed = metadata.get("classes", "")
    return tuple(_listed(listed)) if 0 < len(listed) < METADATA_VALUE_MAX else ()


def shape_of(texts: Iterable[str | None]) -> tuple[int, int, int] | None:
    """Return the first of ``texts`` that is "channels:height:width", or that with the commas of a hyperparameter."""
    for text in texts:
        parts = _listed(text or "")
        if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
            channels, height, width = map(int, parts)
            return channels, height, width
    return None


def _listed(text: str) -> list[str]:
    return text.replace(",", LIST_SEPARATOR).split(LIST_SEPARATOR)
