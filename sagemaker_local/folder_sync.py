"""A directory mirrored to S3 while a container writes to it: checkpoints, continuous outputs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from sagemaker_local import s3
from sagemaker_local.context import Context

log = logging.getLogger(__name__)

PERIOD = 2.0


class FolderSync:
    """Keeps an S3 prefix up to date with a directory that a container writes to."""

    def __init__(self, ctx: Context, uri: str, folder: Path) -> None:
        self._ctx = ctx
        self._uri = uri
        self._folder = folder
        self._sent: dict[Path, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"sync-{folder.name}", daemon=True)

    def restore(self, cancelled: threading.Event) -> None:
        """Fetch what is in S3 already; files that are here already (an interrupted run's) win."""
        self._folder.mkdir(parents=True, exist_ok=True)
        bucket, prefix = s3.split_uri(self._uri)
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        keys = s3.list_keys(self._ctx, bucket, prefix, cancelled)
        missing = {key: key[len(prefix) :] for key in keys if not (self._folder / key[len(prefix) :]).exists()}
        s3.download(self._ctx, bucket, missing, self._folder, cancelled)
        for path in self._files():
            if str(path.relative_to(self._folder)) in missing.values():
                self._sent[path] = _stamp(path)

    def start(self) -> None:
        """Begin to send changes."""
        self._thread.start()

    def finish(self) -> None:
        """Stop the thread and send what is left.

        Raises:
            s3.DataError: the prefix is no S3 URI, or S3 refuses a file.
            s3.OutageError: S3 did not answer for as long as the service waits.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._send_changes()

    def abandon(self) -> None:
        """Stop the thread and send nothing more."""
        self._ended.set()

    def _loop(self) -> None:
        while not self._ended.wait(PERIOD):
            try:
                self._send_changes()
            except (s3.DataError, s3.OutageError, OSError) as error:
                log.warning("%s is not in S3 yet: %s", self._folder, error)

    def _send_changes(self) -> None:
        for path in self._files():
            try:
                stamp = _stamp(path)
                if self._sent.get(path) == stamp:
                    continue
                s3.upload(self._ctx, s3.join_uri(self._uri, path.relative_to(self._folder).as_posix()), path)
            except FileNotFoundError:
                continue  # the container replaced or removed it meanwhile
            self._sent[path] = stamp

    def _files(self) -> list[Path]:
        return sorted(path for path in self._folder.rglob("*") if path.is_file())


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
