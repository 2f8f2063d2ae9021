"""The first task of the DAGs."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import task

log = logging.getLogger(__name__)


@task(multiple_outputs=False, task_id="resolve_resources", execution_timeout=timedelta(minutes=5))
def resolve_resources(dag: Any = None, dag_run: Any = None, triggering_asset_events: Any = None) -> dict[str, str]:
    """Hold the run's conf against the DAG's params; read the stack's outputs: bucket, roles, endpoint name, topic.

    Say what started the run, where an asset did.

    Raises:
        UnknownParamError: the conf has a name that is no param.
    """
    from scones.aws.conf import check_conf
    from scones.aws.resources import stack_outputs

    for asset, events in (triggering_asset_events or {}).items():
        log.info("Started by %d events of the asset %s, the last: %s", len(events), asset.name, events[-1].extra)
    check_conf(dag_run.conf, dag.params)
    return stack_outputs()
