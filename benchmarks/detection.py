"""How often does each drift test see a drift, and how often does it cry wolf? Measured on real images.

``python -m benchmarks.detection`` prints the tables of docs/monitoring.md. In each trial 500 random images are the
baseline and the records are drawn from the other 600: without replacement where there are enough of them, else with
(1,000 records are then some 490 different images, as when test images are sent again and again).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.measure import SHARED_ARCHIVE, Measurement
from scones.images.statistics import STATISTICS, categorical_feature, image_statistics, numerical_feature
from scones.monitoring.drift import (
    CHI_SQUARE,
    JENSEN_SHANNON,
    KOLMOGOROV_SMIRNOV,
    POPULATION_STABILITY,
    compare,
    effective_count,
    suggest_constraints,
)

CLASSES = ["bicycle", "motorcycle"]
RECORDS = (50, 200, 1000)
BASELINE = 500
COLUMNS = (
    KOLMOGOROV_SMIRNOV,
    POPULATION_STABILITY,
    JENSEN_SHANNON,
    CHI_SQUARE,
    "report",
    "textbook KS",
    "textbook PSI",
)


def load() -> tuple[np.ndarray, np.ndarray]:
    """The 1,100 real images and their class indices.

    Raises:
        FileNotFoundError: the real archive is not there.
    """
    from scones.dataset.cifar import class_ids, read_archive

    archive = read_archive(SHARED_ARCHIVE)
    ids = class_ids(CLASSES, archive.class_names)
    images, labels = [], []
    for split in (archive.train, archive.test):
        chosen = np.isin(split.labels, ids)
        images.append(np.asarray(split.images)[chosen].transpose(0, 2, 3, 1))
        labels.append(np.searchsorted(np.sort(ids), split.labels[chosen]))
    return np.concatenate(images), np.concatenate(labels)


def _clipped(images: np.ndarray) -> np.ndarray:
    return np.clip(images, 0, 255).astype(np.uint8)


def drifts(images: np.ndarray) -> dict[str, np.ndarray]:
    """The images as a changed world would send them."""
    generator = np.random.default_rng(0)
    return {
        "none": images,
        "blur, 0.4 pixels": _clipped(gaussian_filter(images.astype(float), (0, 0.4, 0.4, 0))),
        "blur, 1 pixel": _clipped(gaussian_filter(images.astype(float), (0, 1, 1, 0))),
        "dusk, 85 % of the light": _clipped(images * 0.85),
        "night, 45 % of the light": _clipped(images * 0.45 + generator.normal(0, 4, images.shape)),
        "noise, deviation 4": _clipped(images + generator.normal(0, 4, images.shape)),
        "noise, deviation 16": _clipped(images + generator.normal(0, 16, images.shape)),
    }


def _predictions(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What a model answers for images it was not trained on: the class mix is made of answers, not of truths."""
    from skimage.feature import hog
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    features = np.array([hog(image, channel_axis=-1, pixels_per_cell=(4, 4)) for image in images])
    return np.asarray(cross_val_predict(make_pipeline(StandardScaler(), SVC(C=3)), features, labels, cv=5))


def _trial(
    generator: np.random.Generator,
    usual: dict[str, np.ndarray],
    changed: dict[str, np.ndarray],
    labels: np.ndarray,
    predicted: np.ndarray,
    count: int,
    motorcycles: float | None,
) -> dict[str, bool]:
    order = generator.permutation(len(labels))
    before, rest = order[:BASELINE], order[BASELINE:]
    if motorcycles is None:
        chosen = generator.choice(rest, count, replace=count > len(rest))
    else:
        of_class = [rest[labels[rest] == index] for index in (0, 1)]
        second = generator.binomial(count, motorcycles)
        chosen = np.concatenate(
            [
                generator.choice(part, number, replace=number > len(part))
                for part, number in zip(of_class, (count - second, second), strict=True)
            ]
        )
    features: list[dict[str, Any]] = [numerical_feature(name, usual[name][before]) for name in STATISTICS]
    mix = Counter(labels[before].tolist())
    features.append(categorical_feature("label", {name: mix[index] for index, name in enumerate(CLASSES)}))
    baseline = {"features": features}
    answers = Counter(predicted[chosen].tolist())
    results = compare(
        baseline,
        suggest_constraints(baseline),
        {name: changed[name][chosen] for name in STATISTICS},
        {"label": {name: answers[index] for index, name in enumerate(CLASSES)}},
        effective_count(chosen),
    )
    found = {test: any(r["drifted"] for r in results if r["test"] == test) for test in COLUMNS[:4]}
    found["report"] = any(result["drifted"] and result["decisive"] for result in results)
    joint = count * BASELINE / (count + BASELINE)
    distances = [result for result in results if result["test"] == KOLMOGOROV_SMIRNOV]
    found["textbook KS"] = any(result["value"] > 1.358 / np.sqrt(joint) for result in distances)
    found["textbook PSI"] = any(result["value"] > 0.2 for result in results if result["test"] == POPULATION_STABILITY)
    return found


def study(trials: int, trials_without: int) -> dict[tuple[str, int], dict[str, float]]:
    """Share of trials in which each test alarms, by drift and number of records."""
    images, labels = load()
    predicted = _predictions(images, labels)
    usual = image_statistics(images)
    worlds: dict[str, tuple[dict[str, np.ndarray], float | None]] = {
        name: (image_statistics(changed), None) for name, changed in drifts(images).items()
    }
    worlds["class shift, 65 % motorcycles"] = (usual, 0.65)
    worlds["class shift, 80 % motorcycles"] = (usual, 0.8)
    rates: dict[tuple[str, int], dict[str, float]] = {}
    for name, (changed, motorcycles) in worlds.items():
        for count in RECORDS:
            generator = np.random.default_rng([count, len(rates)])
            number = trials_without if name == "none" else trials
            found = [_trial(generator, usual, changed, labels, predicted, count, motorcycles) for _ in range(number)]
            rates[name, count] = {column: float(np.mean([one[column] for one in found])) for column in COLUMNS}
    return rates


def table(rates: dict[tuple[str, int], dict[str, float]]) -> str:
    """The rates as a Markdown table."""
    titles = ("KS", "PSI", "JS", "chi-square", "**report**", "textbook KS", "textbook PSI")
    lines = [
        "| drift | records | " + " | ".join(titles) + " |",
        "|---|---|" + "---|" * len(titles),
    ]
    for (name, count), row in rates.items():
        cells = [f"{row[column]:.1%}" if name == "none" else f"{row[column]:.0%}" for column in COLUMNS]
        cells[4] = f"**{cells[4]}**"
        lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def false_alarms() -> list[Measurement]:
    """The worst rate of false alarms of a report, and the worst power against a strong drift at 200 records."""
    rates = study(trials=60, trials_without=300)
    worst = max(rates["none", count]["report"] for count in RECORDS)
    strong = {name: row["report"] for (name, count), row in rates.items() if count == 200 and _is_strong(name)}
    beside = {"power_at_200": {name: round(value, 3) for name, value in strong.items()}}
    power = min(strong.values())
    return [
        Measurement("drift-false-alarms", worst, "share", "< 0.01", worst < 0.01, beside),
        Measurement("drift-power-200", power, "share", ">= 0.95", power >= 0.95, beside),
    ]


def _is_strong(name: str) -> bool:
    return name in ("blur, 1 pixel", "night, 45 % of the light", "noise, deviation 16", "class shift, 80 % motorcycles")


BENCHMARKS: dict[str, Callable[[], list[Measurement]]] = {"drift-false-alarms": false_alarms}

if __name__ == "__main__":
    print(table(study(trials=int((sys.argv[1:] or ["200"])[0]), trials_without=int((sys.argv[2:] or ["1000"])[0]))))
