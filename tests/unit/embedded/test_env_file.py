"""`make env`: secrets are made once, kept ever after, and readable by their owner only."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

from cryptography.fernet import Fernet
from dotenv import dotenv_values
from sqlalchemy.engine import make_url

from embedded.env_file import COMPOSE_SECRETS, SECRETS, completed, fill, main

ROOT = Path(__file__).resolve().parents[3]


def test_the_example_is_completed_with_secrets_that_differ(tmp_path: Path):
    (tmp_path / ".env.example").write_text((ROOT / ".env.example").read_text())
    assert main(tmp_path) == 0
    values = dotenv_values(tmp_path / ".env")
    made = [values[name] for name in SECRETS]
    assert all(made)
    assert len(set(made)) == len(SECRETS)
    Fernet(str(values["AIRFLOW_FERNET_KEY"]))
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_what_is_set_stays(tmp_path: Path):
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=mine\nSCONES_AIRFLOW_PORT=9000\n")
    main(tmp_path)
    first = (tmp_path / ".env").read_text()
    main(tmp_path)
    assert (tmp_path / ".env").read_text() == first
    assert dotenv_values(tmp_path / ".env")["POSTGRES_PASSWORD"] == "mine"


def test_what_an_interrupted_command_left_does_not_open_the_file_to_others(tmp_path: Path):
    (tmp_path / ".env.example").write_text("")
    left = tmp_path / ".env.part"
    left.touch(mode=0o644)
    main(tmp_path)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert not left.exists()


def test_only_secrets_are_touched():
    text = completed("# note\nAIRFLOW_JWT_SECRET=\nX=1\n")
    assert text.startswith("# note\nAIRFLOW_JWT_SECRET=")
    assert text.splitlines()[2] == "X=1"


def test_the_volume_of_secrets_is_filled_once(tmp_path: Path):
    assert fill(tmp_path, {}) == list(COMPOSE_SECRETS)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert fill(tmp_path, {}) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first
    assert len({first[name.lower()] for name in COMPOSE_SECRETS}) == len(COMPOSE_SECRETS)
    assert not [path for path in tmp_path.iterdir() if path.stat().st_mode & 0o137]
    Fernet(first["airflow_fernet_key"])


def test_what_env_holds_comes_first_and_stays(tmp_path: Path):
    fill(tmp_path, {"POSTGRES_PASSWORD": ""})
    assert "POSTGRES_PASSWORD" not in fill(tmp_path, {"POSTGRES_PASSWORD": "p@ss/word"})
    assert (tmp_path / "postgres_password").read_text() == "p@ss/word"
    url = make_url((tmp_path / "sql_alchemy_conn").read_text())
    assert (url.password, url.host, url.database) == ("p@ss/word", "postgres", "airflow")
    assert make_url((tmp_path / "result_backend").read_text().removeprefix("db+")).password == "p@ss/word"
    fill(tmp_path, {})
    assert (tmp_path / "postgres_password").read_text() == "p@ss/word"


def test_aws_clients_read_their_secret_from_it(tmp_path: Path):
    fill(tmp_path, {"SCONES_AWS_SECRET_KEY": "mine"})
    parsed = ConfigParser()
    parsed.read(tmp_path / "aws_credentials")
    assert parsed["default"]["aws_secret_access_key"] == "mine"
