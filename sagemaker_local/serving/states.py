"""Endpoint records in the store: their states, and the words AWS has for what is wrong with them."""

from __future__ import annotations

from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException
from sagemaker_local.store import Resource

ENDPOINT, CONFIG = "endpoint", "endpoint-config"
# Application Auto Scaling's rows, children of their endpoint's.
SCALABLE_TARGET = "scalable-target"

CREATING, UPDATING, ROLLING_BACK, IN_SERVICE = "Creating", "Updating", "RollingBack", "InService"
DELETING, FAILED, UPDATE_ROLLBACK_FAILED = "Deleting", "Failed", "UpdateRollbackFailed"

UNDER_WAY = (CREATING, UPDATING, ROLLING_BACK, DELETING)
SERVING = (IN_SERVICE, UPDATING, ROLLING_BACK, UPDATE_ROLLBACK_FAILED)


def find_endpoint(ctx: Context, name: str) -> Resource:
    """The stored endpoint.

    Raises:
        ValidationException: there is none of that name; the message has AWS's words.
    """
    endpoint = ctx.store.get(ENDPOINT, name)
    if endpoint is None:
        raise no_endpoint(ctx, name)
    return endpoint


def no_endpoint(ctx: Context, name: str) -> ValidationException:
    """The error for an endpoint that is not there."""
    return ValidationException(f'Could not find endpoint "{ctx.arn("endpoint", name.lower())}".')


def find_config(ctx: Context, name: str) -> Resource:
    """The stored endpoint config.

    Raises:
        ValidationException: there is none of that name; the message has AWS's words.
    """
    config = ctx.store.get(CONFIG, name)
    if config is None:
        arn = ctx.arn("endpoint-config", name.lower())
        raise ValidationException(f'Could not find endpoint configuration "{arn}".')
    return config


def require_settled(endpoint: Resource) -> None:
    """Raise `ValidationException` while a create, update or delete is under way."""
    if endpoint.status in UNDER_WAY:
        raise ValidationException(f'Cannot update in-progress endpoint "{endpoint.arn}".')


def require_in_service(endpoint: Resource) -> None:
    """Raise `ValidationException` unless InService: a Failed endpoint can only be deleted."""
    require_settled(endpoint)
    if endpoint.status != IN_SERVICE:
        raise ValidationException(
            f'Cannot update endpoint "{endpoint.arn}" in status {endpoint.status}. Delete it and create it again.'
        )
