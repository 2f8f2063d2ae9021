"""The notebook, executed as it stands, as its first lines say: on a platform that is up, by `make aws-env`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedded.settings import PROJECT_ROOT
from tests.integration.live import LivePlatform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NAME = "scones-notebook"
FUNCTIONS = {f"{NAME}-{name}" for name in ("serialize-image", "classify-image", "filter-inferences")}


def execute(live: LivePlatform, jupyter: str, notebook: Path, output: Path, archive: Path) -> dict[str, Any]:
    """Run the notebook in a fresh kernel; return its code cells by id."""
    output.parent.mkdir(exist_ok=True)
    commands = 'eval "$("$1" -m embedded aws-env)" && exec "$2" execute "$3" --output "$4"'
    done = subprocess.run(
        ["bash", "-c", commands, "bash", sys.executable, jupyter, str(notebook), str(output)],
        cwd=PROJECT_ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(output.parent),
            "SCONES_RUN_DIR": str(live.run_dir),
            "CIFAR100_ARCHIVE": str(archive),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {cell["id"]: cell for cell in json.loads(output.read_text())["cells"] if cell["cell_type"] == "code"}


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """The figures in the notebook's last table."""
    return dict(ast.literal_eval("".join(cells["summary"]["outputs"][0]["data"]["text/plain"])))


def printed(cell: dict[str, Any]) -> str:
    return "".join("".join(out["text"]) for out in cell["outputs"] if out["output_type"] == "stream")


def everything(live: LivePlatform, bucket: str) -> set[tuple[str, str]]:
    """Kind and name of all that a notebook can make, whoever made it."""
    sagemaker = live.client("sagemaker")
    listed = live.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    names = {
        "function": [one["FunctionName"] for one in live.client("lambda").list_functions()["Functions"]],
        "workflow": [one["name"] for one in live.client("stepfunctions").list_state_machines()["stateMachines"]],
        "role": [one["RoleName"] for one in live.client("iam").list_roles()["Roles"]],
        "endpoint": [one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]],
        "config": [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]],
        "model": [one["ModelName"] for one in sagemaker.list_models()["Models"]],
        "object": [one["Key"] for page in listed for one in page.get("Contents", [])],
    }
    return {(kind, name) for kind, those in names.items() for name in those}


def its_own(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What of it has the notebook's name."""
    return {(kind, name) for kind, name in found if NAME in name}


def test_the_notebook_does_the_exercise_twice_and_leaves_the_rest_as_it_was(
    live: LivePlatform, jupyter: str, shared_data: Path, tmp_path: Path
) -> None:
    notebook, archive = PROJECT_ROOT / "notebooks" / "scones.ipynb", shared_data / "cifar-100-python.tar.gz"
    bucket = live.stack_output("BucketName")
    before = everything(live, bucket)
    assert its_own(before) == set()

    # First as one who wants to look at what was made, then again on top of it.
    keeping = PROJECT_ROOT / "notebooks" / f".{tmp_path.name}.ipynb"
    keeping.write_text(notebook.read_text().replace("CLEAN_UP = True", "CLEAN_UP = False"))
    try:
        first = execute(live, jupyter, keeping, tmp_path / "first" / "out.ipynb", archive)
    finally:
        keeping.unlink()
    made = its_own(everything(live, bucket))
    assert {name for kind, name in made if kind == "function"} == FUNCTIONS
    assert {("workflow", NAME), ("endpoint", NAME)} <= made
    assert "1103 objects uploaded" in printed(first["upload"])

    second = execute(live, jupyter, notebook, tmp_path / "second" / "out.ipynb", archive)
    assert "0 objects uploaded, 1103 were there already" in printed(second["upload"])
    after = everything(live, bucket)
    assert its_own(after) == set()
    assert before - after == set()

    for cells in (first, second):
        found = summary(cells)
        assert found["executions"] == found["captured"] == 40
        assert found["succeeded"] + found["rejected"] == 40
        # By the threshold, some of each; and what passed it is more often right than all together.
        assert found["succeeded"] >= 20
        assert found["rejected"] >= 1
        assert found["accuracy"] >= 0.85
        assert found["accuracy of what passed"] >= found["accuracy"]
        for name in ("row", "plot", "threshold", "least"):
            assert any("image/png" in out.get("data", {}) for out in cells[name]["outputs"]), name
