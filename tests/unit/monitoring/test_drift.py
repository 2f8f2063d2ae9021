from __future__ import annotations

import numpy as np
import pytest

from scones.images.statistics import categorical_feature, numerical_feature
from scones.monitoring.document import Drift
from scones.monitoring.drift import (
    CHI_SQUARE,
    DEFAULT_DRIFT,
    KOLMOGOROV_SMIRNOV,
    POPULATION_STABILITY,
    ConstraintsError,
    binned_shares,
    compare,
    drift_settings,
    effective_count,
    ks_distance,
    population_stability_index,
    service_settings,
    suggest_constraints,
)

GRID = np.linspace(0, 1, 201)


def document(values: np.ndarray, labels: dict[str, int] | None = None) -> dict:
    features = [numerical_feature("brightness", values)]
    if labels is not None:
        features.append(categorical_feature("label", labels))
    return {"features": features}


def by_test(results: list[Drift], feature: str = "brightness") -> dict[str, Drift]:
    return {result["test"]: result for result in results if result["feature"] == feature}


def run(baseline: np.ndarray, current: np.ndarray, effective: float | None = None) -> dict[str, Drift]:
    statistics = document(baseline)
    found = compare(statistics, {}, {"brightness": current}, {}, effective or current.size)
    return by_test(found)


def test_ks_distance_is_that_of_the_samples_within_half_a_percent() -> None:
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(0)
    baseline = generator.normal(0, 1, 2000)
    for shift in (0, 0.3, 2):
        current = generator.normal(shift, 1.3, 400)
        expected = ks_2samp(baseline, current).statistic
        assert ks_distance(np.quantile(baseline, GRID), current) == pytest.approx(expected, abs=0.006)


def test_ks_distance_handles_repeated_values() -> None:
    constant = np.quantile(np.full(100, 7.0), GRID)
    assert ks_distance(constant, np.full(30, 7.0)) == pytest.approx(0, abs=1e-9)
    assert ks_distance(constant, np.full(30, 8.0)) == pytest.approx(1)
    half = np.array([0.0] * 50 + [1.0] * 50)
    assert ks_distance(np.quantile(half, GRID), np.array([0.0] * 20 + [1.0] * 20)) == pytest.approx(0, abs=0.02)
    assert ks_distance(np.quantile(half, GRID), np.array([0.0] * 10 + [1.0] * 30)) == pytest.approx(0.25, abs=0.02)


def test_psi_is_the_published_formula() -> None:
    expected = 0.1 * np.log(0.6 / 0.5) + -0.1 * np.log(0.4 / 0.5)
    assert population_stability_index([0.5, 0.5], [0.6, 0.4], smoothing=0) == pytest.approx(expected)
    assert population_stability_index([0.2, 0.8], [0.2, 0.8]) == pytest.approx(0)
    assert np.isfinite(population_stability_index([1.0, 0.0], [0.0, 1.0]))


def test_bins_have_equal_shares_of_the_baseline() -> None:
    values = np.random.default_rng(1).gamma(2, 3, 5000)
    before, after = binned_shares(np.quantile(values, GRID), values, 10)
    assert before == pytest.approx([0.1] * 10, abs=0.001)
    assert after == pytest.approx([0.1] * 10, abs=0.01)
    assert binned_shares(np.quantile(values, GRID), np.array([-1e9, 1e9]), 10)[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("count", [50, 200, 1000])
def test_same_distribution_does_not_drift_and_another_does(count: int) -> None:
    generator = np.random.default_rng(count)
    baseline = generator.normal(100, 20, 800)
    for result in run(baseline, generator.normal(100, 20, count)).values():
        assert not result["drifted"], result
    for result in run(baseline, generator.normal(60, 20, count)).values():
        assert result["drifted"], result


def test_textbook_psi_would_alarm_on_fifty_honest_records() -> None:
    generator = np.random.default_rng(7)
    baseline = generator.normal(100, 20, 800)
    results = [run(baseline, generator.normal(100, 20, 50))[POPULATION_STABILITY] for _ in range(60)]
    assert np.mean([result["value"] > 0.2 for result in results]) > 0.3
    assert not any(result["drifted"] for result in results)


def test_a_shift_too_small_to_matter_is_no_drift_however_many_records() -> None:
    generator = np.random.default_rng(2)
    result = run(generator.normal(100, 20, 20_000), generator.normal(103, 20, 100_000))[KOLMOGOROV_SMIRNOV]
    assert result["value"] > 0.04
    assert not result["drifted"]


def test_repeated_images_count_once() -> None:
    assert effective_count(np.array([5] * 1000)) == 1
    assert effective_count(np.arange(100)) == 100
    assert effective_count(np.array([1, 1, 2, 2])) == 2
    assert effective_count(np.array([])) == 0
    generator = np.random.default_rng(3)
    few = generator.normal(96, 20, 40).repeat(50)
    baseline = generator.normal(100, 20, 800)
    assert run(baseline, few, effective=2000)[KOLMOGOROV_SMIRNOV]["drifted"]
    assert not run(baseline, few, effective=40)[KOLMOGOROV_SMIRNOV]["drifted"]


def test_too_few_records_never_drift() -> None:
    assert not run(np.random.default_rng(0).normal(0, 1, 500), np.full(29, 99.0))[KOLMOGOROV_SMIRNOV]["drifted"]
    assert run(np.random.default_rng(0).normal(0, 1, 500), np.full(30, 99.0))[KOLMOGOROV_SMIRNOV]["drifted"]


def test_class_mix_needs_significance_and_a_tenth_of_a_shift() -> None:
    statistics = document(np.arange(100.0), {"a": 400, "b": 400})

    def label(a: int, b: int) -> Drift:
        return by_test(compare(statistics, {}, {}, {"label": {"a": a, "b": b}}, a + b), "label")[CHI_SQUARE]

    assert label(500, 500)["value"] == pytest.approx(0)
    assert not label(28, 22)["drifted"]
    assert not label(5400, 4600)["drifted"]
    assert label(800, 200)["drifted"]
    assert label(800, 200)["value"] == pytest.approx(0.3)
    assert label(0, 100)["value"] == pytest.approx(0.5)


def test_an_unknown_category_drifts() -> None:
    statistics = {"features": [categorical_feature("size", {"32x32": 800})]}
    (result,) = compare(statistics, {}, {}, {"size": {"32x32": 60, "64x64": 60}}, 120)
    assert result["drifted"]
    assert compare(statistics, {}, {}, {"size": {"32x32": 60}}, 60) == []


def test_constraints_are_model_monitors_form_and_hold_every_threshold() -> None:
    statistics = document(np.arange(100.0), {"a": 4, "b": 6})
    constraints = suggest_constraints(statistics)
    assert [feature["name"] for feature in constraints["features"]] == ["brightness", "label"]
    assert constraints["features"][1]["string_constraints"]["domains"] == ["a", "b"]
    assert constraints["monitoring_config"]["drift"] == DEFAULT_DRIFT
    constraints["monitoring_config"]["drift"]["minimum_effect"][CHI_SQUARE] = 0.9
    assert DEFAULT_DRIFT["minimum_effect"][CHI_SQUARE] != 0.9
    assert drift_settings({})["minimum_records"] == 30
    assert service_settings({"monitoring_config": {"service": {"minimum_accuracy": 0.5}}})["minimum_accuracy"] == 0.5


def test_only_the_chosen_tests_decide() -> None:
    constraints = {"monitoring_config": {"drift": {"tests": [POPULATION_STABILITY]}}}
    generator = np.random.default_rng(5)
    statistics = document(generator.normal(0, 1, 500))
    found = by_test(compare(statistics, constraints, {"brightness": generator.normal(3, 1, 300)}, {}, 300))
    assert found[POPULATION_STABILITY]["decisive"]
    assert not found[KOLMOGOROV_SMIRNOV]["decisive"]


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        ({"tests": ["tarot"]}, "unknown drift tests tarot"),
        ({"significance": 0}, "significance"),
        ({"bins": 1}, "bins"),
    ],
)
def test_bad_constraints_say_what_is_wrong(drift: dict, words: str) -> None:
    with pytest.raises(ConstraintsError, match=words):
        drift_settings({"monitoring_config": {"drift": drift}})


def test_nothing_to_compare_gives_no_result() -> None:
    statistics = document(np.arange(10.0))
    assert compare(statistics, {}, {"brightness": np.array([np.nan])}, {}, 1) == []
    assert compare(statistics, {}, {"other": np.arange(5.0)}, {}, 5) == []
