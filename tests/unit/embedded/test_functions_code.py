"""Packages and layers that cannot be unpacked: the caller is told, and nothing stays of them."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from embedded.functions import pythons
from embedded.functions.code import Unpacked
from embedded.functions.execution import Environment, Invocation, Platform


def package() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("first.py", "")
        content.writestr("code.py", "def handler(e, c): return e")
    return archive.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The archive with its second file said to be encrypted, in both of its headers."""
    changed = bytearray(archive)
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        changed[archive.rindex(signature) + flags] |= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "damaged",
    [b"no archive", package().replace(b"return e", b"return f"), encrypted(package())],
    ids=["none", "crc", "encrypted"],
)
@pytest.mark.parametrize("place", ["code", "layer"])
def test_what_cannot_be_unpacked_is_told_and_leaves_nothing(tmp_path: Path, damaged: bytes, place: str) -> None:
    def layers(config: dict[str, Any]) -> list[bytes]:
        return [damaged] if place == "layer" else []

    folder = tmp_path / "unpacked"
    platform = Platform(tmp_path, [], Unpacked(folder), pythons.find, layers, lambda config: {})
    config = {"Handler": "code.handler", "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}"}
    environment = Environment(platform, config, damaged if place == "code" else package())
    for _ in range(2):
        answer = environment.invoke(Invocation(b"{}", "the-id", "the-arn", "Root=1-2-3"))
        assert answer.failed
        assert json.loads(answer.payload)["errorType"] == "InvalidZipFileException"
    environment.kill()
    assert list(folder.iterdir()) == []
