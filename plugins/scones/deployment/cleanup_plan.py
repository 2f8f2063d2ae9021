"""What may be deleted, in which order, and what keeping it costs. Decides from an inventory; deletes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from scones.deployment.data import CleanupTotals
from scones.training.costs import storage_monthly_cost

# An endpoint must go before its config, and a config before its model; objects come last.
ORDER = ("endpoint", "endpoint config", "model", "objects")


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as the inventory sees it.

    Attributes:
        configs: what it serves or is being updated to.
        invocations: how many requests it had in the window that was asked for.
        monthly_usd: what it costs as it is now; None when nobody knows.
    """

    name: str
    configs: tuple[str, ...]
    created: datetime
    invocations: float
    monthly_usd: float | None
    ours: bool


@dataclass(frozen=True)
class Config:
    """An endpoint config and the models it names."""

    name: str
    models: tuple[str, ...]
    created: datetime
    ours: bool


@dataclass(frozen=True)
class Model:
    """A model and its artifact's address."""

    name: str
    artifact: str
    created: datetime
    ours: bool


@dataclass(frozen=True)
class Folder:
    """Objects under one S3 prefix, e.g. a training job's output or a day's captures."""

    prefix: str
    keys: int
    size_bytes: int
    newest: datetime
    why_kept: str = ""

    def joined(self, other: Folder) -> Folder:
        """Both together."""
        newest = max(self.newest, other.newest)
        return Folder(self.prefix, self.keys + other.keys, self.size_bytes + other.size_bytes, newest, self.why_kept)


@dataclass(frozen=True)
class Inventory:
    """Everything that is looked at; ``production`` is the endpoint that serves, ``end_production`` says it may go."""

    endpoints: Sequence[Endpoint]
    configs: Sequence[Config]
    models: Sequence[Model]
    folders: Sequence[Folder]
    production: str = ""
    end_production: bool = False


@dataclass(frozen=True)
class Item:
    """One row of the plan."""

    kind: str
    name: str
    action: str  # "delete" or "keep"
    reason: str
    monthly_usd: float | None
    age_days: float


def plan(inventory: Inventory, *, now: datetime, older_than_days: float, folders_older_than_days: float) -> list[Item]:
    """Return every item with its fate, deletions first and in the order in which they are possible.

    Kept: what is not the project's (no tag of it), what is in use, and what is younger than the
    limit. An endpoint of the project goes when it has had no invocation in the inventory's window; the one that serves
    production only when a person has named it.
    """
    age = timedelta(days=older_than_days)
    items: list[Item] = []
    surviving_configs: set[str] = set()
    for endpoint in inventory.endpoints:
        reason = _endpoint_kept(endpoint, inventory, now, age)
        if reason:
            surviving_configs.update(endpoint.configs)
        gone = "it was named to be ended" if endpoint.name == inventory.production else "no request and not production"
        items.append(_item("endpoint", endpoint.name, reason, gone, endpoint.monthly_usd, endpoint.created, now))
    surviving_models: set[str] = set()
    for config in inventory.configs:
        reason = _first(
            (not config.ours, "not the project's"),
            (config.name in surviving_configs, "an endpoint uses it"),
            (now - config.created < age, f"younger than {older_than_days:g} days"),
        )
        if reason:
            surviving_models.update(config.models)
        items.append(_item("endpoint config", config.name, reason, "no endpoint uses it", 0.0, config.created, now))
    for model in inventory.models:
        reason = _first(
            (not model.ours, "not the project's"),
            (model.name in surviving_models, "an endpoint config uses it"),
            (now - model.created < age, f"younger than {older_than_days:g} days"),
        )
        items.append(_item("model", model.name, reason, "no endpoint config uses it", 0.0, model.created, now))
    for folder in inventory.folders:
        reason = folder.why_kept or _first(
            (
                now - folder.newest < timedelta(days=folders_older_than_days),
                f"younger than {folders_older_than_days:g} days",
            )
        )
        what = f"{folder.keys} objects that nothing refers to"
        items.append(
            _item("objects", folder.prefix, reason, what, storage_monthly_cost(folder.size_bytes), folder.newest, now)
        )
    return sorted(items, key=lambda item: (item.action != "delete", ORDER.index(item.kind), item.name))


def _endpoint_kept(endpoint: Endpoint, inventory: Inventory, now: datetime, age: timedelta) -> str:
    if endpoint.name == inventory.production:
        return "" if inventory.end_production else "serves production"
    return _first(
        (not endpoint.ours, "not the project's"),
        (bool(endpoint.invocations), f"had {endpoint.invocations:.0f} requests"),
        (now - endpoint.created < age, "too young"),
    )


def _first(*conditions: tuple[bool, str]) -> str:
    return next((text for holds, text in conditions if holds), "")


def _item(kind: str, name: str, kept: str, gone: str, cost: float | None, since: datetime, now: datetime) -> Item:
    days = round((now - since).total_seconds() / 86400, 1)
    return Item(kind, name, "keep" if kept else "delete", kept or gone, cost, days)


def totals(items: Iterable[Item]) -> CleanupTotals:
    """Sum a plan up."""
    rows = list(items)

    def usd(action: str) -> float:
        return round(sum(item.monthly_usd or 0 for item in rows if item.action == action), 2)

    return {
        "delete": sum(item.action == "delete" for item in rows),
        "keep": sum(item.action == "keep" for item in rows),
        "monthly_usd_freed": usd("delete"),
        "monthly_usd_kept": usd("keep"),
    }


def table(items: Iterable[Item]) -> str:
    """Return the plan as text for the task log."""
    rows = [("action", "kind", "name", "age", "USD/month", "why")]
    for item in items:
        cost = "unknown" if item.monthly_usd is None else f"{item.monthly_usd:.4f}".rstrip("0").rstrip(".")
        rows.append((item.action, item.kind, item.name, f"{item.age_days:g} d", cost, item.reason))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
