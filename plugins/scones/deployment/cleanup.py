"""Planning and doing the cleanup."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from scones.deployment.aws import DeploymentAws, deregister, take_inventory
from scones.deployment.cleanup_plan import Item, as_dicts, from_dicts, plan, table, totals

log = logging.getLogger(__name__)
DELETE_BATCH = 1000  # DeleteObjects takes no more keys at once


class ConfirmationError(ValueError):
    """The name that was typed is not that of the production endpoint: nothing is ended by a slip."""


@dataclass(frozen=True)
class CleanupRequest:
    """What a person asks for.

    Attributes:
        older_than_days: endpoints without requests, configs and models older than this go.
        objects_older_than_days: training outputs and captures older than this go.
        end_production: the production endpoint's name, typed out, if that is to go too; else empty.
    """

    older_than_days: float
    objects_older_than_days: float
    end_production: str = ""


def plan_cleanup(
    request: CleanupRequest, production: str, aws: DeploymentAws, now: datetime | None = None
) -> dict[str, Any]:
    """Return what would be deleted and what is kept, with what each costs a month; print it as a table.

    Args:
        production: name of the production endpoint.

    Returns:
        ``{"items": [...], "delete", "keep", "monthly_usd_freed", "monthly_usd_kept"}``.

    Raises:
        ConfirmationError: ``end_production`` names another endpoint.
    """
    if request.end_production not in ("", production):
        raise ConfirmationError(
            f"end_production is {request.end_production!r}, the production endpoint is {production!r}: type that name "
            "to end it, or leave the param empty to keep it. Nothing was deleted."
        )
    now = now or datetime.now(UTC)
    inventory = replace(
        take_inventory(aws, now=now, traffic_days=request.older_than_days),
        production=production,
        end_production=bool(request.end_production),
    )
    items = plan(
        inventory,
        now=now,
        older_than_days=request.older_than_days,
        folders_older_than_days=request.objects_older_than_days,
    )
    summary = totals(items)
    log.info("\n%s", table(items))
    log.info("To delete: %(delete)d (%(monthly_usd_freed).2f USD a month), to keep: %(keep)d", summary)
    return {"items": as_dicts(items), **summary}


def delete_planned(planned: Mapping[str, Any], aws: DeploymentAws) -> dict[str, Any]:
    """Delete what was planned, in order; look again right before each deletion whether it has come into use.

    Returns:
        ``{"deleted": [...], "kept": [...]}`` as "kind name".
    """
    done: dict[str, list[str]] = {"deleted": [], "kept": []}
    for item in from_dicts(planned["items"]):
        if item.action != "delete":
            continue
        deleted = _delete(item, aws)
        done["deleted" if deleted else "kept"].append(f"{item.kind} {item.name}")
        log.info("%s %s %s", "Deleted" if deleted else "Kept (in use again, or gone)", item.kind, item.name)
    return done


def _delete(item: Item, aws: DeploymentAws) -> bool:
    hook, store = aws.sagemaker, aws.store
    if item.kind == "endpoint":
        deregister(item.name, aws.client("application-autoscaling"))
        return hook.delete("delete_endpoint", EndpointName=item.name)
    if item.kind == "endpoint config":
        return item.name not in hook.configs_in_use() and hook.delete(
            "delete_endpoint_config", EndpointConfigName=item.name
        )
    if item.kind == "model":
        return item.name not in hook.models_in_use() and hook.delete("delete_model", ModelName=item.name)
    keys = [found["Key"] for found in store.objects(item.name)]
    for start in range(0, len(keys), DELETE_BATCH):
        batch = [{"Key": key} for key in keys[start : start + DELETE_BATCH]]
        store.client.delete_objects(Bucket=store.bucket, Delete={"Objects": batch, "Quiet": True})
    return bool(keys)
