"""Buttons on a task that lead to the page it wrote: the monitoring report, the evaluation, the batch.

``@report_task()`` is ``@task`` with such a button. The pages are served by the plugin `scones_ui`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperatorLink
from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/scones"


class PageLink(BaseOperatorLink):
    """A link to a page of the plugin; no button when the task wrote none."""

    name: ClassVar[str] = "Page"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """Path below :data:`PAGES`, or an empty string."""
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address; Airflow asks once, when the task has ended."""
        from airflow.sdk.configuration import conf

        path = self.path(ti_key)
        base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return f"{base}{PAGES}/{path}" if path else ""


class ReportLink(PageLink):
    """The monitoring report that the task returned."""

    name = "Monitoring report"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """``reports/<endpoint>/<report_id>``."""
        written = XCom.get_value(key="return_value", ti_key=ti_key) or {}
        if not written.get("report_id"):
            return ""
        return f"reports/{quote(written['endpoint_name'], safe='')}/{quote(written['report_id'], safe='')}"


class EvaluationLink(PageLink):
    """The page of the evaluation that the task returned."""

    name = "Evaluation"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """``evaluations/<training job>``."""
        evaluated = XCom.get_value(key="return_value", ti_key=ti_key) or {}
        job = evaluated.get("training_job_name")
        return f"evaluations/{quote(job, safe='')}" if job else ""


class _ReportOperator(_PythonDecoratedOperator):
    operator_extra_links = (ReportLink(),)


class _EvaluationOperator(_PythonDecoratedOperator):
    operator_extra_links = (EvaluationLink(),)


def page_task(operator: type[_PythonDecoratedOperator]) -> Callable[..., TaskDecorator]:
    def decorate(**options: Any) -> TaskDecorator:
        return task_decorator_factory(multiple_outputs=False, decorated_operator_class=operator, **options)

    return decorate


#: ``@task`` whose task shows a button to its report or evaluation. Each is an operator class of its own, as
#: Airflow reads the buttons of a task from its class.
report_task = page_task(_ReportOperator)
evaluation_task = page_task(_EvaluationOperator)
