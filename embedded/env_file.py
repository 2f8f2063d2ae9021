"""The secrets of docker compose: made once, and kept, as a new one would lock the stored connections and sessions.

``python -m embedded.env_file /secrets`` is what the service `secrets` runs: it fills that volume, which all other
services read. What `.env` holds comes first. ``python -m embedded.env_file`` writes secrets of its own into `.env`, for
those who keep them elsewhere; it needs the standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from embedded.whole_file import replace_text

PROJECT_ROOT = Path(__file__).resolve().parents[1]
# Random bytes of each: a Fernet key has 32, and tokens are signed with SHA-512, which wants 64.
SECRETS = {"AIRFLOW_FERNET_KEY": 32, "AIRFLOW_JWT_SECRET": 64, "AIRFLOW_API_SECRET_KEY": 64, "POSTGRES_PASSWORD": 32}
# The embedded run, which reads the same `.env`, gets along without this one.
COMPOSE_SECRETS = SECRETS | {"SCONES_AWS_SECRET_KEY": 32}


def new_secret(size: int) -> str:
    """``size`` random bytes in URL-safe base64, the form that Fernet wants."""
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).decode()


def completed(text: str) -> str:
    """Return the file's text with every secret set; lines that are there already stay as they are."""
    lines = text.splitlines()
    for name, size in SECRETS.items():
        index = next((at for at, line in enumerate(lines) if line.split("=", 1)[0].strip() == name), None)
        if index is None:
            lines.append(f"{name}={new_secret(size)}")
        elif not lines[index].partition("=")[2].strip():
            lines[index] = f"{name}={new_secret(size)}"
    return "\n".join(lines) + "\n"


def fill(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Write each secret into a file of its own, and what is made of them; return the names of those that are new."""
    values, new = {}, []
    for name, size in COMPOSE_SECRETS.items():
        kept = folder / name.lower()
        values[name] = environ.get(name) or (kept.read_text() if kept.exists() else "")
        if not values[name]:
            values[name] = new_secret(size)
            new.append(name)
    database = f"postgresql://scones:{quote(values['POSTGRES_PASSWORD'], safe='')}@postgres/airflow"
    files = {name.lower(): value for name, value in values.items()} | {
        "sql_alchemy_conn": database.replace("://", "+psycopg2://", 1),
        "result_backend": f"db+{database}",
        "aws_credentials": (
            f"[default]\naws_access_key_id = test\naws_secret_access_key = {values['SCONES_AWS_SECRET_KEY']}\n"
        ),
    }
    for name, text in files.items():
        replace_text(folder / name, text, mode=0o640)  # each service has a user of its own; they share the group
    return new


def main(root: Path = PROJECT_ROOT) -> int:
    target = root / ".env"
    source = target if target.exists() else root / ".env.example"
    text = completed(source.read_text())
    if source == target and text == target.read_text():
        print(".env has all it needs; nothing changed.")
        return 0
    replace_text(target, text, mode=0o600)
    print("Wrote .env with secrets of its own. It is not for git, and readable by you only.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("New secrets:", ", ".join(fill(Path(sys.argv[1]), os.environ)) or "none")
        raise SystemExit(0)
    raise SystemExit(main())
