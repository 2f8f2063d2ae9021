"""The figures of a monitoring report: class mix, confidence, the course of time, histograms beside the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scones.images.statistics import STATISTICS, categorical_counts, features_by_name
from scones.monitoring.capture_summary import CaptureSummary
from scones.monitoring.document import ClassMix, Confidence, OverTime, Point, Shares

_TIME_BINS = 48


def expected_rejection_rate(evaluation: Mapping[str, Any], threshold: float) -> float | None:
    """Share of the test images below the threshold; None when the evaluation is not known."""
    sweep = sorted((float(row["threshold"]), float(row["coverage"])) for row in evaluation.get("threshold_sweep") or [])
    if not sweep:
        return None
    thresholds, coverages = zip(*sweep, strict=True)
    return 1 - float(np.interp(threshold, thresholds, coverages))


def class_mix(counts: Mapping[str, int], baseline: Mapping[str, Any] | None) -> list[ClassMix]:
    """How often each class was predicted, beside its share among the training images."""
    total = sum(counts.values())
    before = categorical_counts(features_by_name(baseline)["label"]) if baseline else {}
    total_before = sum(before.values())
    return [
        {
            "class": name,
            "records": count,
            "share": count / total if total else None,
            "baseline_share": before.get(name, 0) / total_before if total_before else None,
        }
        for name, count in counts.items()
    ]


def confidence(values: NDArray[Any], evaluation: Mapping[str, Any]) -> Confidence:
    """Mean, median and histogram of the confidences."""
    present = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(present, bins=25, range=(0, 1))
    sweep = evaluation.get("threshold_sweep") or []
    return {
        "mean": float(present.mean()) if present.size else None,
        "median": float(np.median(present)) if present.size else None,
        "histogram": {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()},
        "test_coverage": [[row["threshold"], row["coverage"]] for row in sweep],
    }


def over_time(summary: CaptureSummary, threshold: float) -> OverTime:
    """Records, mean and lowest tenth of the confidence, and rejections in up to 48 equal steps of time."""
    times = summary.column("time").astype(np.float64)
    confidence = summary.column("confidence").astype(np.float64)
    if not times.size:
        return {"step_seconds": 0, "points": []}
    first, last = float(times.min()), float(times.max())
    step = max(60.0, np.ceil((last - first + 1) / _TIME_BINS / 60) * 60)
    start = np.floor(first / step) * step
    bins = ((times - start) // step).astype(np.int64)
    # Counts come from the exact minutes, the rest from the rows, which may be a sample.
    counts: dict[int, int] = {}
    for minute, number in summary.minutes.items():
        index = int((minute * 60 - start) // step)
        counts[max(index, 0)] = counts.get(max(index, 0), 0) + number
    points: list[Point] = []
    for index in range(int(bins.max()) + 1):
        values = confidence[(bins == index) & np.isfinite(confidence)]
        points.append(
            {
                "time": start + index * step,
                "records": counts.get(index, 0),
                "mean": float(values.mean()) if values.size else None,
                "lowest_tenth": float(np.quantile(values, 0.1)) if values.size else None,
                "rejection_rate": float((values < threshold).mean()) if values.size else None,
            }
        )
    return {"step_seconds": step, "points": points}


def histograms(summary: CaptureSummary, baseline: Mapping[str, Any] | None) -> dict[str, Shares]:
    """Shares of baseline and traffic in the same 24 bins, for the plots."""
    known = features_by_name(baseline) if baseline else {}
    result: dict[str, Shares] = {}
    for name in STATISTICS:
        values = summary.column(name).astype(np.float64)
        values = values[np.isfinite(values)]
        quantiles = np.asarray(known[name]["quantiles"], dtype=np.float64) if name in known else np.empty(0)
        both = np.concatenate([np.quantile(values, [0.005, 0.995]) if values.size else [], quantiles[1:-1]])
        if not both.size:
            continue
        low, high = float(both.min()), float(both.max())
        edges = np.linspace(low, high if high > low else low + 1, 25)
        shares: Shares = {"edges": [float(f"{edge:.5g}") for edge in edges]}
        if quantiles.size:
            shares["baseline"] = _shares(quantiles, edges)
        if values.size:
            shares["current"] = _shares(values, edges)
        result[name] = shares
    return result


def _shares(sample: NDArray[Any], edges: NDArray[Any]) -> list[float]:
    counts = np.histogram(np.clip(sample, edges[0], edges[-1]), bins=edges)[0] / sample.size
    return [round(float(share), 5) for share in counts]
