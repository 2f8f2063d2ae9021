"""List calls: filters, order and pages, the same for every resource.

A NextToken is opaque to clients: the place where the page ended plus a fingerprint of the filters, so that a token used
with other filters is refused instead of answering nonsense.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException
from sagemaker_local.store import SORT_COLUMNS, Query, Resource

DEFAULT_PAGE = 10
_PAGING = ("NextToken", "MaxResults")


def list_resources(
    ctx: Context,
    kind: str,
    request: dict[str, Any],
    summarise: Callable[[Resource], dict[str, Any]],
    *,
    parent: str | None = None,
    among: Collection[str] | None = None,
    default_sort: str = "CreationTime",
    default_order: str = "Descending",
) -> tuple[list[dict[str, Any]], str | None]:
    """One page of summaries, of names `among` these if given, and the NextToken of the next one, or None."""
    sort_by = request.get("SortBy", default_sort)
    if sort_by not in SORT_COLUMNS:
        raise ValidationException(f"sagemaker_local cannot sort by {sort_by}; it can by {', '.join(SORT_COLUMNS)}.")
    size = request.get("MaxResults", DEFAULT_PAGE)
    filters = {key: value for key, value in sorted(request.items()) if key not in _PAGING}
    after = _open_token(request.get("NextToken"), filters)
    query = Query(
        sort_by=sort_by,
        descending=request.get("SortOrder", default_order) == "Descending",
        limit=size + 1,
        name_contains=request.get("NameContains"),
        status=request.get("StatusEquals"),
        parent=parent,
        among=None if among is None else json.dumps(list(among)),
        created_after=request.get("CreationTimeAfter"),
        created_before=request.get("CreationTimeBefore"),
        modified_after=request.get("LastModifiedTimeAfter"),
        modified_before=request.get("LastModifiedTimeBefore"),
        after=(after[0], after[1]) if after else None,
    )
    rows = ctx.store.page(kind, query)
    token = None
    if len(rows) > size:
        rows = rows[:size]
        token = _seal_token([getattr(rows[-1], SORT_COLUMNS[sort_by]), rows[-1].name], filters)
    return [summarise(row) for row in rows], token


def page_of(items: list[Any], token: str | None, size: int) -> tuple[list[Any], str | None]:
    """One page of a short list that is in memory anyway."""
    start = int((_open_token(token, {}) or [0])[0])
    following = start + size
    return items[start:following], _seal_token([following], {}) if following < len(items) else None


def _fingerprint(filters: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(filters, sort_keys=True).encode()).hexdigest()[:12]


def _seal_token(place: list[Any], filters: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([_fingerprint(filters), *place]).encode()).decode("ascii")


def _open_token(token: str | None, filters: dict[str, Any]) -> list[Any] | None:
    if not token:
        return None
    try:
        fingerprint, *place = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValidationException("Invalid NextToken.") from error
    if not place or not all(isinstance(part, str | int | float) for part in place):
        raise ValidationException("Invalid NextToken.")
    if fingerprint != _fingerprint(filters):
        raise ValidationException("Invalid NextToken: it belongs to a request with other filters.")
    return list(place)
