"""The DAG as Airflow runs it, 200 images at a time: a green run with rejections, a red one that names its causes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedded import environment
from embedded.settings import PROJECT_ROOT, EmbeddedSettings
from tests.support.batch_world import World, deploy_world, png, stub_sagemaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STACK = "batch-dag"
RUN_DAG = PROJECT_ROOT / "tests" / "integration" / "run_dag.py"


@pytest.fixture(scope="module")
def world(
    ministack: str, stub_port: int, platform_settings: EmbeddedSettings, aws: Callable[..., Any]
) -> Iterator[World]:
    with stub_sagemaker(stub_port) as stub:
        yield deploy_world(aws, stub, environment.aws_connection(platform_settings), STACK)


@pytest.fixture(scope="module")
def airflow(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow with a database of its own."""
    home = tmp_path_factory.mktemp("airflow")
    variables = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW_CONN_AWS_DEFAULT": world.airflow_connection,
        "SCONES_STACK_NAME": STACK,
        "PYTHONPATH": f"{PROJECT_ROOT / 'plugins'}{os.pathsep}{PROJECT_ROOT}",
    }
    executable = Path(sys.executable).with_name("airflow")
    subprocess.run([executable, "db", "migrate"], env=variables, check=True, capture_output=True)
    return variables


def run_batch(airflow: dict[str, str], folder: Path, conf: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the run's outcome, and everything it logged."""
    out = folder / "out.json"
    done = subprocess.run(
        [sys.executable, RUN_DAG, "batch_inference", json.dumps(conf), out],
        env=airflow,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(out.read_text()), done.stdout + done.stderr


def upload(world: World, objects: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: world.put(*entry), objects.items()))


def test_200_images_with_30_percent_rejected_are_a_green_run(
    world: World, airflow: dict[str, str], tmp_path: Path
) -> None:
    upload(world, {f"dag/green/{'unsure' if n < 60 else 'sure'}-{n:03d}.png": png(n) for n in range(200)})
    result, _ = run_batch(airflow, tmp_path, {"prefix": "dag/green/", "threshold": 0.9, "chunk_size": 120})
    assert result["state"] == "success"
    summary = result["xcoms"]["summarize_batch:return_value"]
    assert set(summary) >= {"batch_id", "seconds", "accuracy", "images_per_second", "summary_uri", "results_uri"}
    assert (summary["images"], summary["classified"], summary["rejected"]) == (200, 140, 60)
    stored = world.store.read_json(summary["summary_uri"].split("/", 3)[3]) or {}
    assert {name: stored[name] for name in summary} == summary
    report = (world.store.read(summary["report_uri"].split("/", 3)[3]) or b"").decode()
    assert "60 rejected" in report


def test_200_images_with_30_percent_failed_are_a_red_run_that_names_the_causes(
    world: World, airflow: dict[str, str], tmp_path: Path
) -> None:
    objects = {f"dag/red/sure-{n:03d}.png": png(n) for n in range(140)}
    objects |= {f"dag/red/corrupt-{n:03d}.png": b"no image" for n in range(30)}
    objects |= {f"dag/red/modelerror-{n:03d}.png": png(n) for n in range(20)}
    upload(world, objects)
    vanished = [f"dag/red/vanished-{n:03d}.png" for n in range(10)]
    manifest = "key\n" + "".join(f"{key}\n" for key in [*objects, *vanished])
    world.put("dag/manifest.csv", manifest.encode())
    result, logs = run_batch(airflow, tmp_path, {"manifest": "dag/manifest.csv", "threshold": 0.9})
    assert result["state"] == "failed"
    # Red because of its outcome, after one try; everything before it is done and readable.
    assert result["tasks"]["collect_results"]["state"] == "success"
    assert (result["tasks"]["summarize_batch"]["state"], result["tasks"]["summarize_batch"]["tries"]) == ("failed", 1)
    reasons = "30 x NotAnImageError", "20 x ModelRefusedImageError", "10 x ImageNotFoundError"
    assert all(reason in logs for reason in reasons)
    assert "30.0% of the images got no answer" in logs


def test_an_empty_prefix_is_a_red_run_that_says_what_to_do(airflow: dict[str, str], tmp_path: Path) -> None:
    result, logs = run_batch(airflow, tmp_path, {"prefix": "dag/nothing-here"})
    assert result["state"] == "failed"
    assert (result["tasks"]["plan_batch"]["state"], result["tasks"]["plan_batch"]["tries"]) == ("failed", 1)
    assert "dag/nothing-here/. Check the prefix for typing errors" in logs
