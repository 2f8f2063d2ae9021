"""Reading the lineage of the model that an endpoint serves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scones.aws.lineage import training_job_of_artifact
from scones.training.model_package import MODEL_PACKAGE_GROUP
from scones.training.registry import ModelRegistryHook
from scones.training.served import ServedModel, classes_of, container_of, main_variant, quality_of, shape_of
from scones.training.store import TrainingStore

log = logging.getLogger(__name__)


def read_served_model(
    endpoint_name: str,
    store: TrainingStore,
    hook: ModelRegistryHook | None = None,
    classes: Sequence[str] = (),
) -> ServedModel | None:
    """Return what the endpoint serves now, as far as its lineage tells; None when there is no such endpoint.

    The lineage is that of the model package with the served model's artifact; a model without one is followed to its
    training job by its address and its tags.

    Args:
        endpoint_name: the endpoint.
        store: the project's bucket, where the datasets lie.
        hook: for tests.
        classes: class names in label order that a person gave, for a model whose lineage is not ours.

    Raises:
        ServedClassesError: the lineage names other classes than ``classes``.
    """
    hook = hook or ModelRegistryHook()
    endpoint = hook.endpoint(endpoint_name)
    if endpoint is None:
        return None
    config_name = endpoint.get("EndpointConfigName") or ""
    config = (hook.endpoint_config(config_name) if config_name else None) or {}
    variant = main_variant(endpoint, config)
    served = ServedModel(
        endpoint_name=endpoint_name,
        endpoint_config=config_name,
        variant=variant.get("VariantName", ""),
        model_name=variant.get("ModelName", ""),
    )
    model = (hook.model(served.model_name) if served.model_name else None) or {}
    served = _with_lineage(served, model, store, hook).named(classes)
    log.info(
        "%s serves version %s of %s, classes: %s",
        endpoint_name,
        served.version or "unknown",
        served.training_job or served.model_name or "an unknown model",
        ", ".join(served.classes) or "unknown",
    )
    return served


def _with_lineage(
    served: ServedModel, model: dict[str, Any], store: TrainingStore, hook: ModelRegistryHook
) -> ServedModel:
    container = container_of(model)
    package = _package_of(hook, container) or {}
    metadata: dict[str, str] = package.get("CustomerMetadataProperties") or {}
    inference = package.get("InferenceSpecification", {})
    artifact = container.get("ModelDataUrl") or container_of(inference).get("ModelDataUrl", "")
    job_name = metadata.get("training_job") or _job_of(hook, artifact, model.get("ModelArn"))
    job: dict[str, Any] = {}
    if job_name and not (metadata.get("dataset_version") and metadata.get("image_shape")):
        job = hook.training_job(job_name) or {}
    tags = {} if metadata.get("dataset_version") else hook.tags_of(job.get("TrainingJobArn"))
    dataset_version = metadata.get("dataset_version") or tags.get("scones:dataset_version", "")
    return replace(
        served,
        image=container.get("Image", ""),
        model_data_url=artifact,
        package_arn=package.get("ModelPackageArn", ""),
        version=package.get("ModelPackageVersion"),
        training_job=job_name,
        dataset_version=dataset_version,
        git_revision=metadata.get("git_revision") or tags.get("scones:git_revision", ""),
        classes=classes_of(store.label_map(dataset_version), metadata),
        image_shape=shape_of([metadata.get("image_shape"), job.get("HyperParameters", {}).get("image_shape")]),
        quality=quality_of(metadata),
    )


def _package_of(hook: ModelRegistryHook, container: dict[str, Any]) -> dict[str, Any] | None:
    if container.get("ModelPackageName"):
        return hook.describe("describe_model_package", ModelPackageName=container["ModelPackageName"])
    return hook.find(MODEL_PACKAGE_GROUP, container["ModelDataUrl"]) if container.get("ModelDataUrl") else None


def _job_of(hook: ModelRegistryHook, artifact: str, model_arn: str | None) -> str:
    tagged = hook.tags_of(model_arn).get("scones:training_job", "")
    if tagged:
        return tagged
    try:
        return training_job_of_artifact(artifact)
    except ValueError:
        return ""  # not trained here
