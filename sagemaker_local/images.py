"""Which local command stands for which container image.

A config file (JSON, `--images`) maps image URIs, by shell pattern, to commands; the first match wins, then the
built-in map:

    {"images": [{"pattern": "*/my-image:*", "command": ["python", "-m", "my_package"],
                 "environment": {"NAME": "value"},
                 "metric_definitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]}]}

`command` is what `docker run IMAGE` would be: `train` or `serve` is appended, or a ContainerEntrypoint replaces it.
An image that nothing stands for can run as the container it is, where a Docker engine has it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sagemaker_local.errors import ValidationException

_ACCURACY = r"Epoch\[\d+\]\s+{kind}-accuracy=([0-9.eE+-]+)"
_IMAGE_CLASSIFICATION_METRICS = (
    {"Name": "train:accuracy", "Regex": _ACCURACY.format(kind="Train")},
    {"Name": "validation:accuracy", "Regex": _ACCURACY.format(kind="Validation")},
)


@dataclass(frozen=True)
class Command:
    """What a container runs: a command of this machine, or the words after `docker run IMAGE`.

    With `entrypoint` the first word takes the place of the image's own.
    """

    words: tuple[str, ...]
    image: str = ""
    entrypoint: bool = False


@dataclass(frozen=True)
class Image:
    """How to run one image. `metric_definitions` are SageMaker's: Name, and a Regex with one group for the number.

    `builtin` marks an algorithm of SageMaker's own, whose metric definitions a training job may not replace;
    `is_container` an image that a Docker engine runs, whose `pattern` is its URI.
    """

    pattern: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    metric_definitions: tuple[dict[str, str], ...] = ()
    builtin: bool = False
    is_container: bool = False

    def run(self, *arguments: str, entrypoint: Sequence[str] = ()) -> Command:
        """As `docker run` with these arguments, or with a ContainerEntrypoint."""
        if self.is_container:
            return Command((*entrypoint, *arguments), self.pattern, bool(entrypoint))
        return Command((*(entrypoint or self.command), *arguments))


BUILTIN_IMAGES = (
    Image(
        pattern="*image-classification*",
        command=(sys.executable, "-m", "sagemaker_local.algorithms.image_classification"),
        metric_definitions=_IMAGE_CLASSIFICATION_METRICS,
        builtin=True,
    ),
    Image(
        pattern="*sagemaker-model-monitor-analyzer*",
        command=(sys.executable, "-m", "sagemaker_local.monitoring.analyzer"),
        builtin=True,
    ),
)


class Images:
    """The map from image URIs to commands."""

    def __init__(self, images: tuple[Image, ...] = BUILTIN_IMAGES) -> None:
        self._images = images
        self.engine_has: Callable[[str], bool] | None = None  # set where a Docker engine runs what is not in the map

    @classmethod
    def load(cls, path: Path | None) -> Images:
        """The images of a config file, before the built-in ones.

        Raises:
            ValueError: the file cannot be read, or is not of that form; the message names what is wrong in it.
        """
        if path is None:
            return cls()
        try:
            document = json.loads(path.read_text())
            listed = [_image(entry) for entry in document["images"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, re.error) as error:
            raise ValueError(f"{path}: not an images file ({type(error).__name__}: {error})") from error
        return cls((*listed, *BUILTIN_IMAGES))

    def find(self, uri: str) -> Image:
        """The image a URI stands for.

        Raises:
            ValidationException: nothing stands for it; the message lists the known patterns.
        """
        for image in self._images:
            if fnmatchcase(uri, image.pattern):
                return image
        if self.engine_has is not None and self.engine_has(uri):
            return Image(uri, (), is_container=True)
        known = ", ".join(image.pattern for image in self._images)
        absent = "" if self.engine_has is None else ", or build or pull it: the Docker engine has no such image"
        raise ValidationException(
            f"sagemaker_local has no command for image {uri}. Known patterns: {known}. "
            f"Map it in the file given with --images{absent}."
        )


def _image(entry: dict[str, Any]) -> Image:
    command = entry["command"]
    if not command or not all(isinstance(word, str) for word in command):
        raise ValueError(f"the command of {entry['pattern']} must be a list of strings")
    definitions = tuple(entry.get("metric_definitions", ()))
    for definition in definitions:
        if re.compile(definition["Regex"]).groups != 1:
            raise ValueError(f"the Regex of metric {definition['Name']} must have exactly one group")
    first = sys.executable if command[0] in ("python", "python3") else command[0]
    return Image(entry["pattern"], (first, *command[1:]), dict(entry.get("environment", {})), definitions)
