"""The container's folders: everything under $SM_ML_ROOT (default /opt/ml), as SageMaker lays it out."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError


@dataclass(frozen=True)
class ContainerPaths:
    """Folders and files of one container, relative to its root."""

    root: Path

    @classmethod
    def from_environment(cls) -> "ContainerPaths":
        """Root from $SM_ML_ROOT."""
        return cls(Path(os.environ.get("SM_ML_ROOT", "/opt/ml")))

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def failure(self) -> Path:
        return self.root / "output" / "failure"

    def channel(self, name: str) -> Path:
        return self.root / "input" / "data" / name

    def configuration(self, name: str) -> dict[str, Any]:
        """`input/config/<name>.json` as a dict.

        Raises:
            AlgorithmError: the file is missing, is not JSON, or is not an object.
        """
        path = self.root / "input" / "config" / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AlgorithmError(
                f"input/config/{name}.json is missing: the job was not set up as a training job"
            ) from None
        except (ValueError, OSError) as error:
            raise AlgorithmError(f"input/config/{name}.json cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise AlgorithmError(f"input/config/{name}.json must hold a JSON object")
        return content
