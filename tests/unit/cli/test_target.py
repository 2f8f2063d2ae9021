"""Where a command runs: the connection of the environment, or the platform that is up, or nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli import target
from embedded import environment, run_folder
from embedded.settings import PORT_FIELDS, PROJECT_ROOT, EmbeddedSettings

AWS = json.dumps({"conn_type": "aws", "extra": {"region_name": "eu-central-1"}})


@pytest.fixture
def settings(tmp_path: Path) -> EmbeddedSettings:
    return EmbeddedSettings(run_dir=tmp_path / "run")


def test_without_a_platform_and_a_connection_there_is_nothing_to_run_on(settings: EmbeddedSettings) -> None:
    found = target.find(settings, {})
    assert "make up" in found.problem
    assert target.CONNECTION in found.problem


def test_the_platform_that_is_up_is_reached_by_its_connection_with_a_database_of_our_own(
    settings: EmbeddedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    run_folder.prepare(settings.run_dir)
    there = replace(settings, airflow_port=1, aws_port=1234, sagemaker_port=3)
    ports = {name: getattr(there, name) for name in PORT_FIELDS}
    with run_folder.held(settings.run_dir):
        run_folder.write_state(settings.run_dir, {"processes": {}, "ports": ports})
        found = target.find(settings, os.environ)
    assert not found.problem
    assert found.name == "the platform at http://127.0.0.1:1234"
    assert found.variables[target.CONNECTION] == environment.aws_connection(there)
    assert "AWS_PROFILE" not in found.variables
    database = found.variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert str(settings.airflow_home) not in database
    assert str(settings.run_dir / "cli") in database


def test_a_connection_comes_before_the_platform_and_brings_the_callers_credentials(
    settings: EmbeddedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {target.CONNECTION: AWS, "AWS_PROFILE": "trials"}
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    found = target.find(settings, theirs)
    assert not found.problem
    assert {name: found.variables[name] for name in theirs} == theirs
    assert {name for name in found.variables if name.startswith("AWS_")} == {"AWS_PROFILE"}


def test_two_places_at_once_are_refused(settings: EmbeddedSettings) -> None:
    found = target.find(settings, {target.CONNECTION: AWS, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"})
    assert "AWS_ENDPOINT_URL_S3" in found.problem


def test_a_program_gets_one_document_on_standard_output_and_an_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "cleanup", "--json", "--older-than-days", "-1"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "SCONES_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "not run"
    assert document["exit_code"] == 2
    assert document["error"] in done.stderr
    assert "--older-than-days" in document["error"]
