"""Statistics of images, and the baseline the live traffic is compared with.

Everything works on batches of decoded images, ``uint8`` of shape ``(N, H, W, 3)``, and is vectorised over the
batch. The baseline has the form of Model Monitor's ``statistics.json`` (one entry per feature, with
``numerical_statistics`` or ``string_statistics``), extended by ``quantiles``: 201 evenly spaced quantiles are
enough to compute PSI, Kolmogorov-Smirnov and Jensen-Shannon later without keeping the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

#: The numeric statistics of an image, with the words the report uses for them.
STATISTICS: dict[str, str] = {
    "brightness": "mean of the luma, 0 to 255",
    "contrast": "standard deviation of the luma",
    "sharpness": "variance of the Laplacian of the luma",
    "noise": "standard deviation of the noise (Immerkaer, 1996)",
    "saturation": "mean of the brightest minus the darkest channel, 0 to 255",
    "red": "mean of the red channel, 0 to 255",
    "green": "mean of the green channel, 0 to 255",
    "blue": "mean of the blue channel, 0 to 255",
}
#: Quantiles kept for a numeric feature: 0, 0.005, ... 1.
QUANTILES = 201
_BUCKETS = 20
#: Pixels worked on at one time: few enough that their copies stay in a processor's cache.
_CHUNK_PIXELS = 1 << 15
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class ImageShapeError(ValueError):
    """The batch is not ``uint8`` of shape ``(N, H, W, 3)``."""


def image_statistics(images: NDArray[np.uint8]) -> dict[str, FloatArray]:
    """Compute every statistic of :data:`STATISTICS` for each image of a batch.

    Args:
        images: ``uint8`` array of shape ``(N, H, W, 3)``, RGB. N may be 0.

    Returns:
        statistic name -> ``float32`` array of shape ``(N,)``.

    Raises:
        ImageShapeError: when dtype or shape is another.
    """
    _check_batch(images)
    count, height, width, _ = images.shape
    result = {name: np.empty(count, dtype=np.float32) for name in STATISTICS}
    step = max(1, _CHUNK_PIXELS // max(1, height * width))
    for start in range(0, count, step):
        part = slice(start, start + step)
        for name, values in _chunk_statistics(images[part]).items():
            result[name][part] = values
    return result


def _check_batch(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ImageShapeError(
            f"expected a uint8 batch of shape (N, H, W, 3), got {images.dtype} of shape {images.shape}; "
            'convert each image with Image.convert("RGB") first'
        )
    if images.shape[0] and 0 in images.shape[1:3]:
        raise ImageShapeError(f"images of shape {images.shape[1:]} hold no pixels")


def _chunk_statistics(images: NDArray[np.uint8]) -> dict[str, FloatArray]:
    # One plane per channel: contiguous memory is several times faster to go through.
    red, green, blue = np.ascontiguousarray(np.moveaxis(images, 3, 0))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    luma = red * _LUMA[0]
    luma += green * _LUMA[1]
    luma += blue * _LUMA[2]
    return {
        "brightness": luma.mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "sharpness": _sharpness(luma),
        "noise": _noise(luma),
        "saturation": _plane_mean(spread),
        "red": _plane_mean(red),
        "green": _plane_mean(green),
        "blue": _plane_mean(blue),
    }


def _plane_mean(plane: NDArray[np.uint8]) -> FloatArray:
    """Mean of each image's plane, from the exact sum."""
    flat = plane.reshape(plane.shape[0], -1)
    return np.asarray(flat.sum(axis=1, dtype=np.uint64) / flat.shape[1], dtype=np.float32)


def _sharpness(luma: FloatArray) -> FloatArray:
    """Variance of the 4-neighbour Laplacian over the inner pixels; 0 for images narrower than 3 pixels."""
    if min(luma.shape[1:]) < 3:
        return np.zeros(luma.shape[0], dtype=np.float32)
    inner = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * inner
    return np.asarray(laplacian.var(axis=(1, 2)), dtype=np.float32)


def _noise(luma: FloatArray) -> FloatArray:
    """Noise level after Immerkaer: the mean absolute answer of a mask blind to edges and slopes."""
    if min(luma.shape[1:]) < 3:
        return np.zeros(luma.shape[0], dtype=np.float32)
    rows = luma[:, :-2] - 2 * luma[:, 1:-1] + luma[:, 2:]
    mask = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return np.asarray(np.abs(mask).mean(axis=(1, 2)) * np.float32(np.sqrt(np.pi / 2) / 6), dtype=np.float32)


def size_label(width: int, height: int) -> str:
    """The value of the categorical feature ``size``: ``"32x32"``."""
    return f"{width}x{height}"


def numerical_feature(name: str, values: NDArray[Any]) -> dict[str, Any]:
    """Describe a numeric feature in Model Monitor's form, with 201 quantiles beside it.

    Values that are not finite count as missing. An empty feature has null moments and no buckets.
    """
    numbers = np.asarray(values, dtype=np.float64)
    present = numbers[np.isfinite(numbers)]
    statistics: dict[str, Any] = {
        "common": {"num_present": int(present.size), "num_missing": int(numbers.size - present.size)},
        "mean": None,
        "sum": None,
        "std_dev": None,
        "min": None,
        "max": None,
        "distribution": {"kll": {"buckets": []}},
    }
    feature = {"name": name, "inferred_type": "Fractional", "numerical_statistics": statistics}
    if present.size == 0:
        return {**feature, "quantiles": []}
    counts, edges = np.histogram(present, bins=_BUCKETS)
    statistics.update(
        mean=_round(present.mean()),
        sum=_round(present.sum()),
        std_dev=_round(present.std()),
        min=_round(present.min()),
        max=_round(present.max()),
    )
    statistics["distribution"]["kll"]["buckets"] = [
        {"lower_bound": _round(low), "upper_bound": _round(high), "count": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    quantiles = np.quantile(present, np.linspace(0, 1, QUANTILES))
    return {**feature, "quantiles": [_round(value) for value in quantiles]}


def categorical_feature(name: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """Describe a categorical feature in Model Monitor's form; buckets in the order of ``counts``."""
    present = sum(counts.values())
    return {
        "name": name,
        "inferred_type": "String",
        "string_statistics": {
            "common": {"num_present": present, "num_missing": 0},
            "distinct_count": sum(1 for count in counts.values() if count),
            "distribution": {"categorical": {"buckets": [{"value": v, "count": int(c)} for v, c in counts.items()]}},
        },
    }


def baseline_statistics(
    images: NDArray[np.uint8], labels: Sequence[int] | NDArray[Any], classes: Sequence[str]
) -> dict[str, Any]:
    """Compute the statistics of the training images that live traffic is compared with.

    Args:
        images: ``uint8`` array of shape ``(N, H, W, 3)``.
        labels: N class indices, each a position in ``classes``.
        classes: class names, in the order of the class indices.

    Returns:
        a JSON-able dict in the form of Model Monitor's ``statistics.json``: one feature per entry of
        :data:`STATISTICS`, then ``size`` and ``label``.

    Raises:
        ImageShapeError: when the batch has another shape or type.
        ValueError: when there are no images, or labels do not match images or classes.
    """
    _check_batch(images)
    indices = np.asarray(labels, dtype=np.int64)
    if images.shape[0] == 0:
        raise ValueError("a baseline needs at least one image, got none")
    if indices.shape != (images.shape[0],):
        raise ValueError(f"{images.shape[0]} images but labels of shape {indices.shape}; give one label per image")
    if indices.min() < 0 or indices.max() >= len(classes):
        raise ValueError(
            f"labels run from {indices.min()} to {indices.max()}, but there are {len(classes)} classes: "
            f"{', '.join(classes)}"
        )
    label_counts = Counter(indices.tolist())
    size = size_label(images.shape[2], images.shape[1])
    features = [numerical_feature(name, values) for name, values in image_statistics(images).items()]
    features.append(categorical_feature("size", {size: images.shape[0]}))
    features.append(categorical_feature("label", {name: label_counts[i] for i, name in enumerate(classes)}))
    return {
        "version": 0,
        "dataset": {"item_count": images.shape[0], "classes": list(classes)},
        "features": features,
    }


def features_by_name(statistics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Index the features of a statistics document by name."""
    return {feature["name"]: feature for feature in statistics["features"]}


def check_baseline(document: Any) -> None:
    """Try all that is read of a baseline.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is no document as :func:`baseline_statistics` writes it.
    """
    known = features_by_name(document)
    images = [known[name]["numerical_statistics"]["common"]["num_present"] for name in STATISTICS]
    labels = categorical_counts(known["label"]).values()
    image_size(document)
    if min(*images, sum(labels), *(len(known[name]["quantiles"]) for name in STATISTICS)) < 1:
        raise ValueError("it is the statistics of no images")
    NoveltyScale.of(document)


def image_size(baseline: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height, in pixels, of a baseline's images."""
    width, height = min(categorical_counts(features_by_name(baseline)["size"])).split("x")
    return int(width), int(height)


def categorical_counts(feature: Mapping[str, Any]) -> dict[str, int]:
    """The value counts of a categorical feature, in its order."""
    buckets = feature["string_statistics"]["distribution"]["categorical"]["buckets"]
    return {bucket["value"]: bucket["count"] for bucket in buckets}


@dataclass(frozen=True)
class NoveltyScale:
    """What makes an image unlike the baseline: mean and deviation of each statistic there.

    Sharpness and noise are compared on a logarithmic scale, as they span orders of magnitude.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    LOGARITHMIC: ClassVar[tuple[str, ...]] = ("sharpness", "noise")

    @classmethod
    def of(cls, baseline: Mapping[str, Any]) -> NoveltyScale:
        """The scale of a baseline; an even grid of quantiles stands for its sample."""
        known = features_by_name(baseline)
        columns = []
        for name in STATISTICS:
            quantiles = np.asarray(known[name]["quantiles"], dtype=np.float64)
            columns.append(np.log1p(quantiles) if name in cls.LOGARITHMIC else quantiles)
        return cls(
            tuple(float(column.mean()) for column in columns),
            tuple(max(float(column.std()), 1e-3) for column in columns),
        )

    def score(self, statistics: Mapping[str, NDArray[Any]]) -> FloatArray:
        """Root mean square of each image's z-scores, each capped at 10; about 1 for images like the baseline's."""
        total: Any = 0.0
        for name, mean, deviation in zip(STATISTICS, self.mean, self.deviation, strict=True):
            values = statistics[name]
            if name in self.LOGARITHMIC:
                values = np.log1p(values)
            total = total + np.square(np.clip((values - mean) / deviation, -10, 10))
        return np.asarray(np.sqrt(total / len(STATISTICS)), dtype=np.float32)


def _round(value: float) -> float:
    """Six significant digits: what the numbers carry, and a third of the bytes."""
    return float(f"{float(value):.6g}")
