"""What the two heads are given of a picture: a canvas of a few pixels, and what the network sees."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from PIL import Image

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.network import Network
from sagemaker_local.algorithms.image_classification.pictures import Geometry, PictureError, Pixels, decode
from sagemaker_local.algorithms.image_classification.rows import Readable
from sagemaker_local.algorithms.image_classification.scattering import Array

CANVAS = 32


class Seen(NamedTuple):
    """Some images as the heads take them."""

    canvases: Array  # uint8 (images, CANVAS, CANVAS, 3)
    network: Array | None  # float32 (images, the network's numbers)


class Stored(NamedTuple):
    """Any number of images as the heads take them: rows of files, or arrays."""

    canvases: Readable
    network: Readable | None

    def part(self, rows: Array) -> Seen:
        """The images with these numbers."""
        return Seen(self.canvases[rows], None if self.network is None else self.network[rows])


def decode_image(content: bytes, geometry: Geometry, name: str) -> Pixels:
    """Decode PNG or JPEG bytes to pixels (height, width, 3); `name` is what an error calls the image.

    Raises:
        AlgorithmError: not a PNG or JPEG, damaged or too large.
    """
    try:
        return decode(content, geometry)
    except PictureError as error:
        raise AlgorithmError(f"{name} {error}") from error


def canvas(picture: Pixels) -> Pixels:
    """A picture (height, width, 3) scaled to (CANVAS, CANVAS, 3)."""
    if picture.shape[:2] == (CANVAS, CANVAS):
        return picture
    return np.asarray(Image.fromarray(picture).resize((CANVAS, CANVAS), Image.Resampling.BILINEAR))


def look(pictures: Collection[Pixels], network: Network | None) -> Seen:
    """Show pictures to the canvases and to the network, where there is one."""
    return Seen(np.stack([canvas(picture) for picture in pictures]), network(pictures) if network else None)
