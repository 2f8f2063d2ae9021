"""A stand-in for CIFAR-100 that the project draws itself, for machines that cannot get the real archive.

Same archive, same members, pickles of the same content (texts as byte strings, as Python 2 wrote them), so nothing
downstream knows the difference; `source.kind` in the manifest says "sample". Pose, colours, background, light,
noise and things in the way differ from image to image, so a model has to learn the shape. Everything follows from
the seed.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scones.dataset.cifar import class_ids
from scones.dataset.cifar_classes import FINE_NAMES
from scones.dataset.sample_shapes import distance, parts_of

TRAIN_PER_CLASS = 500
TEST_PER_CLASS = 100
_SIDE = 32
_BATCH = 250
_FIXED_COLOURS = {
    "tyre": (0.1, 0.1, 0.11),
    "metal": (0.6, 0.62, 0.66),
    "glass": (0.65, 0.8, 0.9),
    "dark": (0.16, 0.14, 0.14),
    "light": (0.9, 0.89, 0.84),
    "olive": (0.32, 0.36, 0.2),
}  # red, green, blue in 0..1


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _background(count: int, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sky over ground, both with a slope of light, and some blobs of other colours."""
    hues, greys = rng.uniform(-0.18, 0.18, (2, count, 1, 1, 3)), rng.uniform(0.35, 0.95, (2, count, 1, 1, 1))
    sky, ground = np.clip(hues + greys, 0, 1).astype(np.float32)
    horizon = _column(rng.uniform(-0.6, 1.3, count))
    blend = np.clip((y - horizon) * 4 + 0.5, 0, 1)[..., None]
    slope = (1 + _column(rng.uniform(-0.25, 0.25, count)) * x + _column(rng.uniform(-0.2, 0.2, count)) * y)[..., None]
    canvas = (sky * (1 - blend) + ground * 0.8 * blend) * slope
    for _ in range(3):
        numbers = [
            _column(values) for values in (*rng.uniform(-1.2, 1.2, (2, count)), *rng.uniform(0.1, 0.6, (2, count)))
        ]
        _paint(canvas, distance("oval", numbers, x, y), rng.uniform(0.1, 0.95, (count, 3)), 0.7)
    return canvas


def _paint(canvas: np.ndarray, away: np.ndarray, colour: np.ndarray, strength: float = 1.0) -> None:
    """Blend ``colour`` (N, 3) into ``canvas`` where ``away`` is negative, with an edge one pixel wide."""
    cover = (np.clip(0.5 - away * (_SIDE / 2.2), 0, 1) * strength)[..., None]
    canvas += cover * (colour.astype(np.float32)[:, None, None, :] - canvas)


def draw_images(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` images of a class, uint8 (count, 32, 32, 3)."""
    axis = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE * 2.2 - 1.1
    px, py = np.broadcast_to(axis, (count, _SIDE, _SIDE)), np.broadcast_to(axis[:, None], (count, _SIDE, _SIDE))
    canvas = _background(count, rng, px, py)
    angle, scale = _column(rng.normal(0, 0.3, count)), _column(rng.uniform(0.5, 1.2, count))
    shift_x, shift_y = (_column(rng.normal(0, 0.1, count)) for _ in range(2))
    squeeze = _column(
        rng.choice([-1.0, 1.0], count) * rng.uniform(0.7, 1.0, count)
    )  # seen from either side, at an angle
    x, y = (px - shift_x) / scale, (py - shift_y) / scale
    x, y = (x * np.cos(angle) + y * np.sin(angle)) / squeeze, y * np.cos(angle) - x * np.sin(angle)
    colours = {
        role: np.tile(np.asarray(colour, dtype=np.float32), (count, 1)) for role, colour in _FIXED_COLOURS.items()
    }
    colours["main"], colours["second"] = rng.uniform(0.0, 1.0, (2, count, 3)).astype(np.float32)
    for kind, numbers, role in parts_of(name):
        # Positions wobble by a fixed amount, sizes in proportion: thin things stay thin.
        places = 4 if kind == "line" else 2
        jittered = [
            _column(value + rng.normal(0, 0.05, count) if index < places else value * rng.uniform(0.7, 1.45, count))
            for index, value in enumerate(numbers)
        ]
        _paint(canvas, distance(kind, jittered, x, y), colours[role] * rng.uniform(0.75, 1.25, (count, 1)))
    hidden = [_column(values) for values in (*rng.uniform(-1, 1, (2, count)), *rng.uniform(0.0, 0.5, (2, count)))]
    _paint(canvas, distance("box", hidden, px, py), rng.uniform(0, 1, (count, 3)))
    blurred = (canvas + np.roll(canvas, 1, 1) + np.roll(canvas, 1, 2) + np.roll(canvas, (1, 1), (1, 2))) / 4
    canvas = np.where(rng.random((count, 1, 1, 1)) < 0.4, blurred, canvas)
    contrast, light = rng.uniform(0.3, 1.1, (count, 1, 1, 1)), rng.uniform(-0.12, 0.12, (count, 1, 1, 1))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * rng.uniform(0.02, 0.12, (count, 1, 1, 1))
    return (np.clip((canvas - 0.5) * contrast + 0.5 + light + noise, 0, 1) * 255).round().astype(np.uint8)


def _draw_split(
    classes: Sequence[str], per_class: int, seed: int, split: str
) -> tuple[np.ndarray, list[int], list[str]]:
    """Pixels (N, 3072), fine label ids and file names of one split, the classes mixed."""
    order = np.random.default_rng([seed, zlib.crc32(split.encode())]).permutation(len(classes) * per_class)
    data = np.empty((len(order), 3 * _SIDE * _SIDE), dtype=np.uint8)
    labels, names = [0] * len(order), [""] * len(order)
    for position, (name, label) in enumerate(zip(classes, class_ids(classes, FINE_NAMES), strict=True)):
        rng = np.random.default_rng([seed, zlib.crc32(f"{split}:{name}".encode())])
        rows = order[position * per_class : (position + 1) * per_class]
        for first in range(0, per_class, _BATCH):
            chunk = rows[first : first + _BATCH]
            data[chunk] = draw_images(name, len(chunk), rng).transpose(0, 3, 1, 2).reshape(len(chunk), -1)
        for number, row in enumerate(rows.tolist()):
            labels[row], names[row] = label, f"drawn_{name}_s_{split}_{number:06d}.png"
    return data, labels, names


def write_sample_archive(
    path: Path,
    classes: Sequence[str],
    *,
    seed: int = 0,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = TEST_PER_CLASS,
) -> Path:
    """Draw ``classes`` (CIFAR-100 names) and write ``cifar-100-python.tar.gz`` at ``path``; the same bytes for the same
    arguments.

    Raises:
        UnknownClassError: one is no class of CIFAR-100.
    """
    class_ids(classes, FINE_NAMES)
    members = {"meta": pickle.dumps({b"fine_label_names": [n.encode() for n in FINE_NAMES]}, protocol=4)}
    for split, per_class in (("test", test_per_class), ("train", train_per_class)):
        data, labels, names = _draw_split(classes, per_class, seed, split)
        members[split] = pickle.dumps(
            {
                b"data": data,
                b"batch_label": f"{split} sample drawn by scones-ml".encode(),
                b"fine_labels": labels,
                b"coarse_labels": [0] * len(labels),
                b"filenames": [name.encode() for name in names],
            },
            protocol=4,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # two runs on one machine may draw the same sample
    with (
        part.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    part.replace(path)
    return path
