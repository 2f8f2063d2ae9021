"""One run of a DAG, or of a part of it, in this process; and what came of it, out of Airflow's database.

Imported only when the environment is set: Airflow reads it while it is imported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.dag_processing.dagbag import DagBag
from airflow.models import DagRun, TaskInstance
from airflow.models.hitl import HITLDetail, HITLUser
from airflow.models.trigger import handle_event_submit
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from airflow.sdk import DAG, timezone
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from sqlalchemy import select

from embedded.settings import PROJECT_ROOT


def load(dag_id: str) -> DAG:
    """Return the DAG.

    Raises:
        RuntimeError: its file does not import.
    """
    bag = DagBag(dag_folder=str(PROJECT_ROOT / "dags" / f"{dag_id}.py"))
    if bag.import_errors:
        raise RuntimeError("\n".join(bag.import_errors.values()))
    dag: DAG = bag.dags[dag_id]
    # Airflow 3.3.2: when a run succeeds, dag.test() looks up deadlines by what only the scheduler's DAG has, their ids.
    dag.deadline = None
    return dag


class Run:
    """One run of one DAG. `moment`, its logical date, tells it from all others before Airflow has named it."""

    def __init__(self, dag: DAG, tasks: Collection[str], conf: Mapping[str, Any]) -> None:
        self.dag = dag.partial_subset(tasks) if tasks else dag
        self.conf = dict(conf)
        self.moment: datetime = timezone.utcnow()

    def execute(self) -> None:
        """Run it to its end, whatever that is."""
        self.dag.test(logical_date=self.moment, run_conf=self.conf)

    def named(self) -> tuple[str, str]:
        """Return the run's id and state; before it is there, empty texts."""
        with create_session() as session:
            where = (DagRun.dag_id == self.dag.dag_id, DagRun.logical_date == self.moment)
            found = session.execute(select(DagRun.run_id, DagRun.state).where(*where)).first()
        return (found[0], str(found[1])) if found else ("", "")

    def instances(self, run_id: str) -> list[dict[str, Any]]:
        """Return its task instances as Airflow's REST API gives them."""
        columns = ("task_id", "map_index", "state", "start_date", "end_date", "try_number")
        with create_session() as session:
            where = (TaskInstance.dag_id == self.dag.dag_id, TaskInstance.run_id == run_id)
            rows = session.execute(select(*(getattr(TaskInstance, name) for name in columns)).where(*where)).all()
        return [
            {
                **dict(zip(columns, row, strict=True)),
                "state": str(row.state or "none"),
                "start_date": row.start_date and row.start_date.isoformat(),
                "end_date": row.end_date and row.end_date.isoformat(),
            }
            for row in rows
        ]

    def returned(self, run_id: str) -> dict[str, Any]:
        """Return what each task has returned so far: task id -> value; of mapped tasks a list."""
        with create_session() as session:
            where = (XComModel.dag_id == self.dag.dag_id, XComModel.run_id == run_id, XComModel.key == XCOM_RETURN_KEY)
            entries = session.scalars(select(XComModel).where(*where).order_by(XComModel.map_index)).all()
            values: dict[str, Any] = {}
            for entry in entries:
                value = XComModel.deserialize_value(entry)
                if entry.map_index < 0:
                    values[entry.task_id] = value
                else:
                    values.setdefault(entry.task_id, []).append(value)
        return values

    def question(self, run_id: str) -> HITLDetail | None:
        """Return what a person is being asked, if anything."""
        with create_session() as session:
            where = (
                TaskInstance.dag_id == self.dag.dag_id,
                TaskInstance.run_id == run_id,
                TaskInstance.state == "awaiting_input",
            )
            asked = select(HITLDetail).join(TaskInstance, TaskInstance.id == HITLDetail.ti_id).where(*where)
            found: HITLDetail | None = session.scalars(asked).first()
            session.expunge_all()
        return found

    @staticmethod
    def answer(question: HITLDetail, option: str, person: str) -> None:
        """Let the run go on, as the answer of a person in the UI does."""
        with create_session() as session:
            detail = session.get(HITLDetail, question.ti_id)
            detail.responded_by = HITLUser(id=person, name=person)
            detail.responded_at = timezone.utcnow()
            detail.chosen_options = [option]
            event = TriggerEvent(detail.as_resume_event_payload())
            handle_event_submit(event, task_instance=session.get(TaskInstance, question.ti_id), session=session)


def save_pages(returned: Mapping[str, Any], folder: Path) -> list[Path]:
    """Copy the reports that the tasks wrote to S3 into the folder, so that a browser opens them."""
    from scones.aws.store import ObjectStore

    saved = []
    for task_id, value in returned.items():
        for uri in value.values() if isinstance(value, Mapping) else ():
            if not (isinstance(uri, str) and uri.startswith("s3://") and uri.endswith(".html")):
                continue
            where = urlsplit(uri)
            page = ObjectStore(where.netloc).read(where.path.lstrip("/"))
            if page is not None:
                folder.mkdir(parents=True, exist_ok=True)
                saved.append(folder / f"{task_id.rpartition('.')[2]}.html")
                saved[-1].write_bytes(page)
    return saved
