"""What our SageMaker operators have in common: wait deferred or in place, and stop on a kill what would cost money."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from scones.aws.sagemaker import SageMakerResourcesHook
from scones.jobs.trigger import SageMakerWaitTrigger, first_event


def as_bool(value: Any) -> bool:
    """Read a templated flag: Jinja renders booleans as text.

    Raises:
        AirflowFailException: neither true nor false.
    """
    text = str(value).strip().lower()
    if text not in ("true", "false", "", "none"):
        raise AirflowFailException(f"Expected true or false, not {value!r}")
    return text == "true"


def as_int(name: str, value: Any) -> int:
    """Read a templated whole number.

    Raises:
        AirflowFailException: it is none.
    """
    try:
        return int(str(value).strip())
    except ValueError:
        raise AirflowFailException(f"{name} is {value!r}: it must be a whole number") from None


class WaitingMixin:
    """For operators over `AwsBaseOperator`: `wait_with` defers to a trigger, or runs it in place."""

    if TYPE_CHECKING:
        aws_conn_id: str | None
        region_name: str | None
        verify: bool | str | None
        botocore_config: dict[str, Any] | None
        deferrable: bool

        log: Any

        def defer(self, *, trigger: Any, method_name: str) -> None: ...

    _waited_for: SageMakerWaitTrigger | None = None

    def trigger_arguments(self, timeout_s: float) -> dict[str, Any]:
        """Return what every trigger of ours is given: the connection's four facts and the deadline."""
        return {
            "deadline": time.time() + timeout_s,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    def _resources_hook(self) -> SageMakerResourcesHook:
        return SageMakerResourcesHook(
            aws_conn_id=self.aws_conn_id, region_name=self.region_name, verify=self.verify, config=self.botocore_config
        )

    def wait_with(self, trigger: SageMakerWaitTrigger, method_name: str, context: Any) -> Any:
        """Wait until the trigger fires, then go on in ``method_name(context, event)``."""
        self._waited_for = trigger
        if self.deferrable:
            # No deferral timeout: Airflow would fail the task without stopping the job. The trigger keeps the deadline.
            self.defer(trigger=trigger, method_name=method_name)
        event = asyncio.run(first_event(trigger))
        self._waited_for = None
        return getattr(self, method_name)(context, event.payload)

    def on_kill(self) -> None:
        """Stop the job that is waited for in place; while the task is deferred, the trigger does it."""
        if (trigger := self._waited_for) is not None:
            self.log.warning("Stopping %s %s", trigger.kind, trigger.name)
            self._resources_hook().stop(trigger.waited.stop, **{trigger.waited.argument: trigger.name})
