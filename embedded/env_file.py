"""Write `.env` for docker compose: secrets of this checkout's own, everything else as in `.env.example`.

``python -m embedded.env_file`` needs the standard library only, so that it runs before anything is installed.
A secret that is there already is kept: a new one would lock the stored connections and sessions.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
SECRETS = ("AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_API_SECRET_KEY", "POSTGRES_PASSWORD")


def new_secret() -> str:
    """32 random bytes in URL-safe base64: also the form that Fernet wants."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def completed(text: str) -> str:
    """Return the file's text with every secret set; lines that are there already stay as they are."""
    lines = text.splitlines()
    for name in SECRETS:
        index = next((at for at, line in enumerate(lines) if line.split("=", 1)[0].strip() == name), None)
        if index is None:
            lines.append(f"{name}={new_secret()}")
        elif not lines[index].partition("=")[2].strip():
            lines[index] = f"{name}={new_secret()}"
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
