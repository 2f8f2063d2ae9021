"""Captured records on their way to S3: on disk before the caller has its answer, delivered soon after.

Each file has its S3 key from the start, in a `.json` beside it. A service that is killed finds both at its next start
and delivers them; a file that was delivered but not yet removed is delivered again under the same key, so each record
is in S3 once.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sagemaker_local.serving.capture import CaptureSettings, object_key

log = logging.getLogger(__name__)
_RETRY_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_DELIVERIES_AT_ONCE = 4


@dataclass(frozen=True)
class Destination:
    """Where a capture file goes."""

    endpoint: str
    bucket: str
    key: str
    kms_key_id: str | None = None


Deliver = Callable[[Destination, Path], None]
"""Puts a file into S3; runs in a worker thread. Raises whatever went wrong; the file is tried again later."""


class _OpenFile:
    """A capture file being filled. What is written outlives this process: the kernel has it."""

    def __init__(self, path: Path, destination: Destination) -> None:
        self.path = path
        self.destination = destination
        self.size = 0
        self.timer: asyncio.TimerHandle | None = None
        self._file = path.open("ab", buffering=0)

    def append(self, line: bytes) -> None:
        """Write the line, or nothing of it.

        Raises:
            OSError: the disk does not take the whole line.
        """
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, "no room for the whole record")
        except OSError:
            self._file.truncate(self.size)
            raise
        self.size += len(line)

    def close(self) -> None:
        self._file.close()


class CaptureSpool:
    """The capture files of all endpoints. Not thread-safe: used on the event loop that `start` ran on.

    Args:
        folder: where the files wait; made if absent.
        deliver: puts one file into S3.
        flush_age: seconds after which an open file is closed and delivered.
        flush_bytes: size from which it is.
        now: the time that names files, in UTC.
    """

    def __init__(
        self,
        folder: Path,
        deliver: Deliver,
        *,
        flush_age: float,
        flush_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = folder
        self._deliver = deliver
        self._flush_age = flush_age
        self._flush_bytes = flush_bytes
        self._now = now
        self._open: dict[tuple[str, str, CaptureSettings], _OpenFile] = {}
        self._deliveries: dict[Path, tuple[Destination, asyncio.Task[None]]] = {}
        self._slots = asyncio.Semaphore(_DELIVERIES_AT_ONCE)
        self.lost_records = 0

    def start(self) -> None:
        """Deliver what an earlier service left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for described in sorted(self._folder.glob("*.json")):
            path = described.with_suffix(".jsonl")
            if not path.exists() or not _cut_torn_line(path):
                path.unlink(missing_ok=True)
                described.unlink()
                continue
            self._schedule(path, Destination(**json.loads(described.read_text())))

    def append(self, endpoint: str, variant: str, settings: CaptureSettings, line: bytes) -> None:
        """Keep one record. A disk that takes no more loses the record, never the invocation: it is logged."""
        try:
            file = self._open.get((endpoint, variant, settings)) or self._create(endpoint, variant, settings)
            file.append(line)
        except OSError:
            self.lost_records += 1
            if self.lost_records & (self.lost_records - 1) == 0:  # 1, 2, 4, 8, ...: a full disk fills no log
                log.exception("%d captured records could not be kept on disk", self.lost_records)
            return
        if file.size >= self._flush_bytes:
            self._seal((endpoint, variant, settings))

    async def flush(self, endpoint: str | None = None, timeout: float = 10.0) -> bool:
        """Deliver what is held (of one endpoint) now; False when some of it is still here after `timeout` seconds."""
        for key in [key for key in self._open if endpoint in (None, key[0])]:
            self._seal(key)
        tasks = {task for to, task in self._deliveries.values() if endpoint in (None, to.endpoint)}
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=timeout)
        return not late

    async def stop(self, timeout: float = 10.0) -> None:
        """Flush; what S3 does not take stays on disk for the next start."""
        if not await self.flush(timeout=timeout):
            log.warning("%d capture files stay in %s until the next start", len(self._deliveries), self._folder)
        tasks = [task for _, task in self._deliveries.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _create(self, endpoint: str, variant: str, settings: CaptureSettings) -> _OpenFile:
        file_id = str(uuid.uuid4())
        key = object_key(settings, endpoint, variant, self._now(), file_id)
        destination = Destination(endpoint, settings.bucket, key, settings.kms_key_id)
        described = self._folder / f"{file_id}.json"
        described.write_text(json.dumps(destination.__dict__))
        file = _OpenFile(self._folder / f"{file_id}.jsonl", destination)
        place = (endpoint, variant, settings)
        self._open[place] = file
        file.timer = asyncio.get_running_loop().call_later(self._flush_age, self._seal, place)
        return file

    def _seal(self, place: tuple[str, str, CaptureSettings]) -> None:
        file = self._open.pop(place)
        if file.timer is not None:
            file.timer.cancel()
        file.close()
        if file.size:
            self._schedule(file.path, file.destination)
        else:
            _remove(file.path)

    def _schedule(self, path: Path, destination: Destination) -> None:
        task = asyncio.get_running_loop().create_task(self._send(path, destination), name=f"deliver {path.name}")
        self._deliveries[path] = (destination, task)
        task.add_done_callback(lambda _: self._deliveries.pop(path, None))

    async def _send(self, path: Path, destination: Destination) -> None:
        tries = 0
        while True:
            try:
                async with self._slots:
                    await asyncio.to_thread(self._deliver, destination, path)
                break
            except Exception as error:  # noqa: BLE001  whatever S3 says, the records stay until it takes them
                pause = _RETRY_PAUSES[min(tries, len(_RETRY_PAUSES) - 1)]
                tries += 1
                log.warning(
                    "s3://%s/%s not delivered (%s); again in %g s", destination.bucket, destination.key, error, pause
                )
                await asyncio.sleep(pause)
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)  # first the data: a description without data is nothing to deliver
    path.with_suffix(".json").unlink(missing_ok=True)


def _cut_torn_line(path: Path) -> bool:
    """Cut off a last line that a kill tore, whose caller has no answer. False when nothing is left."""
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
    return whole > 0
