"""What our DAG files cost the DAG processor, beside an empty DAG file."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import ROOT, Measurement

ROUNDS = 5

EMPTY = """from airflow.sdk import dag


@dag(schedule=None)
def empty() -> None: ...


empty()
"""
# One file in a fresh process: Airflow itself, then the file, then its serialisation. The DAG processor has imported
# Airflow before it forks: what it pays for a file is rather the difference to the empty one.
PARSE = """
import sys, time
began = time.perf_counter()
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
bag = DagBag(dag_folder=sys.argv[1])
assert not bag.import_errors, bag.import_errors
for dag in bag.dags.values():
    DagSerialization.to_dict(dag)
print(time.perf_counter() - began)
"""


def parse_seconds(path: Path, home: Path) -> float:
    """Return how long a fresh process takes to parse one DAG file."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "plugins"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(path.parent),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def dag_parse_ratio() -> list[Measurement]:
    """Parse each DAG file and an empty one in turn, so that both see the same machine; compare medians."""
    files = sorted((ROOT / "dags").glob("*.py"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        empty_file = home / "dags" / "empty.py"
        empty_file.parent.mkdir()
        empty_file.write_text(EMPTY)
        seconds: dict[str, list[float]] = {path.stem: [] for path in (empty_file, *files)}
        parse_seconds(empty_file, home)  # warms the page cache
        for _ in range(ROUNDS):
            for path in (empty_file, *files):
                seconds[path.stem].append(parse_seconds(path, home))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    empty = medians.pop("empty")
    slowest = max(medians, key=lambda name: medians[name])
    ratio = medians[slowest] / empty
    beside = {"empty_seconds": round(empty, 3), "slowest": slowest} | {
        f"{name}_seconds": round(value, 3) for name, value in medians.items()
    }
    return [Measurement("dag-parse-ratio", round(ratio, 3), "x", "< 2", ratio < 2, beside)]


BENCHMARKS = {"dag-parse-ratio": dag_parse_ratio}
