"""Traffic: which images are drawn, and how drift changes them."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scones.batch.inputs import BatchInputError
from scones.batch.traffic import draw_shots, parse_class_mix, request_count
from scones.images.transformations import KINDS, transform, transform_png

CLASSES = ["bicycle", "motorcycle"]
FILES: list[Any] = [{"key": f"test/{label}-{n}.png", "label": label} for label in (0, 1) for n in range(20)]


def photo(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_counts() -> None:
    assert request_count("burst", 100, 2.0, 60) == 100
    assert request_count("stream", 100, 2.5, 60) == 150
    for mode, rate in (("stream", 0.001), ("stream", 300.0)):
        with pytest.raises(BatchInputError, match="requests"):
            request_count(mode, 1, rate, 100_000 if rate > 1 else 60)


def test_class_mix() -> None:
    assert parse_class_mix("", CLASSES) == {"bicycle": 0.5, "motorcycle": 0.5}
    assert parse_class_mix(" bicycle = 3, motorcycle=1", CLASSES) == {"bicycle": 0.75, "motorcycle": 0.25}
    for text in ("car=1", "bicycle", "bicycle=-1", "bicycle=x", "bicycle=0", "bicycle=inf", "bicycle=nan"):
        with pytest.raises(BatchInputError):
            parse_class_mix(text, CLASSES)


def draw(**options: Any) -> Any:
    settings: dict[str, Any] = {
        "class_mix": {"bicycle": 0.9, "motorcycle": 0.1}, "drift": "mixed", "drifted_share": 0.5, "seed": 1
    }  # fmt: skip
    return draw_shots(FILES, CLASSES, 2000, **{**settings, **options})


def test_draws_follow_the_mix_and_the_seed() -> None:
    shots = draw()
    labels = Counter(shot.label for shot in shots)
    assert 1700 < labels[0] < 1900
    drifts = Counter(shot.drift for shot in shots)
    assert 900 < drifts[""] < 1100
    assert all(drifts[kind] > 200 for kind in KINDS)
    assert shots == draw()
    assert shots != draw(seed=2)
    assert {shot.drift for shot in draw(drift="none")} == {""}
    assert {shot.drift for shot in draw(drift="night", drifted_share=1.0)} == {"night"}


def test_a_class_without_images() -> None:
    with pytest.raises(BatchInputError, match="motorcycle"):
        draw_shots(
            FILES[:20], CLASSES, 5, class_mix={"bicycle": 0.5, "motorcycle": 0.5}, drift="none", drifted_share=0, seed=0
        )


@pytest.mark.parametrize("kind", KINDS)
def test_drift_grows_with_its_strength(kind: str) -> None:
    pixels = photo()
    changed = [transform(pixels, kind, strength).astype(int) for strength in (0.0, 0.3, 0.6, 1.0)]
    changes = [float(np.abs(one - pixels).mean()) for one in changed]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[-1] > 20


def test_what_drift_does() -> None:
    pixels = photo()
    assert transform(pixels, "night", 0.8).mean() < 0.5 * pixels.mean()
    assert transform(pixels, "blur", 0.8).std() < 0.6 * pixels.std()
    grey = np.full((32, 32, 3), 128, np.uint8)
    assert 30 < transform(grey, "noise", 0.7, seed=3).std() < 60


def test_changed_images_are_pngs_and_the_same_each_time() -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo()).convert("RGBA").save(buffer, "PNG")
    first = transform_png(buffer.getvalue(), "noise", 0.5, seed=9)
    assert first == transform_png(buffer.getvalue(), "noise", 0.5, seed=9)
    with Image.open(io.BytesIO(first)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (32, 32), "RGB")


@pytest.mark.parametrize(("kind", "strength"), [("fog", 0.5), ("blur", 1.5), ("blur", -0.1)])
def test_drift_that_is_refused(kind: str, strength: float) -> None:
    with pytest.raises(ValueError, match=r"drift|strength"):
        transform(photo(), kind, strength)
