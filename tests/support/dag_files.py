"""The project's DAG files, loaded as the DAG processor loads them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
DAG_IDS = [path.stem for path in DAG_FILES]


@cache
def bag(path: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(path))


def load(dag_id: str) -> Any:
    """Return the DAG of that name. Raises AssertionError with the import error when its file does not load."""
    found = bag(ROOT / "dags" / f"{dag_id}.py")
    assert found.import_errors == {}
    return found.dags[dag_id]
