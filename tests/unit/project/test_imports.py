"""Imports go one way; what meets over HTTP, S3 and files only must not meet in Python."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "plugins"

# folder -> top-level or dotted prefixes it must not import
FORBIDDEN = {
    "lambdas": ("scones", "sagemaker_local", "embedded", "infrastructure", "airflow", "numpy", "PIL"),
    "sagemaker_local": ("scones", "lambdas", "embedded", "infrastructure", "airflow"),
    "sagemaker_local/algorithms": ("scones", "lambdas", "embedded", "infrastructure", "airflow", "boto3", "botocore"),
    "embedded": ("scones", "lambdas", "sagemaker_local", "airflow"),
    "infrastructure": ("scones", "lambdas", "sagemaker_local", "embedded", "airflow"),
    "plugins": ("lambdas", "sagemaker_local", "embedded", "infrastructure"),
    "dags": ("lambdas", "sagemaker_local", "embedded", "infrastructure", "boto3", "botocore", "numpy", "PIL", "pandas"),
    "plugins/scones/core": (
        "airflow",
        "boto3",
        "botocore",
        "aiobotocore",
        "scones.hooks",
        "scones.operators",
        "scones.tasks",
        "scones.triggers",
        "scones.ui",
        "scones.defaults",
    ),
    "plugins/scones/hooks": ("scones.operators", "scones.tasks", "scones.triggers", "scones.ui"),
    "plugins/scones/triggers": ("scones.operators", "scones.tasks", "scones.ui"),
    "plugins/scones/operators": ("scones.ui",),
    "plugins/scones/tasks": ("scones.ui", "scones.operators"),
}


def _imports(path: Path, root: Path) -> list[tuple[int, str]]:
    package = path.relative_to(root).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} holds no Python file: the layout changed, so change this test"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in _imports(path, PLUGINS if path.is_relative_to(PLUGINS) else ROOT)
        for prefix in FORBIDDEN[folder]
        if name == prefix or name.startswith(f"{prefix}.")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walker_sees_relative_and_nested_imports(tmp_path: Path):
    module = tmp_path / "package" / "sub" / "m.py"
    module.parent.mkdir(parents=True)
    module.write_text("def f():\n    from ..other import thing\n    import a.b\n")
    assert _imports(module, tmp_path) == [(2, "package.other.thing"), (3, "a.b")]
