from __future__ import annotations

import json

import numpy as np
import pytest

from scones.images.statistics import (
    STATISTICS,
    ImageShapeError,
    NoveltyScale,
    baseline_statistics,
    categorical_counts,
    features_by_name,
    image_statistics,
    numerical_feature,
)

CLASSES = ["bicycle", "motorcycle"]


def noise(count: int = 20, seed: int = 0, level: float = 120, spread: float = 30) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.clip(generator.normal(level, spread, (count, 16, 12, 3)), 0, 255).astype(np.uint8)


def test_statistics_of_one_colour_are_known() -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    images[0] = (200, 100, 50)
    found = image_statistics(images)
    assert set(found) == set(STATISTICS)
    assert found["red"].tolist() == [200, 0]
    assert found["green"].tolist() == [100, 0]
    assert found["blue"].tolist() == [50, 0]
    assert found["saturation"].tolist() == [150, 0]
    assert found["brightness"][0] == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, rel=1e-5)
    for name in ("contrast", "sharpness", "noise"):
        assert found[name] == pytest.approx([0, 0], abs=1e-3)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    images = noise(3)
    luma = images.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    for index, image in enumerate(luma):
        values = [
            image[y - 1, x] + image[y + 1, x] + image[y, x - 1] + image[y, x + 1] - 4 * image[y, x]
            for y in range(1, image.shape[0] - 1)
            for x in range(1, image.shape[1] - 1)
        ]
        assert image_statistics(images)["sharpness"][index] == pytest.approx(np.var(values), rel=1e-3)


def test_noise_is_about_the_deviation_of_the_noise_and_blind_to_slopes() -> None:
    generator = np.random.default_rng(1)
    slope = np.linspace(50, 200, 64)[None, None, :, None] * np.ones((4, 64, 1, 3))
    noisy = slope + generator.normal(0, 12, (4, 64, 64, 1))
    found = image_statistics(np.clip(noisy, 0, 255).astype(np.uint8))["noise"]
    assert found == pytest.approx([12] * 4, rel=0.15)
    assert image_statistics(slope.astype(np.uint8))["noise"].max() < 1


def test_a_batch_is_the_same_as_its_images_one_by_one() -> None:
    images = noise(700)
    together = image_statistics(images)
    for index in (0, 350, 699):
        alone = image_statistics(images[index : index + 1])
        for name in STATISTICS:
            assert together[name][index] == pytest.approx(alone[name][0], rel=1e-4)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (3, 1, 1, 3), (2, 2, 9, 3)])
def test_small_and_empty_batches_have_finite_statistics(shape: tuple[int, ...]) -> None:
    found = image_statistics(np.full(shape, 9, dtype=np.uint8))
    assert all(values.shape == (shape[0],) and np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize(
    "images", [np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 0, 8, 3), np.uint8)]
)
def test_another_shape_or_type_is_refused(images: np.ndarray) -> None:
    with pytest.raises(ImageShapeError):
        image_statistics(images)


def test_baseline_has_model_monitors_form_and_is_json() -> None:
    images = noise(50)
    baseline = json.loads(json.dumps(baseline_statistics(images, [0] * 20 + [1] * 30, CLASSES)))
    known = features_by_name(baseline)
    assert baseline["dataset"]["item_count"] == 50
    assert categorical_counts(known["label"]) == {"bicycle": 20, "motorcycle": 30}
    assert categorical_counts(known["size"]) == {"12x16": 50}
    brightness = known["brightness"]
    values = image_statistics(images)["brightness"]
    assert brightness["inferred_type"] == "Fractional"
    assert brightness["numerical_statistics"]["mean"] == pytest.approx(values.mean(), rel=1e-4)
    assert sum(b["count"] for b in brightness["numerical_statistics"]["distribution"]["kll"]["buckets"]) == 50
    assert len(brightness["quantiles"]) == 201
    assert brightness["quantiles"][100] == pytest.approx(np.median(values), rel=1e-4)


@pytest.mark.parametrize(
    ("count", "labels", "words"),
    [(0, [], "at least one image"), (3, [0, 1], "one label per image"), (2, [0, 2], "there are 2 classes")],
)
def test_bad_baseline_input_says_what_is_wrong(count: int, labels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        baseline_statistics(noise(count), labels, CLASSES)


def test_missing_values_are_counted_not_averaged() -> None:
    feature = numerical_feature("x", np.array([1.0, np.nan, 3.0]))
    assert feature["numerical_statistics"]["common"] == {"num_present": 2, "num_missing": 1}
    assert feature["numerical_statistics"]["mean"] == 2
    assert numerical_feature("x", np.array([np.nan]))["quantiles"] == []


def test_novelty_is_about_one_for_usual_images_and_larger_for_others() -> None:
    usual = noise(200)
    scale = NoveltyScale.of(baseline_statistics(usual, [0] * 200, CLASSES))
    assert scale.score(image_statistics(usual)).mean() == pytest.approx(1, abs=0.25)
    dark = (noise(20, seed=3) * 0.3).astype(np.uint8)
    assert scale.score(image_statistics(dark)).min() > 3
