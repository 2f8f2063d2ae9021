"""Archives made to hurt: each is refused by one named error, in little time and space."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sagemaker_local import artifacts
from sagemaker_local.artifacts import unpack
from sagemaker_local.s3 import DataError


def made(path: Path, fill: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT, compresslevel=9) as tar:
        fill(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def zeros(tar: tarfile.TarFile) -> None:
    add(tar, "weights", bytes(96 << 20))


def many(tar: tarfile.TarFile) -> None:
    for number in range(60):
        add(tar, f"f{number}")


def circle(tar: tarfile.TarFile) -> None:
    add(tar, "a", type=tarfile.SYMTYPE, linkname="b")
    add(tar, "b", type=tarfile.SYMTYPE, linkname="a")
    add(tar, "b/file", b"x")


def chained_names(tar: tarfile.TarFile) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    block = header.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    assert tar.fileobj is not None
    tar.fileobj.write(block * 2000)


def long_header(tar: tarfile.TarFile) -> None:
    add(tar, "pax", b"1" * 40_000, type=tarfile.XHDTYPE)


def deep(tar: tarfile.TarFile) -> None:
    add(tar, "d/" * 500 + "f", b"x")


def half(tar: tarfile.TarFile) -> None:
    add(tar, "f", b"x" * 10)
    assert tar.fileobj is not None
    header = tarfile.TarInfo("g")
    header.size = 1 << 40
    tar.fileobj.write(header.tobuf())


BOMBS = {
    "600 MB of zeros in 600 kB": (zeros, "unpacks to more than it may"),
    "more members than files a model has": (many, "more than 50 members"),
    "a circle of links": (circle, "RuntimeError|OSError|FileExistsError"),
    "2,000 chained long names": (chained_names, "more than 8 extended headers for one member"),
    "a header that takes quadratic time": (long_header, "a header of 40000 bytes"),
    "500 folders in one another": (deep, "nested too deeply"),
    "a size that is not there": (half, "unpacks to more than it may"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_by_name(what, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "MAX_MEMBERS", 50)
    fill, words = BOMBS[what]
    with pytest.raises(DataError, match=words):
        unpack(made(tmp_path / "model.tar.gz", fill), tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written <= 10


def test_chained_long_names_are_refused_whatever_the_number_of_members(tmp_path):
    with pytest.raises(DataError, match="more than 8 extended headers for one member"):
        unpack(made(tmp_path / "model.tar.gz", chained_names), tmp_path / "out")


def test_an_archive_that_takes_too_long_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "MAX_SECONDS", -1.0)
    with pytest.raises(DataError, match="takes too long"):
        unpack(made(tmp_path / "model.tar.gz", many), tmp_path / "out")


def test_what_is_packed_well_but_small_is_taken(tmp_path):
    """A sparse embedding of 48 MiB of zeros in 48 kB is no bomb."""
    unpack(made(tmp_path / "model.tar.gz", lambda tar: add(tar, "weights", bytes(48 << 20))), tmp_path / "out")
    assert (tmp_path / "out" / "weights").stat().st_size == 48 << 20


@pytest.mark.parametrize("cut", [0, 5, 30, 200])
def test_a_cut_or_changed_archive_is_refused(cut, tmp_path):
    whole = made(tmp_path / "model.tar.gz", lambda tar: add(tar, "w", bytes(range(256)) * 40)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:cut])
    with pytest.raises(DataError, match="Cannot extract"):
        unpack(tmp_path / "cut.tar.gz", tmp_path / "out")
    changed = bytearray(gzip.decompress(whole))
    changed[0:100] = b"\xff" * 100
    (tmp_path / "changed.tar.gz").write_bytes(gzip.compress(bytes(changed)))
    with pytest.raises(DataError, match="Cannot extract"):
        unpack(tmp_path / "changed.tar.gz", tmp_path / "out")
