"""What becomes of an image that nothing stands for; the real engine is asked in tests/compose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sagemaker_local.__main__ import main
from sagemaker_local.engine import Engine
from sagemaker_local.errors import ValidationException
from sagemaker_local.images import Command, Image, Images
from sagemaker_local.processes import Processes

OWN = "registry.example/own:1"


def test_without_an_engine_it_is_refused() -> None:
    with pytest.raises(ValidationException, match=r"no command for image .*Map it in .* --images\.$"):
        Images().find(OWN)


def test_with_one_it_runs_if_the_engine_has_it_and_nothing_stands_for_it() -> None:
    images = Images((Image("*/mapped:1", ("mine",)),))
    images.engine_has = lambda uri: uri == OWN
    assert images.find(OWN).run("train") == Command(("train",), OWN)
    assert images.find(OWN).run("--x", entrypoint=("sh", "-c")) == Command(("sh", "-c", "--x"), OWN, entrypoint=True)
    assert images.find("a/mapped:1").run("train") == Command(("mine", "train"))
    with pytest.raises(ValidationException, match="the Docker engine has no such image"):
        images.find("registry.example/other:1")


def test_a_job_of_a_service_that_had_one_says_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="--containers docker"):
        Processes(tmp_path).start(Command(("train",), OWN), env={}, root=tmp_path, log=tmp_path / "log")


def test_its_environment_is_the_platforms_and_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_PROFILE", "of-the-user")
    engine = Engine(tmp_path, ["http://127.0.0.1:4566"])
    engine._gateway = "172.18.0.1"
    assert engine._environment({"EXTRA": "1", "SM_ML_ROOT": "/somewhere"}) == {
        "AWS_ENDPOINT_URL": "http://172.18.0.1:4566",
        "AWS_SECRET_ACCESS_KEY": "s",
        "EXTRA": "1",
        "SM_ML_ROOT": "/opt/ml",
    }


def test_a_machine_without_an_engine_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--data-dir", str(tmp_path), "--port", "0", "--containers", "docker"]) == 2
    assert "--containers docker needs a Docker engine on this machine: there is no docker" in capsys.readouterr().err
