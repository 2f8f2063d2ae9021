"""The button on the task that told MLflow of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.execution_time.xcom import XCom

from scones.jobs.links import PageLink, page_task

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class MlflowLink(PageLink):
    """The run in MLflow, whose address the task returned."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string (no button) when there is no MLflow."""
        return XCom.get_value(key="return_value", ti_key=ti_key) or ""


mlflow_task = page_task(MlflowLink())
