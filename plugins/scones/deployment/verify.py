"""Trying an endpoint, going back when it is wrong, and clearing away what nothing uses any more."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from scones.aws.naming import content_hash
from scones.aws.sagemaker import SageMakerResourcesHook
from scones.aws.store import ObjectStore
from scones.defaults import AWS_CONN_ID
from scones.deployment.endpoint import VARIANT, EndpointDeploymentError, parity_problems, probability_problems
from scones.deployment.golden import golden_keys
from scones.jobs.trigger import SageMakerWaitTrigger, first_event

log = logging.getLogger(__name__)

# Transform and endpoint run the same container on the same bytes: only rounding may differ.
PARITY_TOLERANCE = 0.005
# What the API takes; the capture then says which image a request was, and the report shows it.
CUSTOM_ATTRIBUTES_MAX = 1024
ROLL_BACK_TIMEOUT_S = 1800


def ask_endpoint(
    endpoint_name: str, images: Mapping[str, bytes], run_id: str, client: Any = None
) -> tuple[dict[str, list[float]], list[str]]:
    """Invoke an endpoint once per image; return the answers by name, and the inference ids that were sent.

    Shapes: ``images`` name -> PNG bytes; answer ``[p0, p1, ...]`` in class order.
    """
    client = client or AwsBaseHook(aws_conn_id=AWS_CONN_ID, client_type="sagemaker-runtime").conn
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
        answers[name] = json.loads(response["Body"].read())
        ids.append(inference_id)
    return answers, ids


def transform_answers(store: ObjectStore, output_uri: str, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the batch transform's probabilities of the named images.

    Raises:
        FileNotFoundError: the job wrote no answer for one of them.
    """
    prefix = output_uri.removeprefix(f"s3://{store.bucket}/").rstrip("/")
    answers = {}
    for name in names:
        body = store.read(f"{prefix}/{name}.out")
        if body is None:
            raise FileNotFoundError(f"The transform job wrote no {name}.out under {output_uri}: run it again")
        answers[name] = json.loads(body)["prediction"]
    return answers


def check_answers(
    *,
    endpoint_name: str,
    dataset: Mapping[str, Any],
    transform_uri: str,
    run_id: str,
    tolerance: float = PARITY_TOLERANCE,
    store: ObjectStore | None = None,
    client: Any = None,
) -> dict[str, Any]:
    """Ask the endpoint about the golden images and compare with what the batch transform said of them.

    Returns:
        ``{"images", "largest_difference", "inference_ids", "asked_at", "problems"}``; ``problems`` is empty when all
        is well.
    """
    store = store or ObjectStore(dataset["bucket"])
    asked_at = datetime.now(UTC)
    prefix = dataset["prefix"].rstrip("/")
    manifest = store.read_json(f"{prefix}/manifest.json")
    if manifest is None:
        raise FileNotFoundError(f"s3://{store.bucket}/{prefix}/manifest.json is gone: stage the images again")
    images = {key.rpartition("/")[2]: store.read(f"{prefix}/{key}") or b"" for key in golden_keys(manifest)}
    expected = transform_answers(store, transform_uri, list(images))
    answers, ids = ask_endpoint(endpoint_name, images, run_id, client)
    problems = [
        f"{name}: {problem}"
        for name, answer in answers.items()
        for problem in probability_problems(answer, len(dataset["classes"]))
    ] or parity_problems(expected, answers, tolerance)
    differences = [abs(a - b) for n in answers for a, b in zip(answers[n], expected[n], strict=False)]
    log.info("%d golden images, largest difference to the transform %.2g", len(answers), max(differences, default=0))
    return {
        "images": len(answers),
        "largest_difference": max(differences, default=0.0),
        "inference_ids": ids,
        "asked_at": asked_at.isoformat(),
        "problems": problems,
    }


def smoke_test(**arguments: Any) -> dict[str, Any]:
    """Check a candidate endpoint's answers before the real one is touched.

    Raises:
        EndpointDeploymentError: they are wrong.
    """
    result = check_answers(**arguments)
    if result["problems"]:
        raise EndpointDeploymentError(
            f"The candidate {arguments['endpoint_name']} answers wrongly, the live endpoint was not touched: "
            + "; ".join(result["problems"])
        )
    return result


def verify_endpoint(
    deployment: Mapping[str, Any], hook: SageMakerResourcesHook | None = None, **arguments: Any
) -> dict[str, Any]:
    """Check the live endpoint's answers after the deployment; go back to the previous config when they are wrong.

    Raises:
        EndpointDeploymentError: they are wrong; says what was done about it.
    """
    result = check_answers(endpoint_name=deployment["endpoint_name"], **arguments)
    if not result["problems"]:
        return result
    done = roll_back(deployment, hook or SageMakerResourcesHook())
    raise EndpointDeploymentError(
        f"Endpoint {deployment['endpoint_name']} does not answer as the evaluated model does, {done}: "
        + "; ".join(result["problems"])
    )


def roll_back(deployment: Mapping[str, Any], hook: SageMakerResourcesHook) -> str:
    """Put the endpoint back on the config it served before; return in words what was done."""
    name, previous = deployment["endpoint_name"], deployment["previous_endpoint_config_name"]
    if previous == deployment["endpoint_config_name"] or (not previous and deployment["action"] == "unchanged"):
        return "and there is no earlier config to go back to"
    if not previous:
        # Nothing served before: no answer is better than wrong answers.
        hook.delete("delete_endpoint", EndpointName=name)
        return "and as nothing served before, it was deleted"
    if hook.endpoint_config(previous) is None:
        return f"and the earlier config {previous} no longer exists: run rollback_endpoint"
    hook.conn.update_endpoint(EndpointName=name, EndpointConfigName=previous)
    trigger = SageMakerWaitTrigger(
        kind="endpoint",
        name=name,
        deadline=time.time() + ROLL_BACK_TIMEOUT_S,
        stop_on_kill=False,
        aws_conn_id=hook.aws_conn_id,
    )
    event = asyncio.run(first_event(trigger)).payload
    serving = (hook.endpoint(name) or {}).get("EndpointConfigName")
    if event["status"] != "success" or serving != previous:
        return f"and going back to {previous} failed too ({event['state']}: {event['message']})"
    return f"so it was put back to {previous}"


def retire_superseded(
    deployment: Mapping[str, Any], hook: SageMakerResourcesHook | None = None
) -> dict[str, list[str]]:
    """Delete the config the deployment replaced, then its models, if nothing uses them.

    Returns:
        ``{"deleted": [...], "kept": [...]}``, as "kind name".
    """
    hook = hook or SageMakerResourcesHook()
    previous = deployment["previous_endpoint_config_name"]
    config = hook.endpoint_config(previous) if previous else None
    if config is None:
        return {"deleted": [], "kept": []}
    if previous in hook.configs_in_use():
        log.warning("%s stays: an endpoint uses it", previous)
        return {"deleted": [], "kept": [f"endpoint config {previous}"]}
    deleted, kept = [], []
    used = hook.models_in_use(without_config=previous)
    hook.delete("delete_endpoint_config", EndpointConfigName=previous)
    deleted.append(f"endpoint config {previous}")
    for model in [variant["ModelName"] for variant in config["ProductionVariants"]]:
        if model in used:
            kept.append(f"model {model}")
        else:
            hook.delete("delete_model", ModelName=model)
            deleted.append(f"model {model}")
    log.info("Deleted %s; kept %s", ", ".join(deleted) or "nothing", ", ".join(kept) or "nothing")
    return {"deleted": deleted, "kept": kept}


def captured_ids(store: ObjectStore, endpoint_name: str, since: datetime, now: datetime) -> set[str]:
    """Return the inference ids in the capture files of the hours from ``since`` to ``now``."""
    found: set[str] = set()
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while hour <= now.astimezone(UTC):
        for item in store.objects(f"capture/{endpoint_name}/{VARIANT}/{hour:%Y/%m/%d/%H}/"):
            for line in (store.read(item["Key"]) or b"").splitlines():
                if line.strip():
                    found.add(json.loads(line).get("eventMetadata", {}).get("inferenceId", ""))
        hour += timedelta(hours=1)
    return found - {""}


def capture_is_complete(
    bucket: str, endpoint_name: str, check: Mapping[str, Any], capture_percent: int, store: ObjectStore | None = None
) -> bool:
    """Return whether the capture holds every golden request (or sampling leaves that to chance)."""
    if capture_percent < 100:
        log.info("Only %d %% of the requests are captured: no particular one is waited for", capture_percent)
        return True
    wanted = set(check["inference_ids"])
    since = datetime.fromisoformat(check["asked_at"]) - timedelta(minutes=1)
    found = captured_ids(store or ObjectStore(bucket), endpoint_name, since, datetime.now(UTC))
    log.info("%d of %d golden requests are in the capture", len(wanted & found), len(wanted))
    return wanted <= found
