"""Moving data between S3 and a container's directories, with patience for an S3 that is away for a while.

What trying again cannot mend (no such key, access denied, no credentials) becomes a `DataError` at once; a connection
error or a 5xx is retried with growing pauses until the outage has lasted `Config.outage_seconds`, and then becomes an
`OutageError`.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as UnreachableError

from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException

T = TypeVar("T")
PARALLEL = 8
# The bucket names that botocore sends; whether there is such a bucket S3 says.
_URI = re.compile(r"s3://(?P<bucket>[a-zA-Z0-9._-]{1,255})(?:/(?P<key>.*))?", re.DOTALL)


class DataError(Exception):
    """The data cannot be had or stored: what the user gave is wrong. The text goes into FailureReason."""


class OutageError(Exception):
    """S3 did not answer for as long as the service is willing to wait."""


class Cancelled(Exception):
    """The transfer was told to stop."""


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` as (bucket, key).

    Raises:
        DataError: `uri` is anything else, or names a bucket as none can be named.
    """
    found = _URI.fullmatch(uri)
    if not found:
        raise DataError(f"{uri!r} is not an S3 URI of the form s3://bucket/prefix")
    return found["bucket"], found["key"] or ""


def check_uri(uri: str, member: str) -> tuple[str, str]:
    """A request's S3 URI as (bucket, key).

    Raises:
        ValidationException: `uri` is none; the message names the member.
    """
    try:
        return split_uri(uri)
    except DataError as error:
        raise ValidationException(f"{member}: {error}") from error


def join_uri(prefix: str, *names: str) -> str:
    """`s3://b/p/` and names as one URI."""
    return "/".join([prefix.rstrip("/"), *names])


def patiently(ctx: Context, cancelled: threading.Event | None, what: str, call: Callable[[], T]) -> T:
    """The result of `call`, retried through an outage; `what` it does is said in the errors.

    Raises:
        DataError: it failed in a way that trying again cannot mend.
        OutageError: S3 did not answer for `Config.outage_seconds`.
        Cancelled: `cancelled` was set.
    """
    stop = cancelled or threading.Event()
    started = ctx.now()
    pause = 0.2
    while True:
        if stop.is_set():
            raise Cancelled
        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            if not is_transient(error):
                raise DataError(f"Cannot {what}: {error}") from error
            if ctx.now() - started + pause > ctx.config.outage_seconds:
                raise OutageError(f"S3 did not answer for {ctx.now() - started:.0f} s: {error}") from error
        stop.wait(pause)
        pause = min(pause * 2, 5.0)


def is_transient(error: BotoCoreError | ClientError) -> bool:
    """Whether the same call may succeed later: the service is away, busy or broke off.

    All else (missing credentials, parameters that cannot be sent, a refusal) stays as it is.
    """
    if isinstance(error, ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    return isinstance(error, UnreachableError | HTTPClientError | IncompleteReadError)


def list_keys(ctx: Context, bucket: str, prefix: str, cancelled: threading.Event | None = None) -> list[str]:
    """Every key under a prefix, folder markers left out.

    Raises:
        DataError: the bucket cannot be listed.
        OutageError: S3 did not answer for as long as the service waits.
        Cancelled: `cancelled` was set.
    """

    def call() -> list[str]:
        pages = ctx.clients.get("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")]

    return patiently(ctx, cancelled, f"list s3://{bucket}/{prefix}", call)


def under_prefix(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """Where each key goes below the channel's folder: its path after the prefix's last `/`.

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
    """Fetch keys to relative paths below `target`, several at once.

    Raises:
        DataError: S3 refuses a key, or it would be written outside `target`.
        OutageError: S3 did not answer for as long as the service waits.
        Cancelled: `cancelled` was set.
    """
    root = target.resolve()
    places: list[tuple[str, Path]] = []
    for key, relative in files.items():
        place = (root / relative).resolve()
        if not place.is_relative_to(root):
            raise DataError(f"s3://{bucket}/{key} would be written outside its channel's folder")
        places.append((key, place))
    for folder in {place.parent for _, place in places} | {root}:
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(item: tuple[str, Path]) -> None:
        key, place = item
        patiently(ctx, cancelled, f"download s3://{bucket}/{key}", lambda: _get_file(ctx, bucket, key, place))

    _in_parallel(fetch, places)


def upload(ctx: Context, uri: str, path: Path, cancelled: threading.Event | None = None) -> None:
    """Store one file.

    Raises:
        DataError: `uri` is no S3 URI, or S3 refuses the file.
        OutageError: S3 did not answer for as long as the service waits.
        Cancelled: `cancelled` was set.
    """
    bucket, key = split_uri(uri)
    patiently(ctx, cancelled, f"upload to {uri}", lambda: _put_file(ctx, bucket, key, path))


def put_bytes(ctx: Context, uri: str, body: bytes, content_type: str, cancelled: threading.Event | None = None) -> None:
    """Store bytes.

    Raises:
        DataError: `uri` is no S3 URI, or S3 refuses the bytes.
        OutageError: S3 did not answer for as long as the service waits.
        Cancelled: `cancelled` was set.
    """
    bucket, key = split_uri(uri)

    def call() -> Any:
        return ctx.clients.get("s3").put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    patiently(ctx, cancelled, f"upload to {uri}", call)


def get_bytes(ctx: Context, uri: str, cancelled: threading.Event | None = None) -> bytes:
    """An object's bytes.

    Raises:
        DataError: `uri` is no S3 URI, or S3 refuses the object.
        OutageError: S3 did not answer for as long as the service waits.
        Cancelled: `cancelled` was set.
    """
    bucket, key = split_uri(uri)

    def call() -> bytes:
        body: bytes = ctx.clients.get("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    return patiently(ctx, cancelled, f"download {uri}", call)


def upload_tree(ctx: Context, uri: str, root: Path, cancelled: threading.Event | None = None) -> int:
    """Store every file below `root` under `uri`, several at once, and return how many there were."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    _in_parallel(lambda path: upload(ctx, join_uri(uri, path.relative_to(root).as_posix()), path, cancelled), files)
    return len(files)


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
