"""Planning and doing the cleanup."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from scones.aws.store import NotDeletedError
from scones.deployment.aws import DeploymentAws, deregister, take_inventory
from scones.deployment.cleanup_plan import Item, plan, table, totals
from scones.deployment.data import Cleaned, CleanupPlan

log = logging.getLogger(__name__)


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

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> CleanupRequest:
        """Read the params of the cleanup's form."""
        typed = (params["end_production"] or "").strip()
        return cls(params["older_than_days"], params["objects_older_than_days"], typed)


def plan_cleanup(
    request: CleanupRequest, production: str, aws: DeploymentAws, now: datetime | None = None
) -> CleanupPlan:
    """Return what would be deleted and what is kept, with what each costs a month; print it as a table.

    Args:
        production: name of the production endpoint.

    Raises:
        ConfirmationError: ``end_production`` names another endpoint.
    """
    items = _look(request, production, aws, now)
    summary = totals(items)
    log.info("\n%s", table(items))
    log.info("To delete: %(delete)d (%(monthly_usd_freed).2f USD a month), to keep: %(keep)d", summary)
    return {"items": [asdict(item) for item in items], **summary}


def _look(request: CleanupRequest, production: str, aws: DeploymentAws, now: datetime | None) -> list[Item]:
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
    return plan(
        inventory,
        now=now,
        older_than_days=request.older_than_days,
        folders_older_than_days=request.objects_older_than_days,
    )


def delete_planned(
    planned: CleanupPlan,
    request: CleanupRequest,
    production: str,
    aws: DeploymentAws,
    now: datetime | None = None,
) -> Cleaned:
    """Delete what was planned, in order, and would be planned again now: however long ago the plan was made.

    Raises:
        ConfirmationError: as `plan_cleanup`.
    """
    done: Cleaned = {"deleted": [], "kept": []}
    still = {(item.kind, item.name) for item in _look(request, production, aws, now) if item.action == "delete"}
    for item in (Item(**row) for row in planned["items"]):
        if item.action != "delete":
            continue
        deleted = (item.kind, item.name) in still and _delete(item, aws)
        done["deleted" if deleted else "kept"].append(f"{item.kind} {item.name}")
        log.info("%s %s %s", "Deleted" if deleted else "Kept (in use again, refused, or gone)", item.kind, item.name)
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
    try:
        store.delete(keys)
    except NotDeletedError as error:
        log.warning("%s", error)
        return False
    return bool(keys)
