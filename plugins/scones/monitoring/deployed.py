"""The monitoring task of `train_and_deploy`: a first report right after the deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scones.jobs.links import report_task

JsonDict = dict[str, Any]


@report_task(task_id="write_report")
def write_report(deployment: JsonDict, resources: Mapping[str, str], run_id: Any = None) -> JsonDict:
    """Write the monitoring report over what the endpoint has captured."""
    from scones.monitoring.report import write_report as write

    return write(resources, deployment["endpoint_name"], run_id, dag_id="train_and_deploy")
