"""The button on a batch's task that leads to its page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from scones.batch.names import batch_id_for
from scones.jobs.links import PageLink, page_task

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class BatchLink(PageLink):
    """The page of the run's batch; it is there also when the batch was over a limit and the task failed."""

    name = "Batch"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """``batches/<batch_id>``."""
        return f"batches/{quote(batch_id_for(ti_key.dag_id, ti_key.run_id), safe='')}"


batch_task = page_task(BatchLink())
