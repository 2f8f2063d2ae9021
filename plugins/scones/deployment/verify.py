"""Going back when an endpoint is wrong, clearing away what nothing uses any more, and waiting for its capture."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import UTC, datetime, timedelta

from scones.aws import layout
from scones.aws.sagemaker import models_of
from scones.deployment.aws import DeploymentAws, deregister, register
from scones.deployment.data import Cleaned, Deployment, GoldenCheck
from scones.deployment.endpoint import VARIANT
from scones.jobs.trigger import SageMakerWaitTrigger, first_event

log = logging.getLogger(__name__)

ROLL_BACK_TIMEOUT_S = 1800


def roll_back(deployment: Deployment, aws: DeploymentAws) -> str:
    """Put the endpoint back on the config it served before; return in words what was done."""
    hook = aws.sagemaker
    name, previous = deployment["endpoint_name"], deployment["previous_endpoint_config_name"]
    if previous == deployment["endpoint_config_name"] or (not previous and deployment["action"] == "unchanged"):
        return "and there is no earlier config to go back to"
    if not previous:
        # Nothing served before: no answer is better than wrong answers.
        hook.delete("delete_endpoint", EndpointName=name)
        return "and as nothing served before, it was deleted"
    if hook.endpoint_config(previous) is None:
        return f"and the earlier config {previous} no longer exists: run rollback_endpoint"
    scaling = aws.client("application-autoscaling")
    scaled = deregister(name, scaling)
    try:
        hook.conn.update_endpoint(EndpointName=name, EndpointConfigName=previous)
        trigger = SageMakerWaitTrigger(
            kind="endpoint",
            name=name,
            deadline=time.time() + ROLL_BACK_TIMEOUT_S,
            stop_on_kill=False,
            aws_conn_id=hook.aws_conn_id,
        )
        event = asyncio.run(first_event(trigger)).payload
    finally:
        if scaled is not None:
            register(name, scaled, scaling)
    serving = (hook.endpoint(name) or {}).get("EndpointConfigName")
    if event["status"] != "success" or serving != previous:
        return f"and going back to {previous} failed too ({event['state']}: {event['message']})"
    return f"so it was put back to {previous}"


def retire_superseded(deployment: Deployment, aws: DeploymentAws) -> Cleaned:
    """Delete the config the deployment replaced, then its models, if nothing uses them."""
    hook, previous = aws.sagemaker, deployment["previous_endpoint_config_name"]
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
    for model in models_of(config):
        if model in used:
            kept.append(f"model {model}")
        else:
            hook.delete("delete_model", ModelName=model)
            deleted.append(f"model {model}")
    log.info("Deleted %s; kept %s", ", ".join(deleted) or "nothing", ", ".join(kept) or "nothing")
    return {"deleted": deleted, "kept": kept}


def captured_ids(aws: DeploymentAws, endpoint_name: str, since: datetime, now: datetime) -> set[str]:
    """Return the inference ids in the capture files of the hours from ``since`` to ``now``."""
    found: set[str] = set()
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while hour <= now.astimezone(UTC):
        for item in aws.store.objects(f"{layout.capture(endpoint_name, VARIANT)}{hour:%Y/%m/%d/%H}/"):
            found.update(map(_inference_id, (aws.store.read(item["Key"]) or b"").splitlines()))
        hour += timedelta(hours=1)
    return found - {""}


def _inference_id(line: bytes) -> str:
    """The inference id of a line of a capture file; "" of one that has none, or can't be understood."""
    try:
        return str(json.loads(line)["eventMetadata"].get("inferenceId", ""))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def capture_is_complete(aws: DeploymentAws, endpoint_name: str, check: GoldenCheck, capture_percent: int) -> bool:
    """Return whether the capture holds every golden request (or sampling leaves that to chance)."""
    if capture_percent < 100:
        log.info("Only %d %% of the requests are captured: no particular one is waited for", capture_percent)
        return True
    wanted = set(check["inference_ids"])
    since = datetime.fromisoformat(check["asked_at"]) - timedelta(minutes=1)
    found = captured_ids(aws, endpoint_name, since, datetime.now(UTC))
    log.info("%d of %d golden requests are in the capture", len(wanted & found), len(wanted))
    return wanted <= found
