"""The model monitor's container for image classifiers: captured predictions against a baseline.

Run as a processing job by a monitoring schedule (`python -m sagemaker_local.monitoring.analyzer`). Of every captured
invocation it takes `predicted_class` and `confidence` (from an answer that is a JSON list of probabilities) and, where
the input is an image, its `size` and eight statistics of its pixels (`IMAGE_FEATURES`). It writes `statistics.json` and
`constraint_violations.json` in Model Monitor's form, and says in its exit message whether there are violations.
Constraints on any other feature are listed as `not_checked` beside the violations and in the exit message.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DEFAULT_THRESHOLD = 0.1
BUCKETS = 10
IMAGE_FEATURES = ("brightness", "contrast", "red", "green", "blue", "saturation", "sharpness", "noise")
CATEGORIES = ("predicted_class", "size")
KNOWN = frozenset({*CATEGORIES, "confidence", *IMAGE_FEATURES})
_LUMA = np.array([0.299, 0.587, 0.114])
Row = dict[str, float | str]


def records(folder: Path) -> Iterator[dict[str, Any] | None]:
    """The `captureData` of every line of every file; None for a line that is not a captured invocation."""
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open("rb") as lines:  # as bytes: of text, some that a record may hold would end its line
            for line in lines:
                if line.strip():
                    try:
                        yield json.loads(line)["captureData"]
                    except (ValueError, KeyError, TypeError, RecursionError):
                        yield None


def features(capture: dict[str, Any] | None) -> Row:
    """What is known of one invocation; a feature that cannot be told is left out."""
    row: Row = {}
    if capture is None:
        return row
    try:
        probabilities = np.asarray(json.loads(_content(capture["endpointOutput"])), dtype=float)
        if probabilities.ndim == 1 and probabilities.size and np.isfinite(probabilities).all():
            row["predicted_class"] = str(int(probabilities.argmax()))
            row["confidence"] = float(probabilities.max())
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        pass
    try:
        image = Image.open(io.BytesIO(_content(capture["endpointInput"]))).convert("RGB")
    except Exception:  # noqa: BLE001  on anybody's bytes every decoder fails in its own way
        return row
    pixels = np.asarray(image, dtype=float)
    luma = pixels @ _LUMA
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    values = (luma.mean(), luma.std(), red, green, blue, spread.mean(), _sharpness(luma), _noise(luma))
    row.update({name: float(value) for name, value in zip(IMAGE_FEATURES, values, strict=True)})
    row["size"] = f"{image.width}x{image.height}"
    return row


def _sharpness(luma: Any) -> float:
    """Variance of the 4-neighbour Laplacian over the inner pixels; 0 for images narrower than 3 pixels."""
    if min(luma.shape) < 3:
        return 0.0
    sides = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((sides - 4 * luma[1:-1, 1:-1]).var())


def _noise(luma: Any) -> float:
    """Noise level after Immerkaer (1996): the mean absolute answer of a mask blind to edges and slopes."""
    if min(luma.shape) < 3:
        return 0.0
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.abs(mask).mean() * np.sqrt(np.pi / 2) / 6)


def _content(side: dict[str, Any]) -> bytes:
    data = str(side["data"])
    if side.get("encoding") != "BASE64":
        return data.encode()
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def statistics(rows: list[Row]) -> dict[str, Any]:
    """Model Monitor's `statistics.json` of these invocations."""
    names = sorted({name for row in rows for name in row})
    described = []
    for name in names:
        values = [row[name] for row in rows if name in row]
        common = {"num_present": len(values), "num_missing": len(rows) - len(values)}
        if name in CATEGORIES:
            found, counts = np.unique(np.asarray(values, dtype=str), return_counts=True)
            categories = [{"value": str(v), "count": int(c)} for v, c in zip(found, counts, strict=True)]
            text = {
                "common": common,
                "distinct_count": len(found),
                "distribution": {"categorical": {"buckets": categories}},
            }
            described.append({"name": name, "inferred_type": "String", "string_statistics": text})
            continue
        numbers = np.asarray(values, dtype=float)
        counts, edges = np.histogram(numbers, bins=BUCKETS)
        buckets = [
            {"lower_bound": float(low), "upper_bound": float(high), "count": int(count)}
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ]
        numeric = {
            "common": common,
            "mean": float(numbers.mean()),
            "sum": float(numbers.sum()),
            "std_dev": float(numbers.std()),
            "min": float(numbers.min()),
            "max": float(numbers.max()),
            "distribution": {"kll": {"buckets": buckets}},
        }
        described.append({"name": name, "inferred_type": "Fractional", "numerical_statistics": numeric})
    return {"version": 0.0, "dataset": {"item_count": len(rows)}, "features": described}


def violations(rows: list[Row], constraints: dict[str, Any], baseline: dict[str, Any]) -> list[dict[str, str]]:
    """What breaks the constraints, in Model Monitor's words; `not_checked` names the features it leaves out."""
    found = []
    threshold = float(
        constraints.get("monitoring_config", {})
        .get("distribution_constraints", {})
        .get("comparison_threshold", DEFAULT_THRESHOLD)
    )
    distributions = {feature["name"]: feature for feature in baseline.get("features", ())}
    for constraint in constraints.get("features", ()):
        name = constraint["name"]
        if name not in KNOWN:
            continue
        values = [row[name] for row in rows if name in row]
        complete, needed = len(values) / len(rows), float(constraint.get("completeness", 0.0))
        if complete < needed:
            found.append(_violation(name, "completeness_check", f"{complete:.3f} of the data, not {needed:.3f}"))
        domains = constraint.get("string_constraints", {}).get("domains")
        if domains and (strange := sorted({str(v) for v in values} - {str(d) for d in domains})):
            found.append(_violation(name, "categorical_values_check", f"values not in the baseline: {strange}"))
        distance = _distance(values, distributions.get(name))
        if distance is not None and distance > threshold:
            text = f"Baseline drift distance: {distance:.4f} exceeds threshold: {threshold}"
            found.append(_violation(name, "baseline_drift_check", text))
    return found


def not_checked(constraints: dict[str, Any]) -> list[str]:
    """The features with constraints that this analyzer does not compute."""
    return [feature["name"] for feature in constraints.get("features", ()) if feature["name"] not in KNOWN]


def _violation(feature: str, check: str, description: str) -> dict[str, str]:
    return {"feature_name": feature, "constraint_check_type": check, "description": description}


def _distance(values: list[float | str], baseline: dict[str, Any] | None) -> float | None:
    """The largest difference between shares (categories) or cumulated shares (numbers); None when not comparable."""
    if not values or baseline is None:
        return None
    text = baseline.get("string_statistics", {}).get("distribution", {}).get("categorical", {}).get("buckets")
    if text:
        total = sum(bucket["count"] for bucket in text)
        before = {str(bucket["value"]): bucket["count"] / total for bucket in text}
        now = {value: values.count(value) / len(values) for value in set(map(str, values))}
        return max(abs(before.get(key, 0.0) - now.get(key, 0.0)) for key in {*before, *now})
    buckets = baseline.get("numerical_statistics", {}).get("distribution", {}).get("kll", {}).get("buckets")
    if not buckets:
        return None
    edges = np.array([bucket["upper_bound"] for bucket in buckets])
    shares = np.cumsum([bucket["count"] for bucket in buckets], dtype=float)
    numbers = np.sort(np.asarray(values, dtype=float))
    cumulated = np.searchsorted(numbers, edges, side="right") / len(numbers)
    below = float(np.searchsorted(numbers, buckets[0]["lower_bound"], side="left") / len(numbers))
    return max(below, float(np.abs(shares / shares[-1] - cumulated).max()))


def main() -> int:
    """Analyse, write the reports, leave the exit message. Exit code 1 when there is nothing to analyse."""
    root = Path(os.environ.get("SM_ML_ROOT", "/opt/ml"))

    def local(variable: str) -> Path:
        return Path(os.environ[variable].replace("/opt/ml", str(root)))

    message = root / "output" / "message"
    message.parent.mkdir(parents=True, exist_ok=True)
    rows = [features(capture) for capture in records(local("dataset_source"))]
    if not rows:
        message.write_text("Error: no captured invocation in the data")
        return 1
    output = local("output_path")
    output.mkdir(parents=True, exist_ok=True)
    (output / "statistics.json").write_text(json.dumps(statistics(rows), indent=1))
    documents = {
        word: json.loads(local(f"baseline_{word}").read_text()) if f"baseline_{word}" in os.environ else {}
        for word in ("constraints", "statistics")
    }
    broken = violations(rows, documents["constraints"], documents["statistics"])
    left_out = not_checked(documents["constraints"])
    report: dict[str, Any] = {"version": 0.0, "violations": broken}
    if left_out:
        report["not_checked"] = left_out
    (output / "constraint_violations.json").write_text(json.dumps(report, indent=1))
    text = "Completed: Job completed successfully with no violations."
    if broken:
        text = f"CompletedWithViolations: Job completed successfully with {len(broken)} violations."
    if left_out:
        text += f" Constraints on features that are not computed here were not checked: {', '.join(left_out)}."
    message.write_text(text[:1024])
    return 0


if __name__ == "__main__":
    sys.exit(main())
