"""From a trained artifact to a registered, approved model."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scones.aws.lineage import Lineage, tags, training_job_of_artifact
from scones.aws.store import ObjectStore
from scones.defaults import MODEL_PACKAGE_GROUP
from scones.training.model_package import APPROVED, PENDING, REJECTED, metrics_of, model_package_request, model_request
from scones.training.registry import ModelRegistryHook

log = logging.getLogger(__name__)


def git_revision(folder: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return the code's revision: ``SCONES_GIT_REVISION``, else the checkout's, else "unknown"."""
    given = (os.environ if environ is None else environ).get("SCONES_GIT_REVISION", "").strip()
    if given:
        return given
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607 - the user's own git
            cwd=folder or Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def create_model(
    training: Mapping[str, Any],
    resources: Mapping[str, str],
    classes: list[str],
    hook: ModelRegistryHook | None = None,
) -> dict[str, Any]:
    """Create the SageMaker model of a training job, and find the champion it is measured against.

    Returns:
        ``{"model_name", "image", "model_data_url", "job_name", "answers_uri", "champion": {the first five} | None}``;
        ``answers_uri`` is where the model's answers to the test images go. The champion is what the endpoint serves
        now, if it knows the same classes and is not this very model.
    """
    hook = hook or ModelRegistryHook()
    request = model_request(
        training["image"],
        training["model_artifacts"],
        resources,
        tags({"training_job": training["job_name"]}),
    )
    created = hook.ensure_model(request)
    log.info("Model %s %s", request["ModelName"], "created" if created else "was there already")
    bucket = resources["BucketName"]
    return {
        **_described(request["ModelName"], training["image"], training["model_artifacts"], bucket),
        "champion": find_champion(resources["EndpointName"], request["ModelName"], classes, bucket, hook),
    }


def _described(model_name: str, image: str, model_data_url: str, bucket: str) -> dict[str, Any]:
    job = training_job_of_artifact(model_data_url)
    return {
        "model_name": model_name,
        "image": image,
        "model_data_url": model_data_url,
        "job_name": job,
        "answers_uri": f"s3://{bucket}/evaluations/{job}/transform/",
    }


def find_champion(
    endpoint_name: str, challenger: str, classes: list[str], bucket: str, hook: ModelRegistryHook
) -> dict[str, Any] | None:
    """Return the model the endpoint serves, or None when there is none that the challenger can be compared with."""
    model = hook.served_model(endpoint_name)
    if model is None:
        log.info("No champion: endpoint %s serves nothing", endpoint_name)
        return None
    if model["ModelName"] == challenger:
        log.info("The endpoint already serves this very model: there is nothing to compare it with")
        return None
    container = model["PrimaryContainer"]
    package = hook.find(MODEL_PACKAGE_GROUP, container["ModelDataUrl"])
    known = (package or {}).get("CustomerMetadataProperties", {}).get("classes", "")
    if known != ",".join(classes):
        log.warning(
            "The champion %s was trained on the classes %r, not %r: they cannot be compared",
            model["ModelName"],
            known or "unknown",
            ",".join(classes),
        )
        return None
    return _described(model["ModelName"], container["Image"], container["ModelDataUrl"], bucket)


def register_model(
    *,
    model: Mapping[str, Any],
    dataset: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    training: Mapping[str, Any],
    require_approval: bool,
    dag_id: str,
    run_id: str,
    hook: ModelRegistryHook | None = None,
) -> dict[str, Any]:
    """Register the model with its metrics and its lineage, once per artifact.

    Returns:
        ``{"model_package_arn", "version", "approval_status", "created"}``.
    """
    hook = hook or ModelRegistryHook()
    lineage = Lineage(
        dataset_version=dataset["dataset_version"],
        training_job=training["job_name"],
        image=training["image"],
        git_revision=git_revision(),
        dag_id=dag_id,
        run_id=run_id,
    )
    metadata = lineage.as_metadata(
        classes=",".join(dataset["classes"]),
        image_shape=dataset["image_shape"],
        fingerprint=training["fingerprint"],
        **{name.replace(":", "_"): value for name, value in training["metrics"].items()},
        **metrics_of(evaluation),
    )
    status = PENDING if require_approval else APPROVED
    baseline = str(dataset["baseline_uri"]).rstrip("/")
    package, created = hook.register(
        model_package_request(
            group=MODEL_PACKAGE_GROUP,
            image=training["image"],
            model_data_url=model["model_data_url"],
            evaluation_uri=evaluation["evaluation_uri"],
            statistics_uri=f"{baseline}/statistics.json",
            constraints_uri=f"{baseline}/constraints.json",
            metadata=metadata,
            approval_status=status,
        )
    )
    if not created and not require_approval and package["ModelApprovalStatus"] != APPROVED:
        # It has passed the gate again, and this run asks no person.
        hook.set_approval(package["ModelPackageArn"], APPROVED, f"Passed the quality gate in run {run_id}")
        package["ModelApprovalStatus"] = APPROVED
    log.info(
        "Model version %s %s, %s",
        package["ModelPackageVersion"],
        "registered" if created else "was registered before",
        package["ModelApprovalStatus"],
    )
    return {
        "model_package_arn": package["ModelPackageArn"],
        "version": package["ModelPackageVersion"],
        "approval_status": package["ModelApprovalStatus"],
        "created": created,
    }


def record_refusal(
    *,
    model: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    reasons: list[str],
    resources: Mapping[str, str],
    run_id: str,
    announce: Any = None,
    store: ObjectStore | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Write ``refused/<job>.json`` and tell the alert topic. The live endpoint is not touched.

    Returns:
        ``{"job_name", "record_uri", "reasons"}``.
    """
    from scones.aws.alerts import publish_alert

    job = model["job_name"]
    document = {
        "training_job_name": job,
        "refused_at": (now or datetime.now(UTC)).isoformat(),
        "run_id": run_id,
        "reasons": reasons,
        "test_accuracy": evaluation.get("test_accuracy"),
        "champion": evaluation.get("champion"),
        "evaluation_uri": evaluation.get("evaluation_uri"),
    }
    store = store or ObjectStore(resources["BucketName"])
    uri = store.write_json(f"refused/{job}.json", document)
    (announce or publish_alert)(
        "model_refused", f"Model {job} was refused", {**document, "record": uri}, topic_arn=resources["AlertTopicArn"]
    )
    return {"job_name": job, "record_uri": uri, "reasons": reasons}


def settle_approval(package_arn: str, *, approved: bool, by: str, hook: ModelRegistryHook | None = None) -> str:
    """Write a person's decision into the registry; return the new status."""
    status = APPROVED if approved else REJECTED
    (hook or ModelRegistryHook()).set_approval(package_arn, status, f"{status} in Airflow by {by}")
    return status
