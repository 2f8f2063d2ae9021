"""What a network trained on ImageNet sees of a picture: averages of its seven stages, from edges to parts of things."""

import hashlib
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.onnx_graph import network_graph
from sagemaker_local.algorithms.image_classification.pictures import Pixels
from sagemaker_local.algorithms.image_classification.scattering import Array
from sagemaker_local.algorithms.image_classification.weights import INSTALL, NAME, SHA256, pretrained_tensors

# It was trained on 224 pixels; small pictures are told apart best at 128 (docs/algorithm.md).
LEAST_SIDE, LARGEST_SIDE, _STEP = 128, 224, 32
_GRAPH = 1  # counted up when onnx_graph.py changes what it makes
_DIGEST_BYTES = hashlib.sha256().digest_size


def _cached_graph() -> bytes:
    """The network as ONNX, made of the weights once and kept for the user; a damaged copy is made again."""
    # Without a home nothing is kept.
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or os.devnull, ".cache")
    kept = Path(home) / "scones-ml" / f"{NAME}-{SHA256[:16]}-{_GRAPH}.onnx"
    with suppress(OSError):
        content = kept.read_bytes()
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return content[_DIGEST_BYTES:]
    graph = network_graph(pretrained_tensors())
    with suppress(OSError):  # a home that cannot be written to only costs the time again
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(f".{os.getpid()}")
        aside.write_bytes(hashlib.sha256(graph).digest() + graph)
        aside.replace(kept)
    return graph


class Network:
    """EfficientNet-Lite0 without its classifier.

    Args:
        image_shape: channels, height, width of the pictures; the network reads them at the larger side, rounded up to
            32 pixels, but at least at LEAST_SIDE and at most at LARGEST_SIDE.

    Raises:
        AlgorithmError: a package is missing, or the weights are not the ones that are known.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise AlgorithmError(
                f"use_pretrained_model is 1, and the package onnxruntime is not installed: {INSTALL}"
            ) from error
        self.side = min(LARGEST_SIDE, max(LEAST_SIDE, -(-max(image_shape[1:]) // _STEP) * _STEP))
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # threads of ours share the pictures
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(_cached_graph(), options, providers=["CPUExecutionProvider"])

    def __call__(self, pictures: Collection[Pixels]) -> Array:
        """Features float32 (pictures, numbers) of pictures (height, width, 3)."""
        size = (self.side, self.side)
        scaled = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in pictures]
        given = (np.stack(scaled).transpose(0, 3, 1, 2) - np.float32(127)) / np.float32(128)
        result: Array = self._session.run(["features"], {"pictures": np.ascontiguousarray(given)})[0]
        return result
