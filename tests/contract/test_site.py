"""The documentation as a site, built as a user builds it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from embedded.settings import PROJECT_ROOT
from tests.support.documents import DOCUMENTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        "make",
        "-s",
        "-C",
        str(folder),
        "docs",
        f"DOCS={PROJECT_ROOT / '.venv-docs'}",
        f"VENV={PROJECT_ROOT / '.venv'}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_site_holds_every_page_asks_nobody_for_anything_and_breaks_with_a_link(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "-s", ".venv-docs/.ready"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    for name in (
        "docs",
        "notebooks",
        "plugins",
        "sagemaker_local",
        "infrastructure",
        "docker",
        "dags",
        "lambdas",
        "tests",
    ):
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in PROJECT_ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, tmp_path)
    done = build(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / ".run" / "site"
    pages = {
        path.relative_to(PROJECT_ROOT).with_suffix(".html")
        for path in DOCUMENTS
        if PROJECT_ROOT / "docker" not in path.parents
    }
    assert [str(page) for page in sorted(pages) if not (site / page).is_file()] == []
    foreign = re.compile(r"""(?:<(?:script|img|iframe)[^>]+src|<link[^>]+href|url\(|@import)[="' (]+(?:https?:)?//""")
    files = [path for kind in ("*.html", "*.css") for path in site.rglob(kind)]
    assert [str(path) for path in files if foreign.search(path.read_text())] == []
    assert "TrainingOperator" in (site / "searchindex.js").read_text()
    assert "force_retrain" in (site / "docs" / "operators.html").read_text()

    with (tmp_path / "docs" / "batch.md").open("a") as page:
        page.write("\n[there](aws.md#not-there)\n")
    done = build(tmp_path)
    assert done.returncode != 0
    assert "docs/batch.md" in done.stderr
    assert "not-there" in done.stderr
