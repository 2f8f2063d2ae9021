"""What the evaluation hands on, as JSON."""

from __future__ import annotations

from typing import TypedDict


class Comparison(TypedDict, total=False):
    """The live model on the same test images. Without ``comparable`` only the job and the reason are there.

    Members:
        training_job_name, classes: the live model's, classes in label order.
        comparable, reason: whether it knows the same classes, and why not.
        accuracy, log_loss, expected_calibration_error: its figures.
        difference: accuracy of the new model less its own.
        only_challenger_right, only_champion_right, p_value, images: McNemar's test, exact.
    """

    training_job_name: str
    classes: list[str]
    comparable: bool
    reason: str
    accuracy: float
    log_loss: float
    expected_calibration_error: float
    difference: float
    only_challenger_right: int
    only_champion_right: int
    p_value: float
    images: int


class Evaluation(TypedDict):
    """How good a model is on the test images.

    Members:
        evaluation_uri, report_uri: the whole document, and its page.
        training_job_name, dataset_version, classes: whose, on what.
        images: how many.
        test_accuracy, log_loss, expected_calibration_error, auc: the headline figures.
        recommended_threshold: None when none could be proven.
        recall: share of each class's images that were found, by class name.
        champion: None when there is none.
    """

    evaluation_uri: str
    report_uri: str
    training_job_name: str
    dataset_version: str
    classes: list[str]
    images: int
    test_accuracy: float
    log_loss: float
    expected_calibration_error: float
    auc: float | str
    recommended_threshold: float | None
    recall: dict[str, float]
    champion: Comparison | None


class Decision(TypedDict):
    """What the gate says: whether the model may go on, one sentence per rule, and all of it as a line.

    ``needs_person``: it may go on only if a person says so.
    """

    passed: bool
    needs_person: bool
    reasons: list[str]
    summary: str
    candidate_accuracy: float
    champion_accuracy: float | None


class Registration(TypedDict):
    """A version in the model registry. ``asks_person``: nobody has approved this very model, and somebody is to."""

    model_package_arn: str
    version: int
    approval_status: str
    created: bool
    asks_person: bool
