"""What `filter_inferences` decides without AWS: are the probabilities sound, and is the best of them good enough."""

from __future__ import annotations

import json
from typing import Any

from lambdas.common import MalformedInferencesError, is_number, parsed

# How far the probabilities' sum may be from 1: float32 models and rounded answers.
SUM_TOLERANCE = 0.01


class InvalidThresholdError(ValueError):
    """The event's or the configuration's threshold is not a number between 0 and 1."""


class ThresholdNotConfiguredError(RuntimeError):
    """The event carries no threshold and the configuration object is missing or unreadable."""


class THRESHOLD_CONFIDENCE_NOT_MET(Exception):
    """The best probability is below the threshold. A business outcome: the message is JSON with what was decided on."""


def probabilities(data: dict[str, Any]) -> list[float]:
    """Return `inferences`, which may also be JSON text.

    Raises:
        MalformedInferencesError: not at least two finite numbers from 0 to 1 with sum 1.
    """
    values, about = data.get("inferences"), f"'inferences' of {data.get('s3_key')!r}"
    if isinstance(values, str):
        try:
            values = parsed(values)
        except ValueError as error:
            raise MalformedInferencesError(f"{about} is text that is not JSON: {values[:80]!r}") from error
    if not isinstance(values, list) or len(values) < 2:
        raise MalformedInferencesError(f"{about} must be a list of at least two probabilities, got {values!r}")
    if not all(is_number(value) and -1e-6 <= value <= 1 + 1e-6 for value in values):
        raise MalformedInferencesError(f"{about} must be numbers from 0 to 1, got {values!r}")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise MalformedInferencesError(f"{about} must add up to 1, got {sum(values)}")
    return [float(value) for value in values]


def check_threshold(threshold: Any, version: Any, source: str) -> tuple[float, int | None]:
    """Return (threshold, version).

    Raises:
        InvalidThresholdError: it is no number from 0 to 1; the message names `source`.
    """
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise InvalidThresholdError(f"The threshold in {source} must be a number from 0 to 1, got {threshold!r}")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise InvalidThresholdError(f"The threshold's version in {source} must be a whole number, got {version!r}")
    return float(threshold), version


def configured_threshold(document: bytes, source: str) -> tuple[float, int | None]:
    """Return (threshold, version) of config/threshold.json.

    Raises:
        ThresholdNotConfiguredError: the document is not a JSON object with a threshold.
        InvalidThresholdError: the threshold is not a number from 0 to 1.
    """
    try:
        config = parsed(document)
    except ValueError as error:
        raise ThresholdNotConfiguredError(f"{source} is not JSON: {error}") from error
    if not isinstance(config, dict) or "threshold" not in config:
        raise ThresholdNotConfiguredError(f"{source} holds no 'threshold'")
    return check_threshold(config["threshold"], config.get("version"), source)


def decide(data: dict[str, Any], values: list[float], threshold: float, version: int | None) -> dict[str, Any]:
    """Return the function's answer for a prediction that is confident enough.

    Raises:
        THRESHOLD_CONFIDENCE_NOT_MET: max(values) < threshold.
    """
    confidence = max(values)
    if confidence < threshold:
        raise THRESHOLD_CONFIDENCE_NOT_MET(
            json.dumps(
                {
                    "s3_key": data.get("s3_key"),
                    "inferences": values,
                    "threshold": threshold,
                    "threshold_version": version,
                }
            )
        )
    body = {
        **data,
        "inferences": values,
        "confidence": confidence,
        "predicted_class_index": values.index(confidence),
        "threshold": threshold,
        "threshold_version": version,
    }
    return {"statusCode": 200, "body": body}
