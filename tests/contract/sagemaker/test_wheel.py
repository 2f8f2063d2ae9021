"""`sagemaker-local` as a package of its own: what is in the wheel, and that it works where nothing else is."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.local_service import ROOT

PACKAGE = ROOT / "sagemaker_local"

USE = """
import urllib.error
import urllib.request

import pytest


def test_a_client_lists_what_it_made(sagemaker_client, sagemaker_local):
    arn = sagemaker_client.create_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupArn"]
    assert arn.startswith("arn:aws:sagemaker:us-east-1:" + "0" * 12 + ":model-package-group/")
    [found] = sagemaker_client.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert found["ModelPackageGroupName"] == "g"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(sagemaker_local, data=b"{}")


def test_the_runtime_answers_too(sagemaker_runtime_client):
    with pytest.raises(sagemaker_runtime_client.exceptions.ClientError, match="of account 0+ not found"):
        sagemaker_runtime_client.invoke_endpoint(EndpointName="none", Body=b"x")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves files in the source."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True, timeout=240)
    [made] = folder.glob("*.whl")
    return made


def test_the_wheel_holds_every_module_and_what_makes_it_a_typed_plugin(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {"sagemaker_local/py.typed", "sagemaker_local/COVERAGE.md"} <= names
    assert "sagemaker-local = sagemaker_local.__main__:main" in entries
    assert "sagemaker-local = sagemaker_local.pytest_plugin" in entries


def test_what_it_needs_is_what_its_modules_import():
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    imported: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"sagemaker_local", "pytest"}
    packages = {{"PIL": "Pillow", "botocore": "boto3"}.get(name, name) for name in foreign}
    optional = set(project["optional-dependencies"]["pretrained"])
    assert packages - optional == set(project["dependencies"])


@pytest.mark.slow
def test_it_works_alone(wheel: Path, tmp_path: Path):
    """In an empty environment: the command, and the plugin's fixtures in somebody's tests."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--retries", "1", str(wheel), "pytest"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        pytest.skip(f"its dependencies could not be installed from PyPI: {done.stderr.strip()[-300:]}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AWS_", "PYTEST"))}
    command = [str(python.with_name("sagemaker-local")), "--help"]
    assert "--data-dir" in subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    (tmp_path / "test_use.py").write_text(USE)
    tests = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_use.py")]
    ran = subprocess.run(tests, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stdout
    assert "2 passed" in ran.stdout
