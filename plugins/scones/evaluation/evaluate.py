"""Evaluate a trained model on the test images, and publish the threshold.

A batch transform over the dataset's test images comes first; its outputs lie below `scones.aws.layout.transform` of the
training job, as ``<file>.png.out``. So do the live model's, when it is compared.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np

from scones.evaluation.data import Comparison, Evaluation
from scones.evaluation.metrics import EvaluationError, compare, evaluate
from scones.evaluation.page import render
from scones.evaluation.store import EvaluationStore
from scones.evaluation.threshold import Threshold, Why, bump, check_value, parse
from scones.training.data import Candidate, Champion, Manifest, test_images

log = logging.getLogger(__name__)
_THREADS = 8
_NAMED = 10
_MOST_MISTAKES = 50


def evaluate_model(store: EvaluationStore, dataset_version: str, model: Candidate) -> Evaluation:
    """Evaluate a model's answers, and the champion's to the same images; write ``evaluation.json`` and its page.

    Args:
        store: the project's bucket.
        dataset_version: whose test images were answered.
        model: what is evaluated, with its champion.

    Raises:
        EvaluationError: images without an answer, or answers that are no probabilities.
    """
    manifest = store.manifest(dataset_version)
    if manifest is None:
        raise EvaluationError(f"There is no manifest of {dataset_version}. Stage the dataset again.")
    classes = manifest["classes"]
    labels = labels_of_test_images(manifest)
    names = sorted(labels)
    truth = [labels[name] for name in names]
    job = model["job_name"]
    answers = read_answers(store, job, names)
    champion = model["champion"]
    against = _compare(store, champion, classes, names, (truth, answers)) if champion else None
    document = {
        **evaluate(truth, answers, classes),
        "dataset_version": dataset_version,
        "training_job_name": job,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": manifest.get("source"),
        "champion": against,
        "mistakes": _mistakes(names, truth, answers, store.test_images(dataset_version)),
    }
    log.info(
        "Evaluated on %(images)d test images: accuracy %(test_accuracy).4f, log loss %(log_loss).4f, calibration error "
        "%(expected_calibration_error).4f; threshold %(recommended_threshold)s (%(why)s)",
        {**document, "why": document["recommendation"]["reason"]},
    )
    metrics = document.get("binary_classification_metrics") or document["multiclass_classification_metrics"]
    return {
        "evaluation_uri": store.write_evaluation(job, document),
        "report_uri": store.write_page(job, render(document)),
        "training_job_name": job,
        "dataset_version": dataset_version,
        "classes": classes,
        "images": document["images"],
        "test_accuracy": document["test_accuracy"],
        "log_loss": document["log_loss"],
        "expected_calibration_error": document["expected_calibration_error"],
        "auc": metrics["auc_one_vs_rest_mean"]["value"],
        "recommended_threshold": document["recommended_threshold"],
        "recall": {name: figures["recall"] for name, figures in metrics["per_class"].items()},
        "champion": against,
    }


def labels_of_test_images(manifest: Manifest) -> dict[str, int]:
    """Class index of each test image by file name.

    Raises:
        EvaluationError: the manifest lists none.
    """
    labels = {file["key"].removeprefix("test/"): int(file["label"]) for file in test_images(manifest)}
    if not labels:
        raise EvaluationError("The manifest lists no test images. Stage the dataset again.")
    return labels


def parse_answer(body: bytes, name: str) -> list[float]:
    """The probabilities in one transform output: ``{"prediction": [..]}`` (JSON lines) or ``[..]``."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"The answer for {name} is not JSON: {body[:80]!r}.") from error
    values = document.get("prediction") if isinstance(document, dict) else document
    if (
        not isinstance(values, list)
        or not values
        or any(isinstance(item, bool) or not isinstance(item, int | float) or not 0 <= item <= 1 for item in values)
    ):
        raise EvaluationError(f"The answer for {name} holds no list of probabilities: {body[:80]!r}.")
    return [float(item) for item in values]


def read_answers(store: EvaluationStore, job: str, names: Sequence[str]) -> list[list[float]]:
    """The answer of a job's model to each of ``names``, in order.

    Raises:
        EvaluationError: one is missing (up to ten are named), malformed, or of another length than the others.
    """
    found, folder = store.answers(job), store.answers_uri(job)
    missing = [name for name in names if name not in found]
    if missing:
        shown = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise EvaluationError(
            f"{len(missing)} of {len(names)} test images have no answer below {folder}: {shown}. "
            "Look at the transform job's log, then run it again over the whole test folder."
        )

    def read(name: str) -> list[float]:
        return parse_answer(store.answer(found[name]), name)

    with ThreadPoolExecutor(_THREADS) as pool:
        answers = list(pool.map(read, names))
    lengths = {len(answer) for answer in answers}
    if len(lengths) > 1:
        raise EvaluationError(f"The answers below {folder} have different lengths: {sorted(lengths)}.")
    return answers


def comparable(champion: Champion, classes: Sequence[str]) -> bool:
    """Whether the champion knows these very classes, in whatever order."""
    return set(champion["classes"]) == set(classes)


def _compare(
    store: EvaluationStore,
    champion: Champion,
    classes: list[str],
    names: Sequence[str],
    ours: tuple[Sequence[int], Sequence[Sequence[float]]],
) -> Comparison:
    """The champion on the same images, its columns put into the order of our classes."""
    facts: Comparison = {"training_job_name": champion["job_name"], "classes": champion["classes"]}
    if not comparable(champion, classes):
        known = ", ".join(champion["classes"]) or "classes that were not recorded"
        return {**facts, "comparable": False, "reason": f"it knows {known}; the new model {', '.join(classes)}"}
    order = [champion["classes"].index(name) for name in classes]
    theirs = np.asarray(read_answers(store, champion["job_name"], names))
    if theirs.shape[1] != len(classes):
        raise EvaluationError(f"The live model answers {theirs.shape[1]} probabilities for {len(classes)} classes.")
    figures = compare(*ours, theirs[:, order], len(classes))
    return {**facts, "comparable": True, **figures}  # type: ignore[typeddict-item]


def _mistakes(
    names: Sequence[str], truth: Sequence[int], answers: Sequence[Sequence[float]], folder: str
) -> list[dict[str, Any]]:
    """The images answered wrongly, most confident first: what a person should look at."""
    wrong: list[dict[str, Any]] = []
    for name, label, answer in zip(names, truth, answers, strict=True):
        predicted = max(range(len(answer)), key=answer.__getitem__)
        if predicted != label:
            wrong.append(
                {"key": folder + name, "label": label, "predicted": predicted, "confidence": answer[predicted]}
            )
    return sorted(wrong, key=lambda item: -float(item["confidence"]))[:_MOST_MISTAKES]


def publish_threshold(store: EvaluationStore, threshold: float, why: Why) -> Threshold:
    """Put a threshold into force, with the next version. The same value changes nothing.

    Raises:
        ThresholdError: a value outside (0, 1], or a stored document that is damaged.
        ConflictError: others changed it at every try.
    """
    check_value(threshold)
    in_force: Threshold | None = None

    def change(body: bytes | None) -> bytes | None:
        nonlocal in_force
        current = None if body is None else parse(body)
        in_force = bump(current, threshold, why, datetime.now(UTC))
        return None if in_force is current else in_force.dumps()

    store.change_threshold(change)
    assert in_force is not None
    log.info("The threshold in force is %s, version %d", in_force.threshold, in_force.version)
    return in_force


def follow_rollback(store: EvaluationStore, training_job: str, recommended: float | None) -> bool:
    """Put the threshold of the model that serves again into force, where that of another model is; return whether.

    A threshold that a person or the deployment chose belongs to no model and stays.
    """
    body = store.threshold()
    adopted_for = parse(body).training_job if body is not None else ""
    if adopted_for in ("", training_job):
        return False
    if recommended is None:
        log.warning("The threshold in force was recommended for %s; %s has none of its own", adopted_for, training_job)
        return False
    why = Why("rollback_endpoint", f"Recommended by the evaluation of {training_job}, which serves again", training_job)
    publish_threshold(store, recommended, why)
    return True
