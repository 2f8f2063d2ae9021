"""Going back to an earlier approved model version."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from scones.aws.lineage import tags, training_job_of_artifact
from scones.deployment.aws import DeploymentAws
from scones.deployment.data import Version
from scones.training.aws import read_served_model
from scones.training.model_package import MODEL_PACKAGE_GROUP, artifact_of, choose_rollback_version, model_request
from scones.training.served import classes_of, quality_of

log = logging.getLogger(__name__)


def choose_version(resources: Mapping[str, str], version: int | None, aws: DeploymentAws) -> Version:
    """Find the version to go back to and make sure its SageMaker model exists.

    Args:
        version: a version number, or None for the newest approved one before the live one.

    Raises:
        UnknownVersionError: there is no such approved version.
    """
    hook = aws.sagemaker
    packages = {package["ModelPackageVersion"]: package for package in hook.packages(MODEL_PACKAGE_GROUP)}
    live = read_served_model(resources["EndpointName"], aws.store, hook)
    chosen = choose_rollback_version(
        [(number, p["ModelApprovalStatus"], artifact_of(p)[1]) for number, p in packages.items()],
        live.model_data_url if live else None,
        version,
    )
    image, artifact = artifact_of(packages[chosen])
    metadata = packages[chosen].get("CustomerMetadataProperties", {})
    job = training_job_of_artifact(artifact)
    request = model_request(image, artifact, resources, tags({"training_job": job}))
    hook.ensure_model(request)
    log.info("Going back to version %d, trained by %s", chosen, job)
    dataset_version = metadata.get("dataset_version", "")
    return {
        "version": chosen,
        "model_package_arn": packages[chosen]["ModelPackageArn"],
        "model_name": request["ModelName"],
        "image": image,
        "model_data_url": artifact,
        "job_name": job,
        "dataset_version": dataset_version,
        "classes": list(classes_of(aws.store.label_map(dataset_version), metadata)),
        "recommended_threshold": quality_of(metadata).get("recommended_threshold"),
    }
