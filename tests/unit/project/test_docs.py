"""What the documents say exists: commands are targets, settings are read. Docstrings have one form."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.settings import VARIABLES
from tests.support.documents import DOCUMENTS

ROOT = Path(__file__).resolve().parents[3]


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_commands_are_targets(document: Path):
    said = set(re.findall(r"(?:`|^\s*|\n)make ([a-z][a-z-]*)", document.read_text()))
    assert said <= _targets(), said - _targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_are_there(document: Path):
    named = set(re.findall(r"`(tests/[\w/]+(?:\.py)?)", document.read_text()))
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_every_target_people_may_call_is_in_the_help():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("run", "up", "down", "test", "check", "bench", "clean"):
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE), target


def test_every_setting_in_the_example_is_read_somewhere():
    named = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    sources = [ROOT / "docker-compose.yaml", *ROOT.glob("plugins/scones/**/*.py"), *ROOT.glob("embedded/*.py")]
    text = "\n".join(path.read_text() for path in sources)
    assert {name for name in named - set(VARIABLES.values()) if name not in text} == set()
    assert set(VARIABLES.values()) - named == set(), "settings that the example does not show"


def test_docstrings_tell_of_errors_in_googles_form():
    """A section `Raises:`; in prose they are overlooked."""
    folders = (
        "plugins",
        "sagemaker_local",
        "embedded",
        "cli",
        "infrastructure",
        "lambdas",
        "dags",
        "benchmarks",
        "docker",
    )
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    in_prose = [
        f"{path.relative_to(ROOT)}:{node.body[0].lineno}"
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds) and re.search(r"\bRaises\b(?!:)", ast.get_docstring(node) or "")
    ]
    assert in_prose == []


def test_a_missing_python_is_said_with_how_to_get_it(tmp_path: Path):
    done = subprocess.run(
        ["make", "-C", str(ROOT), "run", "PYTHON=python-that-is-not-there", f"VENV={tmp_path / 'venv'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "No Python 3.11 to 3.14 was found" in done.stdout
    assert "apt-get install python3 python3-venv" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_another_python_is_refused(tmp_path: Path):
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\ncase "$*" in *version_info*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", str(ROOT), "run", f"PYTHON={other}", f"VENV={tmp_path / 'venv'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "No Python 3.11 to 3.14 was found" in done.stdout
