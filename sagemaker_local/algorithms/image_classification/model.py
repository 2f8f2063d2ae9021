"""The trained model: two linear heads, one on scattering and one on what a pretrained network sees, and a softmax.

The first reads f + Pf, with f the compressed, standardised features and Pf those of the mirrored image. The softmax is
over both heads' scores, weighted and shifted as fitted on images the heads had not seen. numpy alone, no pickle.
"""

import json
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.features import Features
from sagemaker_local.algorithms.image_classification.images import Seen, decode_image, look
from sagemaker_local.algorithms.image_classification.network import Network
from sagemaker_local.algorithms.image_classification.pictures import Geometry, Pixels
from sagemaker_local.algorithms.image_classification.scattering import Array
from sagemaker_local.algorithms.image_classification.weights import NAME, SHA256

FORMAT = "scones-image-classification/3"
PARAMETERS = "image-classification-parameters.npz"
SHAPES = "model-shapes.json"


@dataclass
class Scaling:
    """From raw features (images, 2, H) to (images, H) standardised ones of images with their mirror images."""

    knee: Array  # (H,) where the logarithm bends
    centre: Array  # (H,)
    scale: Array  # (H,)

    @classmethod
    def of(cls, raw: Array, knee: float) -> "Scaling":
        """Learn from features (images, 2, H); `knee`: bend of the logarithm, as a share of the feature's mean size."""
        bend = (knee * np.abs(raw).mean(axis=0).mean(axis=0) + 1e-4).astype(np.float32)
        values = compress(raw, bend)
        centre = values.mean(axis=0).mean(axis=0)
        values -= centre
        spread = np.sqrt((values**2).mean(axis=0).mean(axis=0))
        return cls(bend, centre, (spread + 1e-3 * spread.mean() + 1e-6).astype(np.float32))

    def __call__(self, raw: Array) -> Array:
        """(f + Pf) / sqrt 2 of raw features."""
        values = compress(raw, self.knee)
        values -= self.centre
        values /= self.scale * np.float32(np.sqrt(2))
        result: Array = values[:, 0] + values[:, 1]
        return result


@dataclass
class Parameters:
    """Every learned number. H features, D numbers of the network (0 without one), C classes."""

    knee: Array  # (H,), with the next two: see Scaling
    centre: Array  # (H,)
    scale: Array  # (H,)
    linear: Array  # (H, C)
    network: Array  # (D, C)
    blend: Array  # (2,) weight of the linear and of the network's scores; (1,) without one
    shift: Array  # (C,)


def compress(raw: Array, knee: Array) -> Array:
    """Signed logarithm: linear below `knee`, so that rare large responses do not drown the rest."""
    result = np.abs(raw)
    result /= knee
    np.log1p(result, out=result)
    return np.copysign(result, raw, out=result)


def softmax(scores: Array) -> Array:
    """Rows that sum to one, in float64."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


class Model:
    """Predicts class probabilities for encoded images or pictures."""

    def __init__(
        self, parameters: Parameters, geometry: Geometry, image_shape: tuple[int, int, int], network: Network | None
    ) -> None:
        self.parameters = parameters
        self.geometry = geometry
        self.image_shape = image_shape
        self.network = network
        self.features = Features()
        if self.features.size != len(parameters.centre):
            raise AlgorithmError(
                f"the model was trained on {len(parameters.centre)} features and this version has"
                f" {self.features.size}: train it again"
            )
        self._scaling = Scaling(parameters.knee, parameters.centre, parameters.scale)

    @property
    def num_classes(self) -> int:
        return len(self.parameters.shift)

    def probabilities(self, seen: Seen) -> Array:
        """Class probabilities (images, classes) of images, seen by the network too where the model has one."""
        p = self.parameters
        scores = p.blend[0] * (self._scaling(self.features(seen.canvases)) @ p.linear)
        if self.network is not None:
            scores = scores + p.blend[1] * (seen.network @ p.network)
        return softmax(scores + p.shift)

    def judge(self, pictures: Collection[Pixels]) -> Array:
        """Class probabilities (images, classes) of pictures (height, width, 3)."""
        return self.probabilities(look(pictures, self.network))

    def predict(self, content: bytes) -> list[float]:
        """Class probabilities of one PNG or JPEG; AlgorithmError when it is not one."""
        return [float(value) for value in self.judge([decode_image(content, self.geometry, "the request body")])[0]]

    def warm_up(self) -> None:
        """Pay for first-time set-up (FFT plans, memory) before the first request."""
        self.judge([np.zeros((self.geometry.height, self.geometry.width, 3), dtype=np.uint8)])

    def save(self, folder: Path) -> None:
        """Write the artifact: parameters as .npz and `model-shapes.json`, which names the network by its weights."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {field.name: getattr(self.parameters, field.name) for field in fields(Parameters)}
        with (folder / PARAMETERS).open("wb") as handle:
            np.savez_compressed(handle, **arrays)
        shapes = {
            "format": FORMAT,
            "data_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "resize": self.geometry.resize,
            "network": {"name": NAME, "sha256": SHA256} if self.network else None,
            "arrays": {name: list(array.shape) for name, array in arrays.items()},
        }
        (folder / SHAPES).write_text(json.dumps(shapes, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Model":
        """Read what `save` wrote.

        Raises:
            AlgorithmError: the artifact is missing, corrupt, or of another kind (the built-in algorithm's MXNet files);
                or what its network needs is not installed.
        """
        try:
            shapes: dict[str, Any] = json.loads((folder / SHAPES).read_text(encoding="utf-8"))
            given = shapes.get("format") if isinstance(shapes, dict) else None
            if given != FORMAT:
                kind = FORMAT.rpartition("/")[0]
                older = isinstance(given, str) and given.rpartition("/")[0] == kind
                reason = "another version made it; train it again" if older else "the model is another algorithm's"
                raise AlgorithmError(f"{SHAPES} is not of the format {FORMAT}: {reason}")
            with np.load(folder / PARAMETERS, allow_pickle=False) as archive:
                arrays = {field.name: archive[field.name] for field in fields(Parameters)}
            for name, shape in shapes["arrays"].items():
                if list(arrays[name].shape) != shape:
                    raise AlgorithmError(f"the model's {name} has shape {list(arrays[name].shape)} instead of {shape}")
            if shapes["network"] not in (None, {"name": NAME, "sha256": SHA256}):
                raise AlgorithmError(f"the model was trained with another network than {NAME}: train it again")
            channels, height, width = (int(side) for side in shapes["data_shape"])
            shape = (channels, height, width)
            network = Network(shape) if shapes["network"] else None
            return cls(Parameters(**arrays), Geometry(height, width, shapes["resize"]), shape, network)
        except FileNotFoundError as error:
            raise AlgorithmError(f"the model artifact lacks {Path(error.filename).name}") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise AlgorithmError(f"the model artifact cannot be read: {error}") from error
