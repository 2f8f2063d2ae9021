"""From a trained artifact to a SageMaker model, and the model it is measured against."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from scones.aws.lineage import tags
from scones.training.aws import read_served_model
from scones.training.data import Candidate, Champion, Model, TrainingResult
from scones.training.model_package import model_request
from scones.training.registry import ModelRegistryHook
from scones.training.served import ServedModel
from scones.training.store import TrainingStore

log = logging.getLogger(__name__)


def create_model(
    training: TrainingResult,
    resources: Mapping[str, str],
    store: TrainingStore,
    hook: ModelRegistryHook | None = None,
) -> Candidate:
    """Create the SageMaker model of a training job, and find the champion it is measured against.

    The champion is what the endpoint serves now, unless it is this very model.
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
    served = read_served_model(resources["EndpointName"], store, hook)
    return {
        **_model(store, request["ModelName"], training["image"], training["model_artifacts"], training["job_name"]),
        "champion": _champion(served, request["ModelName"], store),
    }


def _model(store: TrainingStore, name: str, image: str, artifact: str, job: str) -> Model:
    return {
        "model_name": name,
        "image": image,
        "model_data_url": artifact,
        "job_name": job,
        "answers_uri": store.answers_uri(job),
    }


def _champion(served: ServedModel | None, challenger: str, store: TrainingStore) -> Champion | None:
    if served is None or not served.model_name:
        log.info("No champion: the endpoint serves nothing")
        return None
    if served.model_name == challenger:
        log.info("The endpoint already serves this very model: there is nothing to compare it with")
        return None
    job = served.training_job or served.model_name
    return {
        **_model(store, served.model_name, served.image, served.model_data_url, job),
        "classes": list(served.classes),
    }
