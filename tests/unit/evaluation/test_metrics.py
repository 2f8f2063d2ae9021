"""The evaluation's numbers against scikit-learn and by hand; the page; the reading of transform answers."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scones.evaluation import metrics as evaluation
from scones.evaluation.evaluate import labels_of_test_images, parse_answer
from scones.evaluation.metrics import EvaluationError, compare, evaluate, recommend_threshold, threshold_sweep
from scones.evaluation.page import render

NAMES = {2: ["bicycle", "motorcycle"], 5: ["bus", "tank", "train", "rocket", "tractor"]}


def predictions(classes: int, count: int = 300, seed: int = 0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    scores = rng.normal(0, 1, (count, classes))
    scores[np.arange(count), labels] += skill
    odds = np.exp(scores)
    return labels, odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 5])
def test_agrees_with_scikit_learn(classes: int) -> None:
    from sklearn import metrics

    labels, given_ = predictions(classes)
    predicted = given_.argmax(axis=1)
    document = evaluate(labels, given_, NAMES[classes])
    kind = "binary" if classes == 2 else "multiclass"
    found = document[f"{kind}_classification_metrics"]
    assert document["test_accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found["accuracy"]["value"] == document["test_accuracy"]
    assert document["log_loss"] == pytest.approx(metrics.log_loss(labels, given_))
    matrix = [[found["confusion_matrix"][str(row)][str(column)] for column in range(classes)] for row in range(classes)]
    assert matrix == metrics.confusion_matrix(labels, predicted).tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted)
    for index, name in enumerate(NAMES[classes]):
        row = found["per_class"][name]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [precision[index], recall[index], f1[index]]
        )
        assert row["support"] == support[index]
        expected = metrics.roc_auc_score(labels == index, given_[:, index])
        assert found["roc_one_vs_rest"][name]["auc"] == pytest.approx(expected)
    if kind == "binary":
        assert found["auc"]["value"] == pytest.approx(metrics.roc_auc_score(labels, given_[:, 1]))
        assert found["precision"]["value"] == pytest.approx(precision[1])
        assert found["f2"]["value"] == pytest.approx(metrics.fbeta_score(labels, predicted, beta=2))
        assert found["true_negative_rate"]["value"] == pytest.approx(recall[0])
        assert found["false_positive_rate"]["value"] == pytest.approx(1 - recall[0])
    else:
        assert found["weighted_f1"]["value"] == pytest.approx(metrics.f1_score(labels, predicted, average="weighted"))
        expected = metrics.precision_score(labels, predicted, average="weighted")
        assert found["weighted_precision"]["value"] == pytest.approx(expected)


def test_the_document_is_json_in_model_monitors_form() -> None:
    labels, given_ = predictions(2)
    document = json.loads(json.dumps(evaluate(labels, given_, NAMES[2]), allow_nan=False))
    assert document["version"] == 0.0
    assert document["dataset"] == {"item_count": 300}
    form = {"value", "standard_deviation"}
    found = document["binary_classification_metrics"]
    assert all(set(found[name]) == form for name in ("accuracy", "precision", "recall", "auc", "f0_5", "f1", "f2"))
    curve = found["receiver_operating_characteristic_curve"]
    assert set(curve) == {"false_positive_rates", "true_positive_rates"}


def test_long_curves_are_thinned_but_the_area_is_exact() -> None:
    from sklearn import metrics

    labels, given_ = predictions(2, 5000)
    curve = evaluation.roc_curve(labels == 1, given_[:, 1])
    assert len(curve["true_positive_rates"]) <= evaluation.MAX_CURVE_POINTS
    assert [curve["true_positive_rates"][0], curve["true_positive_rates"][-1]] == [0, 1]
    assert curve["auc"] == pytest.approx(metrics.roc_auc_score(labels, given_[:, 1]), abs=1e-12)


def test_ties_in_the_scores_count_half() -> None:
    positive, scores = np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.5])
    assert evaluation.roc_curve(positive, scores)["auc"] == 0.5


def test_a_class_without_images_has_no_area() -> None:
    document = evaluate([0, 0, 1], [[0.8, 0.1, 0.1]] * 3, ["a", "b", "c"])
    found = document["multiclass_classification_metrics"]
    assert found["roc_one_vs_rest"]["c"]["auc"] is None
    assert found["per_class"]["c"]["support"] == 0
    json.dumps(document, allow_nan=False)
    assert "not measured" not in render({**document, "champion": None})


def test_calibration_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    given_ = np.array([[0.95, 0.05], [0.91, 0.09], [0.65, 0.35], [0.62, 0.38]])
    found = evaluation.calibration(labels, given_)
    expected = abs(1.0 - 0.93) * 0.5 + abs(0.5 - 0.635) * 0.5
    assert found["expected_calibration_error"] == pytest.approx(expected)
    assert [(row["from"], row["to"], row["images"]) for row in found["bins"]] == [(0.6, 0.7, 2), (0.9, 1.0, 2)]


def test_certain_answers_fall_in_the_last_bin() -> None:
    found = evaluation.calibration(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert found["expected_calibration_error"] == 0
    assert found["bins"][0]["to"] == 1.0


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert evaluate([0], [[0.0, 1.0]], NAMES[2])["log_loss"] == pytest.approx(-np.log(1e-15))


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.5, 0.999))
def test_the_wilson_bound_is_the_solution_of_its_equation(right: int, wrong: int, confidence: float) -> None:
    from scipy.special import ndtri

    trials = right + wrong
    bound = evaluation.wilson_lower_bound(right, trials, confidence)
    if not trials:
        assert bound == 0
        return
    share = right / trials
    assert 0 <= bound <= share + 1e-12
    z = ndtri(confidence)
    assert abs((share - bound) ** 2 * trials - z * z * bound * (1 - bound)) < 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.integers(1, 300), st.integers(0, 100))
def test_the_sweep_by_definition(classes: int, count: int, seed: int) -> None:
    from scipy.special import ndtri

    labels, given_ = predictions(classes, count, seed)
    rows = threshold_sweep(labels, given_)
    assert [row["threshold"] for row in rows] == [step / 100 for step in range(100 // classes, 100)]
    for row in rows:
        accepted = [index for index in range(count) if given_[index].max() >= row["threshold"]]
        right = sum(int(given_[index].argmax()) == labels[index] for index in accepted)
        assert row["accepted"] == len(accepted)
        assert row["coverage"] == pytest.approx(len(accepted) / count)
        assert row["accuracy"] == (pytest.approx(right / len(accepted)) if accepted else None)
        for name, hits, trials in (("coverage", len(accepted), count), ("accuracy", right, len(accepted))):
            low, high = row[f"{name}_interval"]
            z, share = ndtri(0.95), hits / max(trials, 1)
            assert 0 <= low <= high <= 1
            for bound in (low, high):  # Wilson: the bounds whose own deviation reaches the share
                assert not trials or abs((share - bound) ** 2 * trials - z * z * bound * (1 - bound)) < 1e-6
    coverage = [row["coverage"] for row in rows]
    assert coverage == sorted(coverage, reverse=True)


def test_the_recommended_threshold_is_the_smallest_that_proves_the_target() -> None:
    labels, given_ = predictions(2, 2000, skill=2)
    sweep: list[dict[str, Any]] = [dict(row) for row in threshold_sweep(labels, given_)]
    advice = recommend_threshold(sweep, 0.95)
    fits = [row["threshold"] for row in sweep if row["accuracy_lower_bound"] >= 0.95 and row["accepted"] >= 20]
    assert advice["threshold"] == min(fits)
    assert 0.5 < advice["threshold"] < 0.99
    assert "at least 95.0%" in advice["reason"]


def test_no_threshold_is_recommended_on_too_little_proof() -> None:
    perfect = evaluate([0, 1] * 9, [[0.99, 0.01], [0.01, 0.99]] * 9, NAMES[2])
    assert perfect["test_accuracy"] == 1.0
    assert perfect["recommended_threshold"] is None
    assert "more test images" in perfect["recommendation"]["reason"]


@pytest.mark.parametrize(
    ("labels", "given_", "message"),
    [
        ([], np.zeros((0, 2)), "no labelled image"),
        ([0, 1], [[0.5, 0.5]], r"shape \(1, 2\), expected \(2, 2\)"),
        ([0], [[0.2, 0.3, 0.5]], r"expected \(1, 2\)"),
        ([2], [[0.5, 0.5]], "outside 0..1"),
        ([-1], [[0.5, 0.5]], "outside 0..1"),
        ([0, 1], [[0.5, 0.5], [0.9, 0.9]], "1 answers are no probabilities, the first for image 1"),
        ([0], [[float("nan"), 1.0]], "no probabilities"),
        ([0], [[-0.2, 1.2]], "no probabilities"),
    ],
)
def test_bad_input_is_named(labels: Any, given_: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(labels, given_, NAMES[2])


@pytest.mark.parametrize(
    "options", [{"target_accuracy": 1.0}, {"target_accuracy": 0}, {"confidence": 0.4}, {"confidence": 1}]
)
def test_bad_parameters_are_named(options: dict[str, float]) -> None:
    with pytest.raises(EvaluationError, match="out of range"):
        evaluate([0], [[0.5, 0.5]], NAMES[2], **options)


def test_champion_and_challenger_by_hand() -> None:
    labels = [0, 0, 0, 0, 1, 1]
    right, wrong = [0.9, 0.1], [0.2, 0.8]
    challenger = [right, right, right, wrong, right, wrong]  # right, right, right, wrong, wrong, right
    champion = [right, wrong, wrong, right, right, wrong]  # right, wrong, wrong, right, wrong, right
    found = compare(labels, challenger, champion, 2)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["difference"] == pytest.approx(1 / 6)
    assert (found["only_challenger_right"], found["only_champion_right"]) == (2, 1)
    assert found["p_value"] == 1.0  # of three, no split is more even
    assert compare(labels, champion, champion, 2)["p_value"] == 1.0


class TestPage:
    def document(self, **changes: Any) -> dict[str, Any]:
        labels, given_ = predictions(2)
        extra: dict[str, Any] = {
            "training_job_name": "job",
            "dataset_version": "ds-1",
            "champion": None,
            "mistakes": [],
        }
        return {**evaluate(labels, given_, NAMES[2]), **extra, **changes}

    def test_passes_and_precision_are_shown_by_threshold_with_their_intervals(self) -> None:
        document = self.document()
        page = render(document)
        row = next(row for row in document["threshold_sweep"] if row["threshold"] == 0.9)
        low, high = row["coverage_interval"]
        assert f"{row['coverage']:.1%} ({low:.1%} to {high:.1%})" in page.replace("\u202f", "").replace(" %", "%")
        assert page.count("(recommended)") == (document["recommended_threshold"] is not None)

    def test_is_self_contained(self) -> None:
        page = render(self.document())
        assert page.startswith("<!doctype html>")
        assert page.count("<svg") == page.count("</svg>") == 3
        assert not re.search(r"<script|src=|href=|url\(|@import", page)
        assert "prefers-color-scheme: dark" in page

    def test_every_text_is_escaped(self) -> None:
        evil = "<script>alert(1)</script>"
        mistakes = [{"key": f"x/{evil}", "label": 0, "predicted": 1, "confidence": 0.9}]
        champion = {"training_job_name": evil, "comparable": False, "reason": evil}
        page = render(self.document(training_job_name=evil, dataset_version=evil, champion=champion, mistakes=mistakes))
        assert "<script" not in page

    def test_the_champion_is_shown(self) -> None:
        labels, given_ = predictions(2)
        champion = {"training_job_name": "old-job", "comparable": True, **compare(labels, given_, given_[::-1], 2)}
        page = render(self.document(champion=champion))
        assert "live: old-job" in page
        assert "McNemar, 300 images" in page

    def test_a_drawn_sample_is_said(self) -> None:
        assert "Drawn sample images" in render(self.document(source={"kind": "sample"}))
        assert "Drawn sample images" not in render(self.document(source={"kind": "official"}))

    def test_a_hundred_classes_fit(self) -> None:
        labels, given_ = predictions(100, 500)
        page = render({**evaluate(labels, given_, [f"class{index}" for index in range(100)]), "champion": None})
        assert len(re.findall(r"<td( class=.(hit|miss).)?>\d+</td>", page)) == 10_000


class TestAnswers:
    @pytest.mark.parametrize(
        "body", [b'{"prediction": [0.25, 0.75]}\n', b"[0.25, 0.75]", b'{"prediction":[0.25,0.75],"x":1}']
    )
    def test_both_forms(self, body: bytes) -> None:
        assert parse_answer(body, "a.png") == [0.25, 0.75]

    @pytest.mark.parametrize(
        "body", [b"", b"oops", b"{}", b"[]", b'{"prediction": "0.5"}', b'["0.1", "0.9"]', b"[true, false]", b"3"]
    )
    def test_others_are_named(self, body: bytes) -> None:
        with pytest.raises(EvaluationError, match=r"answer for a\.png"):
            parse_answer(body, "a.png")

    def test_labels_come_from_the_manifest(self) -> None:
        files: list[Any] = [
            {"key": "test/a.png", "split": "test", "label": 1},
            {"key": "test.lst", "split": "test", "label": -1},
            {"key": "train/b.png", "split": "train", "label": 0},
        ]
        manifest: Any = {"files": files}
        assert labels_of_test_images(manifest) == {"a.png": 1}
        without: list[Any] = [{"files": files[1:]}, {}]
        for nothing in without:
            with pytest.raises(EvaluationError, match="no test images"):
                labels_of_test_images(nothing)
