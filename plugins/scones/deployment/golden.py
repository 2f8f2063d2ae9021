"""Golden images: the few test images that every deployment is tried on, and what an endpoint says of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from scones.aws.naming import content_hash
from scones.deployment.aws import DeploymentAws
from scones.deployment.data import GoldenCheck
from scones.deployment.endpoint import parity_problems, probability_problems
from scones.training.data import Manifest, test_images

log = logging.getLogger(__name__)

# Transform and endpoint run the same container on the same bytes: only rounding may differ.
PARITY_TOLERANCE = 0.005
# What the API takes; the capture then says which image a request was, and the report shows it.
CUSTOM_ATTRIBUTES_MAX = 1024


@dataclass(frozen=True)
class Golden:
    """What an endpoint is asked, from the lineage of the model it should serve.

    Attributes:
        dataset_version: whose test images.
        job: training job whose answers to them were kept by the evaluation.
        classes: how many probabilities an answer has; 0 when nobody knows.
        need_answers: whether it is an error that the kept answers are gone.
    """

    dataset_version: str
    job: str
    classes: int
    need_answers: bool = True


def golden_keys(manifest: Manifest, per_class: int = 4) -> list[str]:
    """Return the keys, relative to the dataset, of the first ``per_class`` test images of each class, by name.

    Raises:
        ValueError: the manifest lists no test image.
    """
    by_label: dict[int, list[str]] = {}
    for file in sorted(test_images(manifest), key=lambda f: f["key"]):
        by_label.setdefault(file["label"], []).append(file["key"])
    keys = [key for label in sorted(by_label) for key in by_label[label][:per_class]]
    if not keys:
        raise ValueError(f"The manifest of {manifest.get('dataset_version')} lists no test image to try an endpoint on")
    return keys


def golden_images(aws: DeploymentAws, dataset_version: str) -> dict[str, bytes]:
    """Return the golden images of a dataset by file name.

    Raises:
        FileNotFoundError: the dataset's manifest or an image is gone.
    """
    store = aws.store
    manifest = store.manifest(dataset_version)
    if manifest is None:
        raise FileNotFoundError(f"The manifest of {dataset_version} is gone: stage the images again")
    images = {}
    for key in golden_keys(manifest):
        body = store.dataset_file(dataset_version, key)
        if body is None:
            raise FileNotFoundError(f"The test image {key} of {dataset_version} is gone: stage the images again")
        images[key.rpartition("/")[2]] = body
    return images


def kept_answers(aws: DeploymentAws, job: str, names: Iterable[str]) -> dict[str, list[float]] | None:
    """Return the probabilities the evaluation kept of the named images; None when one is gone."""
    answers = {}
    for name in names:
        body = aws.store.kept_answer(job, name)
        if body is None:
            return None
        answers[name] = json.loads(body)["prediction"]
    return answers


def ask_endpoint(
    endpoint_name: str, images: Mapping[str, bytes], run_id: str, client: Any
) -> tuple[dict[str, list[float]], list[str]]:
    """Invoke an endpoint once per image; return the answers by name, and the inference ids that were sent.

    Shapes: ``images`` name -> PNG bytes; answer ``[p0, p1, ...]`` in class order.
    """
    answers, ids = {}, []
    for name, body in images.items():
        inference_id = f"golden-{content_hash([run_id, endpoint_name, name], 16)}"
        response = client.invoke_endpoint(
            EndpointName=endpoint_name,
            Body=body,
            ContentType="image/png",
            Accept="application/json",
            InferenceId=inference_id,
            CustomAttributes=quote(f"golden/{name}")[:CUSTOM_ATTRIBUTES_MAX],
        )
        answers[name] = _probabilities(response["Body"].read())
        ids.append(inference_id)
    return answers, ids


def _probabilities(body: bytes) -> list[float]:
    """The probabilities in an answer; none in what is no JSON list."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, list):
        return answer
    log.warning("An answer is no list of probabilities: %r", body[:80])
    return []


def check_answers(endpoint_name: str, golden: Golden, run_id: str, aws: DeploymentAws) -> GoldenCheck:
    """Ask the endpoint about the golden images and compare with what the evaluated model said of them.

    Raises:
        FileNotFoundError: images are gone, or answers that are needed.
    """
    asked_at = datetime.now(UTC)
    images = golden_images(aws, golden.dataset_version)
    expected = kept_answers(aws, golden.job, images)
    if expected is None and golden.need_answers:
        raise FileNotFoundError(f"The answers of {golden.job} to the test images are gone: transform them again")
    answers, ids = ask_endpoint(endpoint_name, images, run_id, aws.client("sagemaker-runtime"))
    problems = [
        f"{name}: {problem}"
        for name, answer in answers.items()
        for problem in probability_problems(answer, golden.classes or len(answer))
    ]
    if expected is None:
        log.warning("The answers of %s are not kept any more: the endpoint's are only checked for form", golden.job)
    elif not problems:
        problems = parity_problems(expected, answers, PARITY_TOLERANCE)
    pairs = ((a, b) for name in expected or () for a, b in zip(answers[name], (expected or {})[name], strict=False))
    largest = max((abs(a - b) for a, b in pairs), default=0.0)
    log.info("%d golden images, largest difference to the kept answers %.2g", len(answers), largest)
    return {
        "images": len(answers),
        "compared": expected is not None,
        "largest_difference": largest,
        "inference_ids": ids,
        "asked_at": asked_at.isoformat(),
        "problems": problems,
    }
