"""Container output to CloudWatch Logs while it runs, in the groups and streams SageMaker uses.

The log file is the buffer: what CloudWatch Logs has not taken yet stays in it, with the place reached in a file beside
it, so an outage or a killed service loses no line.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.context import Context

log = logging.getLogger(__name__)

TRAINING_GROUP = "/aws/sagemaker/TrainingJobs"
PROCESSING_GROUP = "/aws/sagemaker/ProcessingJobs"
TRANSFORM_GROUP = "/aws/sagemaker/TransformJobs"

_CHUNK = 512 * 1024  # a PutLogEvents batch may hold 1 MiB, counting 26 bytes for each event
_MAX_EVENTS = 5000
_MAX_LINE = 200_000
_PERIOD = 0.4

LineListener = Callable[[str, float], None]


class LogShipper:
    """Follows one log file into one log stream, in a thread of its own, until `finish`.

    `on_line(line, seconds)` is called for every complete line as it is read, whether CloudWatch Logs answers or not.
    """

    def __init__(self, ctx: Context, group: str, stream: str, path: Path, on_line: LineListener | None = None) -> None:
        self._ctx = ctx
        self._group = group
        self._stream = stream
        self._path = path
        self._offset_path = path.with_name(path.name + ".offset")
        self._on_line = on_line
        self._offset = _read_offset(self._offset_path)
        self._seen = self._offset  # how far on_line has been told; ahead of _offset while CloudWatch Logs is away
        self._ready = False
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"log-{stream}", daemon=True)

    def start(self) -> LogShipper:
        """Begin to follow; the file need not exist yet."""
        self._thread.start()
        return self

    def finish(self, timeout: float = 10.0) -> bool:
        """Ship what is left, the last line even without its newline. False when that took longer than `timeout`."""
        self._finishing.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _follow(self) -> None:
        attempts_left = 5
        while True:
            last = self._finishing.is_set()
            try:
                while self._ship_once(last):
                    pass
                if last:
                    self._make_stream()  # also of a container that printed nothing
                    return
            except (BotoCoreError, ClientError, OSError) as error:
                log.warning("logs of %s wait: %s", self._stream, error)
                self._ready = False  # an emulator that was restarted has forgotten group and stream
                if last:
                    attempts_left -= 1
                    if attempts_left == 0:
                        return
            self._finishing.wait(_PERIOD)
            if last:
                threading.Event().wait(_PERIOD)

    def _ship_once(self, last: bool) -> bool:
        if not self._path.exists():
            return False
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            chunk = handle.read(_CHUNK)
        complete = chunk if last and len(chunk) < _CHUNK else chunk[: chunk.rfind(b"\n") + 1]
        if not complete and len(chunk) == _CHUNK:
            complete = chunk  # one line longer than a batch: ship it in pieces
        raw = complete.splitlines(keepends=True)[:_MAX_EVENTS]
        if not raw:
            return False
        now = self._ctx.now()
        lines = [line.decode("utf-8", "replace").rstrip("\r\n") for line in raw]
        self._tell(raw, lines, now)
        self._put(lines, now)
        self._offset += sum(len(line) for line in raw)
        self._offset_path.write_text(str(self._offset))
        return True

    def _tell(self, raw: list[bytes], lines: list[str], now: float) -> None:
        position = self._offset
        for piece, line in zip(raw, lines, strict=True):
            position += len(piece)
            if position > self._seen:
                self._seen = position
                if self._on_line is not None:
                    self._on_line(line, now)

    def _make_stream(self) -> Any:
        """CloudWatch Logs' client, once the group and the stream are there."""
        client = self._ctx.clients.get("logs")
        if not self._ready:
            for create, names in (
                (client.create_log_group, {"logGroupName": self._group}),
                (client.create_log_stream, {"logGroupName": self._group, "logStreamName": self._stream}),
            ):
                try:
                    create(**names)
                except client.exceptions.ResourceAlreadyExistsException:
                    continue
            self._ready = True
        return client

    def _put(self, lines: list[str], now: float) -> None:
        client = self._make_stream()
        stamp = int(now * 1000)
        # CloudWatch Logs takes no empty message, and a progress bar's carriage returns make one line of many.
        events = [{"timestamp": stamp, "message": line[:_MAX_LINE]} for line in lines if line.strip()]
        if events:
            client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events)


def _read_offset(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
