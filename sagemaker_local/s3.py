"""Moving data between S3 and a container's directories, with patience for an S3 that is away for a while.

A client error (no such key, access denied) is final and becomes a `DataError`; a connection error or a 5xx is retried
with growing pauses until the outage has lasted `Config.outage_seconds`, and then becomes an `OutageError`.
"""

from __future__ import annotations

import shutil
import tarfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException

T = TypeVar("T")
PARALLEL = 8
_SERVER_ERRORS = 500


class DataError(Exception):
    """The data cannot be had or stored: what the user gave is wrong. The text goes into FailureReason."""


class OutageError(Exception):
    """S3 did not answer for as long as the service is willing to wait."""


class Cancelled(Exception):
    """The transfer was told to stop."""


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` as (bucket, key). Raises `DataError` for anything else."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise DataError(f"{uri!r} is not an S3 URI of the form s3://bucket/prefix")
    return parts.netloc, uri.removeprefix(f"s3://{parts.netloc}").removeprefix("/")


def check_uri(uri: str, member: str) -> tuple[str, str]:
    """A request's S3 URI as (bucket, key). Raises `ValidationException` naming the member."""
    try:
        return split_uri(uri)
    except DataError as error:
        raise ValidationException(f"{member}: {error}") from error


def join_uri(prefix: str, *names: str) -> str:
    """`s3://b/p/` and names as one URI."""
    return "/".join([prefix.rstrip("/"), *names])


def patiently(ctx: Context, cancelled: threading.Event | None, call: Callable[[], T]) -> T:
    """The result of `call`, retried through an outage. Raises `OutageError`, `Cancelled`, or its `ClientError`."""
    stop = cancelled or threading.Event()
    started = ctx.now()
    pause = 0.2
    while True:
        if stop.is_set():
            raise Cancelled
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            final = isinstance(error, ClientError) and _http_status(error) < _SERVER_ERRORS
            if final:
                raise
            if ctx.now() - started + pause > ctx.config.outage_seconds:
                raise OutageError(f"S3 did not answer for {ctx.now() - started:.0f} s: {error}") from error
        stop.wait(pause)
        pause = min(pause * 2, 5.0)


def list_keys(ctx: Context, bucket: str, prefix: str, cancelled: threading.Event | None = None) -> list[str]:
    """Every key under a prefix, folder markers left out. Raises `DataError` when the bucket cannot be listed."""

    def call() -> list[str]:
        pages = ctx.clients.get("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")]

    try:
        return patiently(ctx, cancelled, call)
    except ClientError as error:
        raise DataError(f"Cannot list s3://{bucket}/{prefix}: {error}") from error


def under_prefix(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """Where each key goes below the channel directory: its path after the prefix's last `/`.

    `train/` puts `train/a.png` at `a.png`; `train.lst` puts itself at `train.lst`; `data/ab` puts `data/abc/d` at
    `abc/d`, but when it is a folder (`data/ab/d`) at `d`, as SageMaker does.
    """
    keys = list(keys)
    folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
    if prefix and all(key.startswith(folder) for key in keys):
        base = folder
    else:
        base = prefix.rpartition("/")[0]
        base = base + "/" if base else ""
    return {key: key[len(base) :] for key in keys}


def download(
    ctx: Context, bucket: str, files: dict[str, str], target: Path, cancelled: threading.Event | None = None
) -> None:
    """Fetch keys to relative paths below `target`, several at once. Raises `DataError`, `OutageError`, `Cancelled`."""
    root = target.resolve()
    places: list[tuple[str, Path]] = []
    for key, relative in files.items():
        place = (root / relative).resolve()
        if not place.is_relative_to(root):
            raise DataError(f"s3://{bucket}/{key} would be written outside its channel directory")
        places.append((key, place))
    for folder in {place.parent for _, place in places} | {root}:
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(item: tuple[str, Path]) -> None:
        key, place = item
        try:
            patiently(ctx, cancelled, lambda: _get_file(ctx, bucket, key, place))
        except ClientError as error:
            raise DataError(f"Cannot download s3://{bucket}/{key}: {error}") from error

    _in_parallel(fetch, places)


def upload(ctx: Context, uri: str, path: Path, cancelled: threading.Event | None = None) -> None:
    """Store one file. Raises `DataError`, `OutageError`, `Cancelled`."""
    bucket, key = split_uri(uri)
    try:
        patiently(ctx, cancelled, lambda: _put_file(ctx, bucket, key, path))
    except ClientError as error:
        raise DataError(f"Cannot upload to {uri}: {error}") from error


def put_bytes(ctx: Context, uri: str, body: bytes, content_type: str, cancelled: threading.Event | None = None) -> None:
    """Store bytes. Raises as `upload` does."""
    bucket, key = split_uri(uri)

    def call() -> Any:
        return ctx.clients.get("s3").put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    try:
        patiently(ctx, cancelled, call)
    except ClientError as error:
        raise DataError(f"Cannot upload to {uri}: {error}") from error


def get_bytes(ctx: Context, uri: str, cancelled: threading.Event | None = None) -> bytes:
    """An object's bytes. Raises as `download` does."""
    bucket, key = split_uri(uri)

    def call() -> bytes:
        body: bytes = ctx.clients.get("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    try:
        return patiently(ctx, cancelled, call)
    except ClientError as error:
        raise DataError(f"Cannot download {uri}: {error}") from error


def upload_tree(ctx: Context, uri: str, root: Path, cancelled: threading.Event | None = None) -> int:
    """Store every file below `root` under `uri`, several at once, and return how many there were."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    _in_parallel(lambda path: upload(ctx, join_uri(uri, path.relative_to(root).as_posix()), path, cancelled), files)
    return len(files)


def pack(source: Path, archive: Path) -> None:
    """A directory's contents as a tar.gz, written beside and moved into place so that a half one is never seen."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w:gz", compresslevel=3) as tar:
        for path in sorted(source.iterdir()):
            tar.add(path, arcname=path.name)
    partial.replace(archive)


def unpack(archive: Path, target: Path) -> None:
    """Extract a model artefact. Raises `DataError` for a broken archive or members that point outside `target`.

    By hand because `tarfile`'s own data filter is missing from Debian 12's Python (3.11.2; it came with 3.11.4).
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                _unpack_member(tar, member, target.resolve())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"Cannot extract the model artefact: {error}") from error


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
        with path.open("wb") as file:
            shutil.copyfileobj(source, file)
        path.chmod(member.mode & 0o755 | 0o600)
    else:
        raise DataError(f"Cannot extract the model artefact: {member.name!r} is neither file, directory nor link")


def _inside(target: Path, folder: Path, name: str, member: tarfile.TarInfo) -> Path:
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(target):
        raise DataError(f"Cannot extract the model artefact: {member.name!r} leads outside of it")
    return path


def fetch_model(ctx: Context, uri: str, target: Path, cancelled: threading.Event | None = None) -> None:
    """Download a `model.tar.gz` and extract it to `target` (a container's /opt/ml/model). Raises as `download` does."""
    bucket, key = split_uri(uri)
    if not key.endswith((".tar.gz", ".tgz")):
        raise DataError(f"The model artefact must be a .tar.gz, got {uri}")
    scratch = target.parent / "model-download"
    download(ctx, bucket, {key: "model.tar.gz"}, scratch, cancelled)
    unpack(scratch / "model.tar.gz", target)
    (scratch / "model.tar.gz").unlink()
    scratch.rmdir()


def _get_file(ctx: Context, bucket: str, key: str, place: Path) -> None:
    # get_object rather than download_file, whose transfer manager costs more than most training images.
    body = ctx.clients.get("s3").get_object(Bucket=bucket, Key=key)["Body"]
    with place.open("wb") as sink:
        shutil.copyfileobj(body, sink, 1 << 20)


def _put_file(ctx: Context, bucket: str, key: str, path: Path) -> None:
    try:
        ctx.clients.get("s3").upload_file(str(path), bucket, key)
    except S3UploadFailedError as error:
        # boto3 hides the ClientError, and with it whether trying again is of use.
        if isinstance(error.__context__, ClientError):
            raise error.__context__ from error
        raise


def _in_parallel(work: Callable[[Any], None], items: list[Any]) -> None:
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
