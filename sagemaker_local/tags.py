"""AddTags, ListTags, DeleteTags on anything with an ARN."""

from __future__ import annotations

from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ResourceLimitExceeded, ValidationException
from sagemaker_local.listing import page_of

MAX_TAGS = 50


def tag_dict(tags: list[dict[str, str]] | None) -> dict[str, str]:
    """A request's Tags as a dict.

    Raises:
        ValidationException: a key is given twice or reserved (`aws:`).
    """
    result: dict[str, str] = {}
    for tag in tags or []:
        key = tag["Key"]
        if key.lower().startswith("aws:"):
            raise ValidationException(f"Tag keys beginning with 'aws:' are reserved: {key}")
        if key in result:
            raise ValidationException(f"Duplicate tag key: {key}")
        result[key] = tag["Value"]
    return result


def add_tags(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Adds tags or overwrites their values; at most 50 on one resource."""
    arn = _existing(ctx, request["ResourceArn"])
    wanted = {**ctx.store.tags(arn), **tag_dict(request["Tags"])}
    if len(wanted) > MAX_TAGS:
        raise ResourceLimitExceeded(f"A resource can have at most {MAX_TAGS} tags; {arn} would have {len(wanted)}.")
    ctx.store.set_tags(arn, wanted)
    return {"Tags": _tag_list(wanted)}


def list_tags(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the tags of a resource, by key."""
    tags = _tag_list(ctx.store.tags(_existing(ctx, request["ResourceArn"])))
    page, token = page_of(tags, request.get("NextToken"), request.get("MaxResults", MAX_TAGS))
    return {"Tags": page, "NextToken": token}


def delete_tags(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Removes tags by key; keys that are not there are no error."""
    ctx.store.delete_tags(_existing(ctx, request["ResourceArn"]), request["TagKeys"])
    return {}


def _existing(ctx: Context, arn: str) -> str:
    if ctx.store.by_arn(arn) is None:
        raise ValidationException(f"Could not find resource {arn}.")
    return arn


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


OPERATIONS = operations(add_tags, list_tags, delete_tags)
