"""What `make mwaa` writes: complete, the same each time, and as MWAA wants it."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from infrastructure import mwaa_files
from infrastructure.artifacts import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mwaa") / "files"
    mwaa_files.write(made, "courier")
    return made


def names(lines: list[str]) -> set[str]:
    return {re.split(r"[=<\[]", line)[0].lower() for line in lines if line and line[0] not in "#-"}


def test_dags_and_plugins_are_all_there_and_nothing_else(folder: Path) -> None:
    dags = {path.name for path in (ROOT / "dags").glob("*.py")}
    assert {path.name for path in (folder / "dags").iterdir()} == {*dags, "constraints.txt"}
    with zipfile.ZipFile(folder / "plugins.zip") as plugins:
        packed = set(plugins.namelist())
    assert {"scones_ui.py", ".airflowignore", "scones/__init__.py", "scones/pools.json"} <= packed
    assert not any("__pycache__" in name for name in packed)
    assert "courier" in (folder / "startup.sh").read_text()
    assert (folder / "template.yaml").read_bytes() == (ROOT / "infrastructure" / "mwaa" / "template.yaml").read_bytes()


def test_the_same_sources_give_the_same_bytes_and_nothing_is_left_of_before(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "removed.py").touch()
    mwaa_files.write(tmp_path, "courier")
    first, second = (
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (folder, tmp_path)
    )
    assert first == second


def test_it_wants_what_the_project_wants_in_versions_that_are_pinned(folder: Path) -> None:
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert requirements[0] == '--constraint "/usr/local/airflow/dags/constraints.txt"'
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert names(requirements) == names(project["dependencies"])
    constraints = (folder / "dags" / "constraints.txt").read_text().splitlines()
    assert names(requirements) <= names(constraints)
    assert all("==" in line for line in constraints if not line.startswith("#"))
    assert "apache-airflow==3.3.1" in constraints
