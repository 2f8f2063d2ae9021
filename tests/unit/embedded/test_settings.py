"""Settings of the embedded platform: read, checked, and refused with a message that says what to do."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from embedded.settings import (
    EmbeddedSettings,
    SettingsError,
    free_port,
    is_loopback,
    load,
    port_is_free,
    with_usable_ports,
)


def test_defaults_bind_to_loopback_on_the_documented_ports(tmp_path: Path):
    settings = load({"HOME": "x"}, tmp_path / "absent.env")
    assert (settings.host, settings.airflow_port, settings.aws_port) == ("127.0.0.1", 8080, 4566)
    assert settings.explicit_ports == frozenset()


def test_environment_wins_over_the_file_and_empty_counts_as_unset(tmp_path: Path):
    env_file = tmp_path / ".env"
    env_file.write_text("SCONES_AIRFLOW_PORT=9001\nSCONES_AWS_PORT=9002\nCIFAR100_ARCHIVE=\n")
    settings = load({"SCONES_AWS_PORT": "9003", "SCONES_REGION": ""}, env_file)
    assert (settings.airflow_port, settings.aws_port, settings.region) == (9001, 9003, "us-east-1")
    assert settings.explicit_ports == {"airflow_port", "aws_port"}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SCONES_AIRFLOW_PORT": "eighty"}, "SCONES_AIRFLOW_PORT='eighty' is not a whole number"),
        ({"SCONES_AWS_PORT": "70000"}, "SCONES_AWS_PORT=70000 is not a port"),
        ({"SCONES_AIRFLOW_PORT": "4566"}, "are both 4566"),
        ({"SCONES_HOST": "0.0.0.0"}, "set SCONES_ADMIN_PASSWORD"),
    ],
)
def test_bad_settings_are_refused_by_name(environ: dict[str, str], said: str, tmp_path: Path):
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        load(environ, tmp_path / "absent.env")


def test_an_open_host_is_accepted_with_a_password_of_ones_own(tmp_path: Path):
    environ = {"SCONES_HOST": "0.0.0.0", "SCONES_ADMIN_PASSWORD": "correct horse"}
    assert load(environ, tmp_path / "absent.env").host == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, loopback: bool):
    assert is_loopback(host) is loopback


def _settings_on_free_ports() -> EmbeddedSettings:
    names = ("airflow_port", "aws_port", "sagemaker_port")
    return replace(EmbeddedSettings(), **{name: free_port() for name in names})  # type: ignore[arg-type]


def test_a_busy_default_port_moves_only_when_allowed():
    settings = _settings_on_free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.aws_port))
        taken.listen()
        with pytest.raises(SettingsError, match="SCONES_AWS_PORT"):
            with_usable_ports(settings, move=False)
        moved = with_usable_ports(settings, move=True)
        assert moved.aws_port != settings.aws_port
        assert port_is_free("127.0.0.1", moved.aws_port)
        assert moved.airflow_port == settings.airflow_port
        asked_for = replace(settings, explicit_ports=frozenset({"aws_port"}))
        with pytest.raises(SettingsError, match=str(settings.aws_port)):
            with_usable_ports(asked_for, move=True)
