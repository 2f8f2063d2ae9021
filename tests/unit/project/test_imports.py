"""Imports go one way; what meets over HTTP, S3 and files only must not meet in Python."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
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
    "plugins": ("lambdas", "sagemaker_local", "embedded", "infrastructure", "cli"),
    "dags": ("lambdas", "sagemaker_local", "embedded", "infrastructure", "boto3", "botocore", "numpy", "PIL", "pandas"),
}
# What every service needs and which needs no other part: MiniStack stands behind the same guard, its functions in the
# same box, and every process is ended in the same way.
SHARED = ("sagemaker_local.guard", "sagemaker_local.box", "sagemaker_local.ended")
# Processes of Airflow's own, as `ministack_launcher` is one of MiniStack's.
STARTERS = {("airflow_api_server.py", "airflow"), ("airflow_scheduler.py", "airflow")}


# The wings from the ground up: each may import those before it, never one after it.
WINGS = (
    "images",
    "report",
    "aws",
    "jobs",
    "training",
    "batch",
    "monitoring",
    "dataset",
    "evaluation",
    "deployment",
    "notifications",
    "ui",
)
GROUND = {"defaults", "settings"}  # names, defaults and settings: any wing may read them
# Files of these names face Airflow and AWS; everything else in a wing is pure.
SHELLS = {"operator", "trigger", "tasks", "aws", "store", "links", "application"}
SHELL_WINGS = {"aws", "notifications"}
OUTSIDE = ("airflow", "boto3", "botocore", "aiobotocore")


@functools.cache
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
        if (name == prefix or name.startswith(f"{prefix}.")) and not name.startswith(SHARED)
        if (path.name, prefix) not in STARTERS
    ]
    assert not wrong, "\n".join(wrong)


def _wing(module: str) -> str:
    return module.split(".")[1] if module.startswith("scones.") else ""


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_wings_below_it(wing: str):
    allowed = {wing, *GROUND, *WINGS[: WINGS.index(wing)]}
    folder = PLUGINS / "scones" / wing
    files = sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]
    wrong = [
        f"{path.relative_to(PLUGINS)}:{line} imports {name}"
        for path in files
        for line, name in _imports(path, PLUGINS)
        if name.startswith("scones.") and _wing(name) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_every_folder_of_the_plugins_is_a_wing():
    folders = {path.name for path in (PLUGINS / "scones").iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in (PLUGINS / "scones").glob("*.py")} - {"__init__"}
    assert folders | files == {*WINGS, *GROUND}


def test_only_shells_know_airflow_and_aws():
    wrong = [
        f"{path.relative_to(PLUGINS)}:{line} imports {name}"
        for wing in WINGS
        if wing not in SHELL_WINGS
        for path in sorted((PLUGINS / "scones" / wing).rglob("*.py"))
        if path.stem not in SHELLS
        for line, name in _imports(path, PLUGINS)
        if name.split(".")[0] in OUTSIDE
    ]
    assert not wrong, "\n".join(wrong)


PRODUCT = ("plugins", "sagemaker_local", "embedded", "cli", "infrastructure", "lambdas", "dags", "benchmarks", "docker")


def test_no_import_runs_in_a_circle():
    """Type-checking imports and imports inside functions count: a circle is one however late it is closed."""
    modules = {}
    for top in PRODUCT:
        for path in (ROOT / top).rglob("*.py"):
            root = PLUGINS if top == "plugins" else ROOT
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            modules[name] = (path, root)
    graph = {}
    for name, (path, root) in modules.items():
        targets = (t if t in modules else t.rpartition(".")[0] for _, t in _imports(path, root))
        graph[name] = {target for target in targets if target in modules and target != name}
    assert not list(_circles(graph))


def _circles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Take away, again and again, what imports nothing that is left: what can't be taken away hangs in a circle."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        for name in free:
            del left[name]
    while free := set(left) - {target for targets in left.values() for target in targets}:
        for name in free:
            del left[name]
    yield from sorted(left)


def test_statistics_are_imported_by_who_computes_some():
    """`scipy.stats` takes seconds; most tasks that import these modules need a constant or a pure function of them."""
    modules = "scones.dataset.staging, scones.evaluation.evaluate, scones.monitoring.report, scones.ui.rejects"
    program = f"import sys, {modules}; sys.exit('scipy.stats' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(PLUGINS)}).returncode == 0
    )


def test_a_circle_is_found():
    assert list(_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()})) == ["b", "c"]


def test_the_walker_sees_relative_and_nested_imports(tmp_path: Path):
    module = tmp_path / "package" / "sub" / "m.py"
    module.parent.mkdir(parents=True)
    module.write_text("def f():\n    from ..other import thing\n    import a.b\n")
    assert _imports(module, tmp_path) == [(2, "package.other.thing"), (3, "a.b")]
