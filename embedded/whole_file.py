"""Files that are never seen half written. Of the standard library only: `env_file` runs before all is installed."""

from __future__ import annotations

from pathlib import Path


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=mode)
    partial.write_text(text)
    partial.replace(path)
