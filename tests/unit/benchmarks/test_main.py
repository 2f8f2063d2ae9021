"""The list of benchmarks, and what one run of them leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import write
from benchmarks.measure import Measurement

ROOT = Path(__file__).resolve().parents[3]
NAMED = {
    name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"(?:ONLY=|--only )([\w-]+)", page.read_text())
}


@pytest.fixture(scope="module")
def answer() -> subprocess.CompletedProcess[str]:
    """What `python -m benchmarks` says, as in the documents: no PYTHONPATH, and every benchmark's module imported."""
    command = [sys.executable, "-m", "benchmarks", "--only", "no-such-name"]
    return subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)


def test_another_name_is_answered_with_those_that_there_are(answer: subprocess.CompletedProcess[str]):
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("No benchmark named 'no-such-name'. There are: ")


def test_every_benchmark_that_a_document_names_is_there(answer: subprocess.CompletedProcess[str]):
    assert len(NAMED) > 11
    assert NAMED - set(re.split(r"[\s,]+", answer.stderr)) == set()


def test_a_run_keeps_what_other_runs_measured(tmp_path: Path):
    output = tmp_path / "new" / "bench.json"
    write([Measurement("a", 1.0, "s", "< 2", True), Measurement("b", 2.0, "s", "< 3", True)], output)
    write([Measurement("a", 5.0, "s", "< 2", False, {"beside": 4})], output)
    assert [(item["name"], item["value"], item["holds"]) for item in json.loads(output.read_text())] == [
        ("b", 2.0, True),
        ("a", 5.0, False),
    ]
