"""`make env`: secrets are made once, kept ever after, and readable by their owner only."""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet
from dotenv import dotenv_values

from embedded.env_file import SECRETS, completed, main

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


def test_only_secrets_are_touched():
    text = completed("# note\nAIRFLOW_JWT_SECRET=\nX=1\n")
    assert text.startswith("# note\nAIRFLOW_JWT_SECRET=")
    assert text.splitlines()[2] == "X=1"
