"""What the pages ask AWS for, through Airflow's connection: the bucket, and a description with its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from threading import Lock
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from scones.aws.errors import code_of, not_found
from scones.aws.logs import read_log
from scones.aws.naming import EXPERIMENT
from scones.aws.resources import client, stack_outputs
from scones.aws.sagemaker import SageMakerResourcesHook
from scones.jobs.links import has_console
from scones.training.model_package import MODEL_PACKAGE_GROUP, artifact_of
from scones.training.registry import LOOK_BACK, ModelRegistryHook
from scones.training.served import container_of
from scones.ui.pages import Endpoint
from scones.ui.resources import LOG_LINES, PAGES, Described, endpoint_cost
from scones.ui.store import PageStore
from scones.ui.trainings import SHOWN_TRAININGS, Training

log = logging.getLogger(__name__)

_KEEP_S = 60
# A run has at least two jobs beside its training: the transforms of its model and of the champion.
_COMPONENTS = 3 * SHOWN_TRAININGS
_NO_EXECUTION = frozenset({"ExecutionDoesNotExist", "InvalidArn"})

_lock = Lock()
_stores: list[tuple[float, PageStore]] = []


class NoSuchResourceError(LookupError):
    """There is no resource of that kind and name."""


def open_store() -> PageStore:
    """The project's bucket; looked up again after a minute, as the stack may be deployed anew."""
    with _lock:
        if not _stores or time.monotonic() - _stores[0][0] > _KEEP_S:
            _stores[:] = [(time.monotonic(), PageStore(stack_outputs()["BucketName"]))]
        return _stores[0][1]


def describe(kind: str, name: str, clients: Any = client) -> Described:
    """Return what AWS tells of a resource, and its log.

    Raises:
        NoSuchResourceError: the kind or the name is unknown.
    """
    page = PAGES.get(kind)
    if page is None or not name:
        raise NoSuchResourceError("There is no such page.")
    try:
        found = getattr(clients(page.service), page.operation)(**{page.argument: name})
    except ClientError as error:
        if not not_found(error) and code_of(error) not in _NO_EXECUTION:
            raise
        raise NoSuchResourceError(f"There is no {page.title.lower()} {name!r}.") from error
    found.pop("ResponseMetadata", None)
    group = page.log_group.format(name=name)
    prefix = "" if "{name}" in page.log_group else f"{name}/"
    return Described(page, name, found, read_log(clients("logs"), group, prefix, LOG_LINES) if group else [])


def with_costs(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Add what each endpoint costs, or would cost on AWS."""
    hook = SageMakerResourcesHook()
    real = has_console(hook.conn_client_meta.endpoint_url)
    now = datetime.now(UTC)

    def cost(name: str) -> str:
        try:
            endpoint = hook.endpoint(name)
            config = hook.endpoint_config(endpoint["EndpointConfigName"]) if endpoint else None
        except (ClientError, BotoCoreError) as error:
            log.warning("What %s costs is not known: %s", name, error)
            return ""
        return endpoint_cost(endpoint, config, now, real=real) if endpoint and config else ""

    return [replace(one, cost=cost(one.name)) for one in endpoints]


def package_metadata(arn: str) -> dict[str, str]:
    """What is noted on a model package; nothing when there is none."""
    hook = ModelRegistryHook()
    package = hook.describe("describe_model_package", ModelPackageName=arn) if arn else None
    return (package or {}).get("CustomerMetadataProperties", {})


def read_trainings(store: PageStore, hook: ModelRegistryHook | None = None, job: str = "") -> list[Training]:
    """The newest training jobs, or this one, each with its version, its evaluation, and where it is live.

    Nothing when there is no job of that name.
    """
    hook = hook or ModelRegistryHook()
    real = has_console(hook.conn_client_meta.endpoint_url)
    packages = {artifact_of(one)[1]: one for one in islice(hook.packages(MODEL_PACKAGE_GROUP), LOOK_BACK)}
    artifacts = {one["ModelPackageArn"]: url for url, one in packages.items()}
    live: dict[str, list[str]] = {}
    for summary in hook.pages("list_endpoints", "Endpoints"):
        container = container_of(hook.served_model(summary["EndpointName"]) or {})
        url = container.get("ModelDataUrl") or artifacts.get(container.get("ModelPackageName", ""), "")
        live.setdefault(url, []).append(summary["EndpointName"])

    def read(name: str) -> Training | None:
        job = hook.training_job(name)
        if job is None:
            return None
        artifact = job.get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
        evaluation, refused = store.evaluation(name), store.was_refused(name)
        endpoints = live.get(artifact, []) if artifact else []
        runs = trials.get(job.get("TrainingJobArn", ""), [])
        return Training(job, packages.get(artifact, {}), evaluation, refused, endpoints, runs, real=real)

    trials = _trials(hook)
    jobs = hook.pages("list_training_jobs", "TrainingJobSummaries", SortBy="CreationTime", SortOrder="Descending")
    names = [job] if job else [one["TrainingJobName"] for one in islice(jobs, SHOWN_TRAININGS)]
    with ThreadPoolExecutor(8) as executor:
        return [one for one in executor.map(read, names) if one]


def _trials(hook: SageMakerResourcesHook) -> dict[str, list[str]]:
    """The trials of the newest jobs of our experiment, by the jobs' ARNs."""
    ours = {"Name": "Parents.ExperimentName", "Operator": "Equals", "Value": EXPERIMENT}
    newest = {"SortBy": "CreationTime", "SortOrder": "Descending"}
    found = hook.pages(
        "search", "Results", Resource="ExperimentTrialComponent", SearchExpression={"Filters": [ours]}, **newest
    )
    components = [one["TrialComponent"] for one in islice(found, _COMPONENTS)]
    return {
        one.get("Source", {}).get("SourceArn", ""): [parent["TrialName"] for parent in one.get("Parents", [])]
        for one in components
    }
