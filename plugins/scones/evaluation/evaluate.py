"""Evaluate a trained model on the test images, decide, and publish the threshold.

    champion_needs_transform(bucket=, champion_job_name=, dataset_version=) -> bool
    evaluate_model(bucket=, manifest_key=, training_job_name=, champion_job_name=None, ...) -> dict (goes to XCom)
    check_gate(evaluation=, min_accuracy=, max_drop=) -> dict {"passed", "reasons", "summary", ...}
    publish_threshold(bucket=, threshold=, set_by=, reason=) -> dict (the document now in force)

A batch transform over ``datasets/<version>/test/`` comes before `evaluate_model`; its outputs are expected below
``evaluations/<training job>/transform/`` as ``<file>.png.out``. The champion's are below its own job's folder when
it was evaluated on the same dataset version; else transform it too (``champion_transform_prefix``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from scones.defaults import AWS_CONN_ID

log = logging.getLogger(__name__)
_THREADS = 8
_MAX_ANSWER_BYTES = 1024 * 1024
_NAMED = 10


def transform_prefix(training_job_name: str) -> str:
    """Where the batch transform of a job's model writes its answers."""
    return f"evaluations/{training_job_name}/transform/"


def champion_needs_transform(
    *, bucket: str, champion_job_name: str | None, dataset_version: str, s3: Any = None, aws_conn_id: str = AWS_CONN_ID
) -> bool:
    """Whether the champion has to answer the test images first: there is one, and it was not evaluated on this
    version.
    """
    if not champion_job_name:
        return False
    stored = _json_or_none(_client(s3, aws_conn_id), bucket, f"evaluations/{champion_job_name}/evaluation.json")
    return stored is None or stored.get("dataset_version") != dataset_version


def evaluate_model(
    *,
    bucket: str,
    manifest_key: str,
    training_job_name: str,
    champion_job_name: str | None = None,
    champion_transform_prefix: str | None = None,
    target_accuracy: float = 0.95,
    s3: Any = None,
    aws_conn_id: str = AWS_CONN_ID,
) -> dict[str, Any]:
    """Evaluate the answers of a batch transform and write ``evaluations/<job>/evaluation.{json,html}``.

    :param manifest_key: the dataset's manifest, e.g. ``datasets/<version>/manifest.json``.
    :param training_job_name: names the model; its answers are below `transform_prefix`.
    :param champion_job_name: training job of the live model; None when there is none.
    :param champion_transform_prefix: its answers to the same test images; by default those of its own evaluation.
    :param target_accuracy: of accepted images; the recommended threshold follows from it.
    :return: ``evaluation_uri, report_uri, training_job_name, dataset_version, images, test_accuracy, log_loss,
        expected_calibration_error, auc, recommended_threshold`` (None: none could be proven), ``champion`` (see
        `scones.evaluation.metrics.compare`; None without one). Exactly what `check_gate` takes.
    :raises EvaluationError: images without an answer, answers that are no probabilities, a champion without answers.
    """
    from scones.evaluation.metrics import evaluate
    from scones.evaluation.page import render

    s3 = _client(s3, aws_conn_id)
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=manifest_key)["Body"].read())
    classes, version = list(manifest["classes"]), str(manifest["dataset_version"])
    labels = labels_of_test_images(manifest)
    names = sorted(labels)
    truth = [labels[name] for name in names]
    answers = read_answers(s3, bucket, transform_prefix(training_job_name), names)
    document = evaluate(truth, answers, classes, target_accuracy=target_accuracy)
    document["dataset_version"] = version
    document["training_job_name"] = training_job_name
    document["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    document["source"] = manifest.get("source")
    document["champion"] = _champion(
        s3, bucket, champion_job_name, champion_transform_prefix, version, names, truth, answers, len(classes)
    )
    document["mistakes"] = _mistakes(names, truth, answers, f"datasets/{version}/test/")
    folder = f"evaluations/{training_job_name}"
    body = json.dumps(document, indent=1, allow_nan=False).encode()
    s3.put_object(Bucket=bucket, Key=f"{folder}/evaluation.json", Body=body, ContentType="application/json")
    page = render(document).encode()
    s3.put_object(Bucket=bucket, Key=f"{folder}/evaluation.html", Body=page, ContentType="text/html; charset=utf-8")
    log.info(
        "Evaluated on %d test images: accuracy %.4f, log loss %.4f, calibration error %.4f; threshold %s (%s)",
        document["images"],
        document["test_accuracy"],
        document["log_loss"],
        document["expected_calibration_error"],
        document["recommended_threshold"],
        document["recommendation"]["reason"],
    )
    metrics = document.get("binary_classification_metrics") or document["multiclass_classification_metrics"]
    kept = ("training_job_name", "dataset_version", "images", "test_accuracy", "log_loss", "champion")
    return {
        "evaluation_uri": f"s3://{bucket}/{folder}/evaluation.json",
        "report_uri": f"s3://{bucket}/{folder}/evaluation.html",
        **{key: document[key] for key in kept},
        "expected_calibration_error": document["expected_calibration_error"],
        "auc": metrics["auc_one_vs_rest_mean"]["value"],
        "recommended_threshold": document["recommended_threshold"],
    }


def labels_of_test_images(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Class index of each test image by file name. Raises EvaluationError when the manifest has none."""
    from scones.evaluation.metrics import EvaluationError

    labels = {
        item["key"].removeprefix("test/"): int(item["label"])
        for item in manifest.get("files", [])
        if item["split"] == "test" and item["key"].startswith("test/")
    }
    if not labels:
        raise EvaluationError("The manifest lists no test images. Stage the dataset again.")
    return labels


def parse_answer(body: bytes, name: str) -> list[float]:
    """The probabilities in one transform output: ``{"prediction": [..]}`` (JSON lines) or ``[..]``."""
    from scones.evaluation.metrics import EvaluationError

    try:
        document = json.loads(body)
    except ValueError as error:
        raise EvaluationError(f"The answer for {name} is not JSON: {body[:80]!r}.") from error
    values = document.get("prediction") if isinstance(document, dict) else document
    if (
        not isinstance(values, list)
        or not values
        or any(isinstance(item, bool) or not isinstance(item, int | float) for item in values)
    ):
        raise EvaluationError(f"The answer for {name} holds no list of probabilities: {body[:80]!r}.")
    return [float(item) for item in values]


def read_answers(s3: Any, bucket: str, prefix: str, names: Sequence[str]) -> list[list[float]]:
    """The answer to each of ``names``, in order, from ``<prefix>**/<name>.out``.

    Raises EvaluationError when one is missing (naming up to ten), malformed, or of another length than the others.
    """
    from scones.dataset.upload import list_objects
    from scones.evaluation.metrics import EvaluationError

    found = {key.rsplit("/", 1)[-1]: (key, item.bytes) for key, item in list_objects(s3, bucket, prefix).items()}
    missing = [name for name in names if f"{name}.out" not in found]
    if missing:
        shown = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise EvaluationError(
            f"{len(missing)} of {len(names)} test images have no answer below s3://{bucket}/{prefix}: {shown}. "
            "Look at the transform job's log, then run it again over the whole test folder."
        )

    def read(name: str) -> list[float]:
        key, size = found[f"{name}.out"]
        if size > _MAX_ANSWER_BYTES:
            raise EvaluationError(f"The answer for {name} is {size:,} bytes long.")
        return parse_answer(s3.get_object(Bucket=bucket, Key=key)["Body"].read(), name)

    with ThreadPoolExecutor(_THREADS) as pool:
        answers = list(pool.map(read, names))
    lengths = {len(answer) for answer in answers}
    if len(lengths) > 1:
        raise EvaluationError(f"The answers below s3://{bucket}/{prefix} have different lengths: {sorted(lengths)}.")
    return answers


def _champion(
    s3: Any,
    bucket: str,
    job_name: str | None,
    prefix: str | None,
    version: str,
    names: Sequence[str],
    truth: Sequence[int],
    answers: Sequence[Sequence[float]],
    class_count: int,
) -> dict[str, Any] | None:
    """The champion on the same images; never a number it reached on others."""
    from scones.evaluation.metrics import EvaluationError, compare

    if not job_name:
        return None
    if prefix is None:
        if champion_needs_transform(bucket=bucket, champion_job_name=job_name, dataset_version=version, s3=s3):
            raise EvaluationError(
                f"The live model of {job_name} has not answered the test images of {version}. "
                "Run a batch transform with it and give its champion_transform_prefix."
            )
        prefix = transform_prefix(job_name)
    theirs = read_answers(s3, bucket, prefix, names)
    if len(theirs[0]) != class_count:
        reason = f"it knows {len(theirs[0])} classes, the candidate {class_count}"
        return {"training_job_name": job_name, "comparable": False, "reason": reason}
    return {"training_job_name": job_name, "comparable": True, **compare(truth, answers, theirs, class_count)}


def _mistakes(
    names: Sequence[str], truth: Sequence[int], answers: Sequence[Sequence[float]], folder: str, most: int = 50
) -> list[dict[str, Any]]:
    """The images answered wrongly, most confident first: what a person should look at."""
    wrong = []
    for name, label, answer in zip(names, truth, answers, strict=True):
        predicted = max(range(len(answer)), key=answer.__getitem__)
        if predicted != label:
            wrong.append(
                {"key": folder + name, "label": label, "predicted": predicted, "confidence": answer[predicted]}
            )
    return sorted(wrong, key=lambda item: -float(str(item["confidence"])))[:most]


def check_gate(*, evaluation: Mapping[str, Any], min_accuracy: float, max_drop: float) -> dict[str, Any]:
    """The gate's decision on what `evaluate_model` returned: ``passed, reasons, summary, candidate_accuracy,
    champion_accuracy``. Refusing is a result, not an error."""
    from scones.evaluation.gate import decide

    decision = decide(evaluation, evaluation.get("champion"), min_accuracy=min_accuracy, max_drop=max_drop)
    log.info("%s", decision.summary)
    return decision.as_dict()


def publish_threshold(
    *,
    bucket: str,
    threshold: float,
    set_by: str,
    reason: str,
    s3: Any = None,
    aws_conn_id: str = AWS_CONN_ID,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Put a threshold into force: ``config/threshold.json`` with the next version. The same value changes nothing.

    Two writers at once cannot both win: the write is conditional on what was read, and done again when it lost.
    Raises ThresholdError for a value outside (0, 1] and for a stored document that is damaged.
    """
    from botocore.exceptions import ClientError

    from scones.evaluation.threshold import KEY, ThresholdError, bump, check_value, parse

    check_value(threshold)
    s3 = _client(s3, aws_conn_id)
    for _ in range(5):
        condition = {"IfNoneMatch": "*"}
        current = None
        try:
            answer = s3.get_object(Bucket=bucket, Key=KEY)
            current, condition = parse(answer["Body"].read()), {"IfMatch": answer["ETag"]}
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
        wanted = bump(current, threshold, set_by=set_by, reason=reason, now=now or datetime.now(UTC))
        document = json.loads(wanted.dumps())
        if wanted is current:
            log.info("The threshold is %s already (version %d)", wanted.threshold, wanted.version)
            return dict(document)
        try:
            s3.put_object(Bucket=bucket, Key=KEY, Body=wanted.dumps(), ContentType="application/json", **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
                continue
            raise
        log.info("The threshold is %s from now on (version %d): %s", wanted.threshold, wanted.version, reason)
        return dict(document)
    raise ThresholdError("The threshold is being changed by others all the time. Try again.")


def _client(s3: Any, aws_conn_id: str) -> Any:
    if s3 is not None:
        return s3
    from scones.dataset.staging import s3_client

    return s3_client(aws_conn_id)


def _json_or_none(s3: Any, bucket: str, key: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        document = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
