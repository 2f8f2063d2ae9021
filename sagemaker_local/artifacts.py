"""Model artifacts: `model.tar.gz` made of a directory, and unpacked with limits, since anybody may have made it."""

from __future__ import annotations

import shutil
import tarfile
import threading
import time
import zlib
from pathlib import Path
from typing import IO, Any

from sagemaker_local import s3
from sagemaker_local.context import Context
from sagemaker_local.s3 import DataError

MAX_MEMBERS = 100_000  # with the headers that only name another
MAX_BYTES = 10 << 30  # unpacked
MAX_RATIO = 200  # unpacked to packed, beyond the first MAX_FREE bytes; weights rarely pack 2:1
MAX_FREE = 64 << 20
MAX_DEPTH = 100  # folders in one another
MAX_HEADER = 16 << 10  # bytes of an extended header: a path has 4 KiB at most
MAX_CHAIN = 8  # extended headers for one member, which tarfile follows by calling itself
MAX_SECONDS = 30.0  # of the processor, and one for every 10 MB packed
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def pack(source: Path, archive: Path) -> None:
    """A directory's contents as a tar.gz, written beside and moved into place so that a half one is never seen."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w:gz", compresslevel=3) as tar:
        for path in sorted(source.iterdir()):
            tar.add(path, arcname=path.name)
    partial.replace(archive)


def unpack(archive: Path, target: Path) -> None:
    """Extract a model artifact.

    By hand because `tarfile`'s own data filter is missing from Debian 12's Python (3.11.2; it came with 3.11.4), and
    knows no limits.

    Raises:
        DataError: the archive is broken, has members that point outside `target`, or is larger than these limits.
    """
    target.mkdir(parents=True, exist_ok=True)
    allowance = _Allowance(archive.stat().st_size)
    try:
        with tarfile.open(archive, "r:*", tarinfo=allowance.member_class()) as tar:
            for member in tar:
                allowance.count_bytes(member.size)
                _unpack_member(tar, member, target.resolve())
    # RuntimeError: a circle of symbolic links.
    except (tarfile.TarError, EOFError, OSError, ValueError, RuntimeError, zlib.error) as error:
        raise DataError(f"Cannot extract the model artifact: {type(error).__name__}: {error}") from error


def fetch_model(ctx: Context, uri: str, target: Path, cancelled: threading.Event | None = None) -> None:
    """Download a `model.tar.gz` and extract it to `target` (a container's /opt/ml/model).

    Raises:
        DataError: `uri` names no .tar.gz, S3 refuses it, or it cannot be unpacked.
        s3.OutageError: S3 did not answer for as long as the service waits.
        s3.Cancelled: `cancelled` was set.
    """
    bucket, key = s3.split_uri(uri)
    if not key.endswith((".tar.gz", ".tgz")):
        raise DataError(f"The model artifact must be a .tar.gz, got {uri}")
    scratch = target.parent / "model-download"
    s3.download(ctx, bucket, {key: "model.tar.gz"}, scratch, cancelled)
    unpack(scratch / "model.tar.gz", target)
    shutil.rmtree(scratch)


class _Allowance:
    """What one archive may still take."""

    def __init__(self, packed: int) -> None:
        self._bytes = min(MAX_BYTES, MAX_FREE + MAX_RATIO * packed)
        self._members = MAX_MEMBERS
        self._chain = 0
        self._until = time.thread_time() + MAX_SECONDS + packed / 1e7

    def count_bytes(self, size: int) -> None:
        """Take note of a file.

        Raises:
            DataError: the archive unpacks to more than it may; the file is not written yet.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise DataError("The model artifact unpacks to more than it may: see artifacts.MAX_BYTES and MAX_RATIO")

    def count_header(self, member: tarfile.TarInfo) -> None:
        """Take note of a header as it is read, those that only lengthen the next one's names included."""
        self._members -= 1
        if self._members < 0:
            raise DataError(f"The model artifact has more than {MAX_MEMBERS} members")
        self._chain = self._chain + 1 if member.type in _EXTENDED else 0
        if self._chain > MAX_CHAIN:
            raise DataError(f"The model artifact has more than {MAX_CHAIN} extended headers for one member")
        if self._chain and member.size > MAX_HEADER:
            raise DataError(f"The model artifact has a header of {member.size} bytes; {MAX_HEADER} are taken")
        if time.thread_time() > self._until:
            raise DataError("The model artifact takes too long to read")

    def member_class(self) -> type[tarfile.TarInfo]:
        """What `tarfile` reads headers into.

        `_proc_member` is where a subclass may see each before it is followed, in every Python; from 3.13.5 on (and in
        distributions' older ones) `frombuf` is no longer called.
        """
        count = self.count_header

        class Counted(tarfile.TarInfo):
            def _proc_member(self, tar: tarfile.TarFile) -> Any:
                count(self)
                return super()._proc_member(tar)  # type: ignore[misc]

        return Counted


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """One file, directory or link; names are followed through the links that are there already."""
    path = _inside(target, target, member.name, member)
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        _inside(target, path.parent, member.linkname, member)
        path.symlink_to(member.linkname)
    elif member.islnk():
        path.hardlink_to(_inside(target, target, member.linkname, member))
    elif member.isreg() and (source := tar.extractfile(member)):
        _write(source, path)
        path.chmod(member.mode & 0o755 | 0o600)
    else:
        raise DataError(f"Cannot extract the model artifact: {member.name!r} is neither file, directory nor link")


def _write(source: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(source, file)


def _inside(target: Path, folder: Path, name: str, member: tarfile.TarInfo) -> Path:
    if len(Path(name).parts) > MAX_DEPTH:
        raise DataError(f"Cannot extract the model artifact: {name[:200]!r}... is nested too deeply")
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(target):
        raise DataError(f"Cannot extract the model artifact: {member.name[:200]!r} leads outside of it")
    return path
