"""Write `.env` for docker compose: secrets of this checkout's own, everything else as in `.env.example`.

``python -m embedded.env_file`` needs the standard library only, so that it runs before anything is installed.
A secret that is there already is kept: a new one would lock the stored connections and sessions.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
# Random bytes of each: a Fernet key has 32, and tokens are signed with SHA-512, which wants 64.
SECRETS = {"AIRFLOW_FERNET_KEY": 32, "AIRFLOW_JWT_SECRET": 64, "AIRFLOW_API_SECRET_KEY": 64, "POSTGRES_PASSWORD": 32}


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


def main(root: Path = PROJECT_ROOT) -> int:
    target = root / ".env"
    source = target if target.exists() else root / ".env.example"
    text = completed(source.read_text())
    if source == target and text == target.read_text():
        print(".env has all it needs; nothing changed.")
        return 0
    partial = target.with_suffix(".part")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(target)
    print("Wrote .env with secrets of its own. It is not for git, and readable by you only.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
