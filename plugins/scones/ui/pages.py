"""What the pages in the Airflow UI show of endpoints and runs: read from S3, rendered without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scones.batch.names import batch_id_for
from scones.batch.progress import read_live
from scones.monitoring.index import DagRun, IndexEntry, parse_index
from scones.report import charts
from scones.report.formatting import environment
from scones.ui.resources import Described
from scones.ui.store import PageStore

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_REPORTS = 50
TREND_REPORTS = 30
#: Title of a trend, the attribute of an entry, how its values are written.
TRENDS: tuple[tuple[str, str, charts.Form], ...] = (
    ("Records", "captured_records", "number"),
    ("Rejection rate", "rejection_rate", "percent"),
    ("Mean confidence", "mean_confidence", "number"),
    ("Latency p95, ms", "latency_p95_ms", "number"),
    ("Violations", "violations", "number"),
)


def render(template: str, base: str, **values: Any) -> str:
    """Render a template of the pages; ``base`` is where they are mounted."""
    return environment(TEMPLATES).get_template(template).render(base=base, **values)


def problem(base: str, status: int, message: str) -> str:
    """A page for an error."""
    return render("problem.html.j2", base, status=status, message=message)


def resource(base: str, described: Described) -> str:
    """The page of a job, an endpoint or an execution."""
    return render("resource.html.j2", base, one=described)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and its reports, newest first; ``cost`` is a sentence, empty when nobody knows."""

    name: str
    reports: Sequence[IndexEntry]
    cost: str = ""

    def path(self, entry: IndexEntry) -> str:
        """Where a report's page is, below the pages."""
        return f"reports/{self.name}/{entry.report_id}"

    @property
    def trends(self) -> list[dict[str, Any]]:
        """The course of the last reports that had records, and the newest value."""
        recent = [entry for entry in self.reports[:TREND_REPORTS] if entry.captured_records][::-1]
        return [
            {
                "title": title,
                "chart": charts.trend([getattr(entry, name) for entry in recent], form),
                "value": getattr(recent[-1], name) if recent else None,
                "form": form,
            }
            for title, name, form in TRENDS
        ]


def endpoints(store: PageStore) -> list[Endpoint]:
    """Every endpoint that has reports; a damaged list is one without."""
    found = (Endpoint(name, parse_index(index)) for name, index in store.report_indexes())
    return [one for one in found if one.reports]


def overview(base: str, found: Sequence[Endpoint]) -> str:
    """The state of every endpoint that has reports."""
    return render("overview.html.j2", base, endpoints=found, shown=SHOWN_REPORTS, run_url=run_url)


def run_url(run: DagRun) -> str:
    """Airflow's page of a run; empty when the run is not known."""
    if not (run.dag_id and run.run_id):
        return ""
    return f"/dags/{quote(run.dag_id, safe='')}/runs/{quote(run.run_id, safe='')}"


def run_documents(store: PageStore, base: str, run: DagRun, show: int) -> str:
    """The documents a DAG run wrote, the chosen one in a frame."""
    documents: list[Mapping[str, str]] = []
    for endpoint in endpoints(store):
        for entry in endpoint.reports:
            if entry.run != run:
                continue
            job = entry.training_job_name
            documents.append({"title": f"Monitoring {endpoint.name}", "url": f"{base}/{endpoint.path(entry)}"})
            if job and run.dag_id == "train_and_deploy" and store.has_evaluation_page(job):
                documents.append({"title": "Evaluation", "url": f"{base}/evaluations/{job}"})
    batch_id = batch_id_for(run.dag_id, run.run_id)
    if store.has_batch_page(batch_id):
        documents.append({"title": "Batch", "url": f"{base}/batches/{batch_id}"})
    here = f"{base}/runs/{quote(run.dag_id, safe='')}/{quote(run.run_id, safe='')}"
    chosen = documents[min(show, len(documents) - 1)] if documents else None
    batch = None if chosen else read_live(store, batch_id)
    return render("run.html.j2", base, documents=documents, chosen=chosen, here=here, run=run, batch=batch)
