"""Golden images: the few test images that every deployment is tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def golden_keys(manifest: Mapping[str, Any], per_class: int = 4) -> list[str]:
    """Return the keys, relative to the dataset, of the first ``per_class`` test images of each class, by name.

    Raises:
        ValueError: the manifest lists no test image.
    """
    by_label: dict[int, list[str]] = {}
    for file in sorted(manifest["files"], key=lambda f: f["key"]):
        # The split also holds test.lst, which is no image.
        if file["split"] == "test" and file["key"].startswith("test/"):
            by_label.setdefault(file["label"], []).append(file["key"])
    keys = [key for label in sorted(by_label) for key in by_label[label][:per_class]]
    if not keys:
        raise ValueError(f"The manifest of {manifest.get('dataset_version')} lists no test image to try an endpoint on")
    return keys
