"""Run one DAG with `dag.test()` and print what happened as JSON: python run_dag.py DAG_ID CONF_JSON OUT_FILE.

A process of its own: Airflow reads its whole configuration from the environment when it is imported.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run(dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
    """Return ``{"state", "run_id", "tasks": {task_id: {"state", "tries", "seconds"}}, "xcoms": {task_id: value}}``."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    folder = Path(os.environ.get("AIRFLOW__CORE__DAGS_FOLDER") or ROOT / "dags")
    bag = DagBag(dag_folder=str(folder / f"{dag_id}.py"))
    if bag.import_errors:
        raise RuntimeError(str(bag.import_errors))
    dag = bag.dags[dag_id]
    # Airflow 3.3.2: when a run succeeds, dag.test() looks up deadlines by what only the scheduler's DAG has, their ids.
    dag.deadline = None
    dag_run = dag.test(run_conf=conf)
    with create_session() as session:
        entries = session.scalars(
            select(XComModel).where(XComModel.dag_id == dag_id, XComModel.run_id == dag_run.run_id)
        ).all()
        xcoms = {f"{entry.task_id}:{entry.key}": XComModel.deserialize_value(entry) for entry in entries}
        tasks = {
            ti.task_id: {
                "state": str(ti.state),
                "tries": ti.try_number,
                "seconds": (ti.end_date - ti.start_date).total_seconds() if ti.end_date and ti.start_date else None,
            }
            for ti in dag_run.get_task_instances(session=session)
        }
    return {"state": str(dag_run.state), "run_id": dag_run.run_id, "tasks": tasks, "xcoms": xcoms}


if __name__ == "__main__":
    result = run(sys.argv[1], json.loads(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(result, default=str, indent=1))
