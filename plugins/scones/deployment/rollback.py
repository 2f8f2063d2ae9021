"""Going back to an earlier approved model version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from scones.aws.lineage import tags, training_job_of_artifact
from scones.defaults import MODEL_PACKAGE_GROUP
from scones.deployment.endpoint import probability_problems
from scones.training.model_package import artifact_of, choose_rollback_version, model_request
from scones.training.registry import ModelRegistryHook

log = logging.getLogger(__name__)


def choose_version(
    *, resources: Mapping[str, str], version: int | None, hook: ModelRegistryHook | None = None
) -> dict[str, Any]:
    """Find the version to go back to and make sure its SageMaker model exists.

    Args:
        version: a version number, or None for the newest approved one before the live one.

    Returns:
        ``{"version", "model_package_arn", "model_name", "image", "model_data_url", "job_name", "classes"}``.

    Raises:
        UnknownVersionError: there is no such approved version.
    """
    hook = hook or ModelRegistryHook()
    packages = {package["ModelPackageVersion"]: package for package in hook.packages(MODEL_PACKAGE_GROUP)}
    live = hook.served_model(resources["EndpointName"])
    live_artifact = live["PrimaryContainer"]["ModelDataUrl"] if live else None
    chosen = choose_rollback_version(
        [(number, p["ModelApprovalStatus"], artifact_of(p)[1]) for number, p in packages.items()],
        live_artifact,
        version,
    )
    image, artifact = artifact_of(packages[chosen])
    job = training_job_of_artifact(artifact)
    request = model_request(image, artifact, resources, tags({"training_job": job}))
    hook.ensure_model(request)
    log.info("Going back to version %d, trained by %s", chosen, job)
    return {
        "version": chosen,
        "model_package_arn": packages[chosen]["ModelPackageArn"],
        "model_name": request["ModelName"],
        "image": image,
        "model_data_url": artifact,
        "job_name": job,
        "classes": packages[chosen].get("CustomerMetadataProperties", {}).get("classes", "").split(","),
    }


def check_rolled_back(
    *, deployment: Mapping[str, Any], chosen: Mapping[str, Any], bucket: str, run_id: str, **fakes: Any
) -> dict[str, Any]:
    """Ask the endpoint about the golden images of the current dataset.

    They are compared with the answers the version gave when it was evaluated, where those are still kept; otherwise
    each answer must at least be a distribution over the version's classes.

    Returns:
        ``{"images", "compared", "problems": []}``.

    Raises:
        EndpointDeploymentError: the endpoint answers wrongly.
    """
    from scones.aws.store import ObjectStore
    from scones.deployment.endpoint import EndpointDeploymentError, parity_problems
    from scones.deployment.golden import golden_keys
    from scones.deployment.verify import PARITY_TOLERANCE, ask_endpoint, transform_answers

    store: ObjectStore = fakes.get("store") or ObjectStore(bucket)
    current = store.read_json("datasets/current.json")
    manifest = store.read_json(current["manifest_key"]) if current else None
    if current is None or manifest is None:
        raise EndpointDeploymentError("There is no staged dataset to try the endpoint on: run train_and_deploy once")
    prefix = current["manifest_key"].rpartition("/")[0]
    images = {key.rpartition("/")[2]: store.read(f"{prefix}/{key}") or b"" for key in golden_keys(manifest)}
    answers, _ = ask_endpoint(deployment["endpoint_name"], images, run_id, fakes.get("client"))
    problems = [
        f"{name}: {problem}"
        for name, answer in answers.items()
        for problem in probability_problems(answer, len(chosen["classes"]))
    ]
    compared = True
    try:
        uri = f"s3://{store.bucket}/evaluations/{chosen['job_name']}/transform/"
        expected = transform_answers(store, uri, list(images))
    except FileNotFoundError:
        log.warning(
            "The answers version %s gave when it was evaluated are not kept: only checked for form", chosen["version"]
        )
        compared = False
    else:
        problems = problems or parity_problems(expected, answers, PARITY_TOLERANCE)
    if problems:
        raise EndpointDeploymentError("The endpoint does not answer as the chosen version did: " + "; ".join(problems))
    return {"images": len(images), "compared": compared, "problems": []}
