"""The trained model: features, two ridge heads over them, calibrated probabilities; numpy alone, no pickle.

With f the compressed, standardised features and Pf those of the mirrored image, the linear head reads f + Pf. The
kernel head reads the leading principal components of f + Pf and of f - Pf (a mirror only changes the sign of the
latter), compares them with landmark images by a Gaussian kernel, averaged over the image and its mirror. A softmax over
both heads' scores, scaled and shifted as fitted on images the heads had not seen, gives the probabilities.

P exchanges the two halves of the features, so f + Pf and f - Pf are half as long as f, and so is all that reads them.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.features import Features
from sagemaker_local.algorithms.image_classification.images import CANVAS, canvas, decode_image
from sagemaker_local.algorithms.image_classification.patches import Dictionary
from sagemaker_local.algorithms.image_classification.pictures import Geometry
from sagemaker_local.algorithms.image_classification.scattering import Array

FORMAT = "scones-image-classification/2"
PARAMETERS = "image-classification-parameters.npz"
SHAPES = "model-shapes.json"


@dataclass
class Scaling:
    """From raw features (images, 2 H) to standardised symmetric and antisymmetric ones, (images, H) each."""

    knee: Array  # (H,) where the logarithm bends
    centre: Array  # (H,)
    scale: Array  # (H,)

    @classmethod
    def of(cls, raw: Array, knee: float) -> "Scaling":
        """Learn from the features of images that count together with their mirror images.

        Args:
            raw: features (images, 2 H).
            knee: bend of the logarithm, as a share of the feature's mean size.
        """
        bend = (knee * np.abs(raw).mean(axis=0).reshape(2, -1).mean(axis=0) + 1e-4).astype(np.float32)
        values = compress(raw.reshape(len(raw), 2, -1), bend)
        centre = values.mean(axis=0).mean(axis=0)
        values -= centre
        spread = np.sqrt((values**2).mean(axis=0).mean(axis=0))
        return cls(bend, centre, (spread + 1e-3 * spread.mean() + 1e-6).astype(np.float32))

    def parts(self, raw: Array) -> tuple[Array, Array]:
        """(f + Pf) / sqrt 2 and (f - Pf) / sqrt 2 of raw features: together an orthonormal change of f."""
        values = compress(raw.reshape(len(raw), 2, len(self.knee)), self.knee)  # of no images, too
        values -= self.centre
        values /= self.scale * np.float32(np.sqrt(2))
        return values[:, 0] + values[:, 1], values[:, 0] - values[:, 1]


@dataclass
class Parameters:
    """Every learned number. 2 H features, S and A symmetric and antisymmetric components, M landmarks, C classes."""

    patch_spread: Array  # the patch dictionary: see patches.Dictionary
    patch_whiten: Array
    patch_centre: Array
    patch_atoms: Array
    patch_threshold: Array
    knee: Array  # (H,), with the next two: see Scaling
    centre: Array  # (H,)
    scale: Array  # (H,)
    linear: Array  # (H, C)
    symmetric: Array  # (H, S), float16
    antisymmetric: Array  # (H, A), float16
    landmarks: Array  # (M, S + A)
    kernel: Array  # (M, C)
    width: Array  # () inverse squared kernel width
    blend: Array  # (2,) weight of the linear and of the kernel scores
    shift: Array  # (C,)

    @property
    def dictionary(self) -> Dictionary:
        return Dictionary(**{part.name: getattr(self, f"patch_{part.name}") for part in fields(Dictionary)})


def compress(raw: Array, knee: Array) -> Array:
    """Signed logarithm: linear below `knee`, so that rare large responses do not drown the rest."""
    result = np.abs(raw)
    result /= knee
    np.log1p(result, out=result)
    return np.copysign(result, raw, out=result)


def lengths(points: Array) -> Array:
    """Squared length of each row."""
    result: Array = np.einsum("ij,ij->i", points, points)
    return result


def gaussian(points: Array, landmarks: Array, symmetric: int, width: float, squared: Array | None = None) -> Array:
    """Mean Gaussian kernel of each point and of its mirror image with each landmark: (points, landmarks).

    `squared` are the landmarks' `lengths`, where they are known already.
    """
    squares = lengths(points)[:, None] + (lengths(landmarks) if squared is None else squared)[None, :]
    even = 2 * points[:, :symmetric] @ landmarks[:, :symmetric].T
    odd = 2 * points[:, symmetric:] @ landmarks[:, symmetric:].T
    result: Array = (np.exp(width * (even + odd - squares)) + np.exp(width * (even - odd - squares))) / 2
    return result


def softmax(scores: Array) -> Array:
    """Rows that sum to one, in float64."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


class Model:
    """Predicts class probabilities for encoded images or canvases."""

    def __init__(self, parameters: Parameters, geometry: Geometry, image_shape: tuple[int, int, int]) -> None:
        self.parameters = parameters
        self.geometry = geometry
        self.image_shape = image_shape
        self.features = Features(parameters.dictionary)
        if self.features.size != 2 * len(parameters.centre):
            raise AlgorithmError(
                f"the model was trained on {2 * len(parameters.centre)} features and this version has"
                f" {self.features.size}: train it again"
            )
        self._scaling = Scaling(parameters.knee, parameters.centre, parameters.scale)
        # One product with both heads' symmetric columns: the reading of these numbers is what takes the time.
        self._even = np.concatenate([parameters.symmetric, parameters.linear], axis=1, dtype=np.float32)
        self._odd = parameters.antisymmetric.astype(np.float32)
        self._squared = lengths(parameters.landmarks)

    @property
    def num_classes(self) -> int:
        return len(self.parameters.shift)

    def probabilities(self, canvases: Array) -> Array:
        """Class probabilities (images, classes) of uint8 canvases."""
        p = self.parameters
        even, odd = self._scaling.parts(self.features(canvases))
        symmetric = p.symmetric.shape[1]
        read = even @ self._even
        points = np.concatenate([read[:, :symmetric], odd @ self._odd], axis=1)
        kernel = gaussian(points, p.landmarks, symmetric, float(p.width), self._squared) @ p.kernel
        return softmax(p.blend[0] * read[:, symmetric:] + p.blend[1] * kernel + p.shift)

    def predict(self, content: bytes, name: str = "the request body") -> list[float]:
        """Class probabilities of one PNG or JPEG; AlgorithmError when it is not one."""
        seen = canvas(decode_image(content, self.geometry, name))
        return [float(value) for value in self.probabilities(seen[None])[0]]

    def warm_up(self) -> None:
        """Pay for first-time set-up (FFT plans, memory) before the first request."""
        self.probabilities(np.zeros((1, CANVAS, CANVAS, 3), dtype=np.uint8))

    def save(self, folder: Path) -> None:
        """Write the artefact: parameters as .npz and `model-shapes.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {field.name: getattr(self.parameters, field.name) for field in fields(Parameters)}
        with (folder / PARAMETERS).open("wb") as handle:
            np.savez_compressed(handle, **arrays)
        shapes = {
            "format": FORMAT,
            "data_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "resize": self.geometry.resize,
            "arrays": {name: list(array.shape) for name, array in arrays.items()},
        }
        (folder / SHAPES).write_text(json.dumps(shapes, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Model":
        """Read what `save` wrote.

        Raises:
            AlgorithmError: the artefact is missing, corrupt, or of another kind (the built-in algorithm's MXNet files).
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
            channels, height, width = (int(side) for side in shapes["data_shape"])
            return cls(Parameters(**arrays), Geometry(height, width, shapes["resize"]), (channels, height, width))
        except FileNotFoundError as error:
            raise AlgorithmError(f"the model artefact lacks {Path(error.filename).name}") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise AlgorithmError(f"the model artefact cannot be read: {error}") from error
