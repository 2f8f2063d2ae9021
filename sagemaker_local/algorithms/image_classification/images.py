"""What the features look at of a picture: a canvas of a few pixels."""

import numpy as np
from PIL import Image

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.pictures import Geometry, PictureError, Pixels, decode

CANVAS = 32


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
