"""Amazon MWAA as far as it goes without it: its Python, its packages, exactly the files of `make mwaa`, real runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from embedded import environment
from embedded.settings import PROJECT_ROOT, EmbeddedSettings
from infrastructure import mwaa_files
from tests.integration import run_dag

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

UV = Path(sys.executable).with_name("uv")


def call(*command: str | Path, timeout: float = 1500, **options: Any) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=timeout, **options
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def python_3_12() -> str | None:
    """A Python 3.12 that runs: on the path, or one of pyenv's."""
    on_path = shutil.which("python3.12")
    own = sorted(str(path) for path in Path.home().glob(".pyenv/versions/3.12*/bin/python3.12"))
    for candidate in [*([on_path] if on_path else []), *own]:
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


@dataclass
class Machine:
    """One machine of an MWAA environment: its Python, and the folders that MWAA fills from the bucket."""

    python: Path
    folder: Path
    environment: dict[str, str]

    def airflow(self, *arguments: str) -> str:
        return call(self.python, "-m", "airflow", *arguments, env=self.environment, cwd=self.folder)


def installed(folder: Path, base: str, constraints: Path, bucket: Path) -> Path:
    """A Python with what MWAA's image brings, and then, by pip, with what the bucket's requirements.txt wants."""
    python = folder / "venv" / "bin" / "python"
    call(UV, "venv", "--quiet", "--seed", "--python", base, folder / "venv")
    essential = constraints / "mwaa-3.3.1-essential-constraints.txt"
    airflows = constraints / "airflow-3.3.1-python-3.12-constraints.txt"
    call(UV, "pip", "install", "--quiet", "--python", python, "-r", essential, "-c", airflows)
    before = set(call(UV, "pip", "freeze", "--python", python).split())
    requirements = folder / "requirements.txt"
    wanted = (bucket / "requirements.txt").read_text()
    requirements.write_text(wanted.replace("/usr/local/airflow/dags/", f"{bucket}/dags/"))
    assert requirements.read_text() != wanted
    # Wheels alone: MWAA's image has no compilers.
    wheels = ("--only-binary", ":all:")
    call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wheels, "-r", requirements)
    after = set(call(UV, "pip", "freeze", "--python", python).split())
    assert before <= after, f"the environment's own packages were changed: {before - after}"
    call(UV, "pip", "check", "--python", python)
    assert not any(package.startswith("sagemaker==") for package in after)
    return python


@pytest.fixture(scope="module")
def machine(
    shared_data: Path,
    stack: dict[str, str],
    sagemaker_local: str,
    platform_settings: EmbeddedSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Machine:
    constraints = shared_data.parent / "mwaa"
    found = python_3_12()
    if found is None or not constraints.is_dir():
        pytest.skip(f"needs Python 3.12 and MWAA's constraints in {constraints}")
    folder = tmp_path_factory.mktemp("mwaa")
    bucket = folder / "bucket"
    mwaa_files.write(bucket, platform_settings.stack_name)
    if made := os.environ.get("SCONES_MWAA_PYTHON"):  # one made before, which saves minutes while writing a test
        python = Path(made)
    else:
        python = installed(folder, found, constraints, bucket)

    with zipfile.ZipFile(bucket / "plugins.zip") as plugins:
        plugins.extractall(folder / "plugins")
    exported = call(
        "sh", "-c", f". {bucket}/startup.sh; env", env={"PATH": os.environ["PATH"], "AWS_REGION": "us-east-1"}
    )
    started = dict(line.split("=", 1) for line in exported.splitlines())
    assert json.loads(started["AIRFLOW_CONN_AWS_DEFAULT"])["extra"] == {"region_name": "us-east-1"}
    settings = replace(platform_settings, run_dir=folder / "run")
    variables = environment.airflow_environment(settings) | {
        "SCONES_STACK_NAME": started["SCONES_STACK_NAME"],
        "AIRFLOW__CORE__DAGS_FOLDER": str(bucket / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "plugins"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    assert str(PROJECT_ROOT) not in variables.get("PYTHONPATH", "")
    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    ready = Machine(python, folder, variables)
    ready.airflow("db", "migrate")
    return ready


@pytest.fixture(scope="module")
def run(machine: Machine) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """`run(dag_id, conf)`: one run on that machine, and what came of it."""

    def start(dag_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        out = machine.folder / f"{dag_id}.json"
        program = Path(run_dag.__file__)
        log = call(machine.python, program, dag_id, json.dumps(conf), out, env=machine.environment, cwd=machine.folder)
        return {**json.loads(out.read_text()), "log": log}

    return start


def test_every_dag_is_parsed_and_the_plugin_loaded(machine: Machine) -> None:
    assert machine.airflow("version").split()[-1] == "3.3.1"
    dags = {path.stem for path in (PROJECT_ROOT / "dags").glob("*.py")}
    program = (
        "import json; from airflow.dag_processing.dagbag import DagBag; from airflow import plugins_manager;"
        "bag, (plugins, failed) = DagBag(), plugins_manager._get_plugins();"
        "print('FOUND', json.dumps([sorted(bag.dags), bag.import_errors, [plugin.name for plugin in plugins], failed]))"
    )
    said = call(machine.python, "-c", program, env=machine.environment, cwd=machine.folder)
    found, errors, plugins, failed = json.loads(said.rpartition("FOUND ")[2])
    assert set(found) == dags
    assert errors == failed == {}
    assert [name for name in plugins if "scones" in name]


def test_a_model_is_trained_deployed_and_scores_a_batch(
    machine: Machine, run: Callable[[str, dict[str, Any]], dict[str, Any]]
) -> None:
    machine.airflow("pools", "import", str(machine.folder / "plugins" / "scones" / "pools.json"))
    trained = run("train_and_deploy", {"epochs": 1, "mini_batch_size": 16, "minimum_accuracy": 0.5})
    assert trained["state"] == "success", trained["log"][-6000:]
    scored = run("batch_inference", {"sample_size": 20, "max_rejected_share": 1.0, "threshold": 0})
    assert scored["state"] == "success", scored["log"][-6000:]
    summary = scored["xcoms"]["summarize_batch:return_value"]
    assert summary["images"] == summary["classified"] == 20
