"""Has the live traffic moved away from the baseline? Four well-known tests, and thresholds that count the records.

A distance between two samples is never zero, and the fewer the records, the larger it is by chance alone: the
textbook "PSI above 0.2" alarms on most honest windows of 50 images. So each test here asks two questions, and
alarms only when both are answered yes: is the distance larger than chance explains at this number of records
(significance, shared out over all comparisons of a report), and is it large enough to matter (minimum effect)?

The number of records is the number of *different* images (Kish's effective sample size): the same image sent a
thousand times is one observation. ``docs/monitoring.md`` has the measured power and false alarms behind the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scones.images.statistics import categorical_counts, features_by_name
from scones.monitoring.document import Drift

KOLMOGOROV_SMIRNOV = "kolmogorov_smirnov"
POPULATION_STABILITY = "population_stability_index"
JENSEN_SHANNON = "jensen_shannon"
CHI_SQUARE = "chi_square"
#: The words of a report for each test.
TEST_TITLES = {
    KOLMOGOROV_SMIRNOV: "Kolmogorov-Smirnov distance",
    POPULATION_STABILITY: "Population stability index",
    JENSEN_SHANNON: "Jensen-Shannon distance",
    CHI_SQUARE: "Chi-square test (largest change of a share)",
}

#: Defaults of ``monitoring_config.drift`` in constraints.json, chosen from the table in docs/monitoring.md.
DEFAULT_DRIFT: dict[str, Any] = {
    "significance": 0.005,
    "minimum_records": 30,
    "bins": 10,
    "tests": [KOLMOGOROV_SMIRNOV, CHI_SQUARE],
    "minimum_effect": {
        KOLMOGOROV_SMIRNOV: 0.15,
        POPULATION_STABILITY: 0.2,
        JENSEN_SHANNON: 0.15,
        CHI_SQUARE: 0.1,
    },
}
#: Defaults of ``monitoring_config.service``: what is checked beside the distributions.
DEFAULT_SERVICE: dict[str, Any] = {
    "maximum_rejection_rate": 0.75,
    "maximum_rejection_increase": 0.15,
    "minimum_capture_share": 0.95,
    "maximum_malformed_share": 0.01,
    "maximum_undecodable_share": 0.01,
    "maximum_latency_p95_ms": 2000,
    "minimum_accuracy": 0.8,
}
#: Violations of these check types mean that the model no longer fits its input: they ask for retraining.
RETRAINING_CHECKS = frozenset({"baseline_drift_check", "model_quality_check"})


class ConstraintsError(ValueError):
    """constraints.json or statistics.json cannot be used; the message names the part."""


def suggest_constraints(baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Suggest the constraints for traffic that should look like ``baseline``.

    Args:
        baseline: what :func:`scones.images.statistics.baseline_statistics` returned.

    Returns:
        a JSON-able dict in the form of Model Monitor's ``constraints.json``; the thresholds of the drift
        tests are under ``monitoring_config.drift``, those of the service under ``monitoring_config.service``.
    """
    features: list[dict[str, Any]] = []
    for feature in baseline["features"]:
        constraint = {"name": feature["name"], "inferred_type": feature["inferred_type"], "completeness": 1.0}
        if feature["inferred_type"] == "String":
            constraint["string_constraints"] = {"domains": list(categorical_counts(feature))}
        else:
            constraint["num_constraints"] = {"is_non_negative": True}
        features.append(constraint)
    return {
        "version": 0,
        "features": features,
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": 1.0,
            "domain_content_threshold": 1.0,
            "distribution_constraints": {"perform_comparison": "Enabled", "comparison_method": "Robust"},
            "drift": {**DEFAULT_DRIFT, "minimum_effect": dict(DEFAULT_DRIFT["minimum_effect"])},
            "service": dict(DEFAULT_SERVICE),
        },
    }


def drift_settings(constraints: Mapping[str, Any]) -> dict[str, Any]:
    """``monitoring_config.drift`` completed by the defaults and checked.

    Raises:
        ConstraintsError: on an unknown test, or a threshold outside its range.
    """
    given = constraints.get("monitoring_config", {}).get("drift", {})
    settings = {**DEFAULT_DRIFT, **given}
    settings["minimum_effect"] = {**DEFAULT_DRIFT["minimum_effect"], **given.get("minimum_effect", {})}
    unknown = sorted({*settings["tests"], *settings["minimum_effect"]} - set(TEST_TITLES))
    if unknown:
        raise ConstraintsError(
            f"constraints.json names the unknown drift tests {', '.join(unknown)}; known are {', '.join(TEST_TITLES)}"
        )
    if not 0 < settings["significance"] < 1:
        raise ConstraintsError(f"monitoring_config.drift.significance is {settings['significance']}, not in (0, 1)")
    if not 2 <= settings["bins"] <= 100:
        raise ConstraintsError(f"monitoring_config.drift.bins is {settings['bins']}, not in 2 to 100")
    return settings


def service_settings(constraints: Mapping[str, Any]) -> dict[str, Any]:
    """``monitoring_config.service`` completed by the defaults."""
    return {**DEFAULT_SERVICE, **constraints.get("monitoring_config", {}).get("service", {})}


def effective_count(fingerprints: NDArray[Any]) -> float:
    """Kish's effective number of observations when some are repeated: ``n**2 / sum(repeats**2)``."""
    if fingerprints.size == 0:
        return 0.0
    _, repeats = np.unique(fingerprints, return_counts=True)
    return float(fingerprints.size**2 / np.square(repeats, dtype=np.float64).sum())


def compare(
    baseline: Mapping[str, Any],
    constraints: Mapping[str, Any],
    numeric: Mapping[str, NDArray[Any]],
    categorical: Mapping[str, Mapping[str, int]],
    effective: float,
) -> list[Drift]:
    """Run every test on every feature that the baseline and the traffic share.

    Args:
        baseline: statistics document of the baseline.
        constraints: constraints document; its ``monitoring_config.drift`` sets thresholds and decisive tests.
        numeric: feature name -> values of the current records; values that are not finite are ignored.
        categorical: feature name -> value -> number of current records.
        effective: effective number of current records, see :func:`effective_count`.

    Returns:
        results in the order of the baseline's features.

    Raises:
        ConstraintsError: when the constraints cannot be used.
    """
    settings = drift_settings(constraints)
    known = features_by_name(baseline)
    shared = [name for name in known if name in numeric or name in categorical]
    tests = _Tests(settings, comparisons=max(1, len(shared)), effective=effective)
    results: list[Drift] = []
    for name in shared:
        if name in numeric:
            results.extend(tests.numeric(known[name], np.asarray(numeric[name], dtype=np.float64)))
        else:
            results.extend(tests.categorical(known[name], categorical[name]))
    return results


class _Tests:
    """The tests at one setting: significance is shared out evenly over the features compared (Bonferroni)."""

    def __init__(self, settings: Mapping[str, Any], comparisons: int, effective: float) -> None:
        self.settings = settings
        self.alpha = settings["significance"] / comparisons
        self.effective = effective

    def _result(self, feature: str, test: str, value: float, chance: float, records: float) -> Drift:
        threshold = max(chance, self.settings["minimum_effect"][test])
        drifted = records >= self.settings["minimum_records"] and value >= threshold
        decisive = test in self.settings["tests"]
        return {
            "feature": feature,
            "test": test,
            "value": float(value),
            "threshold": float(threshold),
            "records": float(records),
            "decisive": decisive,
            "drifted": bool(drifted),
        }

    # scipy.stats takes seconds to import, and most tasks that import this module test nothing.

    def numeric(self, feature: Mapping[str, Any], values: NDArray[np.float64]) -> list[Drift]:
        from scipy.spatial.distance import jensenshannon
        from scipy.stats import chi2, kstwobign

        present = values[np.isfinite(values)]
        quantiles = np.asarray(feature["quantiles"], dtype=np.float64)
        if present.size == 0 or quantiles.size == 0:
            return []
        name = feature["name"]
        baseline_count = feature["numerical_statistics"]["common"]["num_present"]
        records = min(self.effective, present.size)
        joint = records * baseline_count / (records + baseline_count)
        root = np.sqrt(joint)
        # Stephens' correction makes the asymptotic law good from a handful of records on.
        ks_chance = kstwobign.isf(self.alpha) / (root + 0.12 + 0.11 / root)
        results = [
            self._result(name, KOLMOGOROV_SMIRNOV, ks_distance(quantiles, present), min(1.0, ks_chance), records)
        ]
        expected, observed = binned_shares(quantiles, present, self.settings["bins"])
        if expected.size > 1:
            # Under no drift, PSI * joint and 8 ln 2 * JSD * joint follow chi-square with bins - 1 degrees of freedom.
            chance = chi2.isf(self.alpha, expected.size - 1) / joint
            smoothing = 0.5 / max(records, 1)
            psi = population_stability_index(expected, observed, smoothing)
            results.append(self._result(name, POPULATION_STABILITY, psi, chance, records))
            js = float(jensenshannon(expected, observed, base=2))
            js_chance = min(1.0, float(np.sqrt(chance / (8 * np.log(2)))))
            results.append(self._result(name, JENSEN_SHANNON, js, js_chance, records))
        return results

    def categorical(self, feature: Mapping[str, Any], counts: Mapping[str, int]) -> list[Drift]:
        from scipy.stats import chi2, chi2_contingency

        before = categorical_counts(feature)
        total_before, total = sum(before.values()), sum(counts.values())
        names = [name for name in {**before, **counts} if before.get(name) or counts.get(name)]
        if not total or not total_before or len(names) < 2:
            return []
        records = min(self.effective, total)
        expected = np.array([before.get(name, 0) for name in names], dtype=np.float64)
        observed = np.array([counts.get(name, 0) for name in names], dtype=np.float64)
        shift = float(np.abs(expected / total_before - observed / total).max())
        table = np.vstack([expected, observed * (records / total)])
        statistic = float(chi2_contingency(table, correction=False)[0])
        critical = float(chi2.isf(self.alpha, len(names) - 1))
        # People think in shares, not in probabilities: the statistic grows with the square of the shift, so this
        # is the shift at which chi-square becomes significant.
        if statistic > 0:
            chance = shift * np.sqrt(critical / statistic)
        else:
            chance = 0.5 * np.sqrt(critical * (1 / records + 1 / total_before))
        return [self._result(feature["name"], CHI_SQUARE, shift, min(1.0, chance), records)]


def ks_distance(quantiles: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Largest difference of the two distribution functions; the baseline's is given by its quantiles."""
    ordered, counts = np.unique(values, return_counts=True)
    upper = np.cumsum(counts) / values.size
    lower = upper - counts / values.size
    points, first, repeats = np.unique(quantiles, return_index=True, return_counts=True)
    grid = np.linspace(0, 1, quantiles.size)
    # A repeated quantile is a jump of the distribution function: compare on both of its sides.
    before = np.interp(ordered, points, grid[first], left=0, right=1)
    after = np.interp(ordered, points, grid[first + repeats - 1], left=0, right=1)
    return float(max(np.abs(upper - after).max(), np.abs(lower - before).max()))


def binned_shares(
    quantiles: NDArray[np.float64], values: NDArray[np.float64], bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of baseline and values in bins of equal baseline share; fewer bins when quantiles repeat."""
    grid = np.linspace(0, 1, quantiles.size)
    inner = np.unique(np.interp(np.linspace(0, 1, bins + 1)[1:-1], grid, quantiles))
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    points, first, repeats = np.unique(quantiles, return_index=True, return_counts=True)
    at_edges = np.interp(inner, points, grid[first + repeats - 1], left=0, right=1)
    expected = np.diff(np.concatenate([[0.0], at_edges, [1.0]]))
    # Bins are (low, high], as the distribution function at an edge includes the edge.
    observed = np.bincount(np.searchsorted(inner, values, side="left"), minlength=edges.size - 1) / values.size
    kept = (expected > 0) | (observed > 0)
    return expected[kept], observed[kept]


def population_stability_index(
    expected: Sequence[float] | NDArray[Any], observed: Any, smoothing: float = 1e-4
) -> float:
    """``sum((o - e) * ln(o / e))`` over the bins; ``smoothing`` is added to every share so that none is zero."""
    before = np.asarray(expected, dtype=np.float64) + smoothing
    after = np.asarray(observed, dtype=np.float64) + smoothing
    before, after = before / before.sum(), after / after.sum()
    return float(((after - before) * np.log(after / before)).sum())
