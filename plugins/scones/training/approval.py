"""Asking a person before a model goes live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowFailException

from scones.jobs.operator import as_bool, as_int
from scones.training.model_package import APPROVED

if TYPE_CHECKING:
    from airflow.sdk import Context


class ModelApprovalOperator(ApprovalOperator):
    """Airflow's approval, asked only when the run wants it, and written into the model registry.

    Approve: the package becomes Approved and the run goes on. Reject: the package becomes Rejected and everything
    after is skipped. No answer in time: the task fails for good, the package stays PendingManualApproval, the endpoint
    is untouched. Any other failure is retried, and the question asked again: Airflow (3.3) marks a task failed whose
    answer comes before its executor has reported the question, and the registry may be throttled.

    A subclass because the provider's operator always asks, and takes its time limit only while the DAG is parsed.

    Args:
        registration: answer of `register_model`.
        required: whether a person is asked ("true"/"false"); a package that is already Approved needs no second word.
        timeout_minutes: how long the run waits for an answer.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "registration", "required", "timeout_minutes")

    def __init__(
        self, *, registration: Any, required: bool | str = False, timeout_minutes: int | str = 1440, **kwargs: Any
    ) -> None:
        # Only the direct successor is skipped by the provider; ours is the whole rest of the run.
        super().__init__(ignore_downstream_trigger_rules=True, **kwargs)
        self.registration = registration
        self.required = required
        self.timeout_minutes = timeout_minutes

    def execute(self, context: Context) -> Any:
        """Ask, or go on when there is nothing to ask."""
        if not as_bool(self.required):
            return {"decision": "not asked"}
        if self.registration["approval_status"] == APPROVED:
            self.log.info("Model version %s has been approved before", self.registration["version"])
            return {"decision": "approved before"}
        self.response_timeout = timedelta(minutes=as_int("timeout_minutes", self.timeout_minutes))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the decision down, then skip or go on."""
        if event.get("error_type") == "timeout":
            raise AirflowFailException(f"{event['error']} The model stays unapproved: start a new run to ask again.")
        if "error" not in event:
            from scones.training.models import settle_approval

            user = event.get("responded_by_user") or {}
            name = user.get("name") if isinstance(user, dict) else getattr(user, "name", None)
            approved = event["chosen_options"] == [self.APPROVE]
            settle_approval(self.registration["model_package_arn"], approved=approved, by=name or "a person")
        return super().execute_complete(context=context, event=event)
