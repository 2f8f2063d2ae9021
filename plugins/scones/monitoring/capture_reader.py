"""Reads capture files in parallel with bounded memory.

Threads fetch files, child processes parse them and decode their images; each thread holds one group of files of a
few megabytes at a time, whatever the number of records. The children are plain subprocesses of this module, not
``multiprocessing``: inside an Airflow task that would import all of Airflow again in every child.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from scones.monitoring.capture_files import CaptureFile, split_blocks
from scones.monitoring.capture_summary import Block, CaptureSummary, ReadSettings, summarise

#: Fetches one file as chunks of bytes.
Fetch = Callable[[CaptureFile], Iterable[bytes]]
#: Files are handed on in groups of about this size, a larger file in pieces; each thread holds one.
GROUP_BYTES = 1 << 20
#: Below this, starting a process costs more than it saves.
IN_PROCESS_BYTES = 16 << 20


class CaptureReadError(RuntimeError):
    """A child process that parses captures ended unexpectedly; the message has its exit code."""


def read_capture(
    files: Sequence[CaptureFile], fetch: Fetch, settings: ReadSettings, *, workers: int | None = None
) -> CaptureSummary:
    """Read every record of every line of every file.

    Args:
        files: what to read; the order decides the order of the columns.
        fetch: gives the content of a file in chunks; called from several threads.
        settings: how to read.
        workers: child processes; None for as many as there are processors, at most 4, or none when there is
            little to read. 0 reads in this process.

    Returns:
        the summary over all files.

    Raises:
        CaptureReadError: when a child process died.
        Exception: whatever ``fetch`` raises.
    """
    if workers is None:
        small = sum(file.size for file in files) < IN_PROCESS_BYTES
        workers = 0 if small else min(4, os.cpu_count() or 1)
    total = CaptureSummary()
    with _Parsers(workers) as parsers:
        # More threads than parsers, so that a file is on its way while another is being parsed.
        threads = max(8, workers + 2)
        with ThreadPoolExecutor(threads, thread_name_prefix="capture") as executor:
            running: deque[Future[CaptureSummary]] = deque()
            for group in _groups(files):
                running.append(executor.submit(_read_group, group, fetch, parsers, settings))
                if len(running) > 2 * threads:
                    total.add(running.popleft().result(), settings.shown)
            while running:
                total.add(running.popleft().result(), settings.shown)
    return total


def _groups(files: Iterable[CaptureFile]) -> Iterator[list[CaptureFile]]:
    group: list[CaptureFile] = []
    size = 0
    for file in files:
        if group and size + file.size > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _read_group(group: list[CaptureFile], fetch: Fetch, parsers: _Parsers, settings: ReadSettings) -> CaptureSummary:
    total = CaptureSummary()
    pending: list[Block] = []
    size = 0
    for file in group:
        for first, data in split_blocks(fetch(file), GROUP_BYTES):
            pending.append((file.key, first, data))
            size += len(data)
            if size >= GROUP_BYTES:
                total.add(parsers.summarise(pending, settings), settings.shown)
                pending, size = [], 0
    if pending:
        total.add(parsers.summarise(pending, settings), settings.shown)
    total.files.update(file.key for file in group)
    return total


class _Parsers:
    """A pool of child processes, each used by one thread at a time; with 0 of them the calling thread parses."""

    def __init__(self, count: int) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._count = count

    def __enter__(self) -> _Parsers:
        package_root = str(Path(__file__).resolve().parents[2])
        # A parser uses one processor; threads of a BLAS would only get in the way of the others.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        for _ in range(self._count):
            child = subprocess.Popen(
                [sys.executable, "-m", "scones.monitoring.capture_reader"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            self._children.append(child)
            self._idle.put(child)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
        for child in self._children:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def summarise(self, blocks: list[Block], settings: ReadSettings) -> CaptureSummary:
        if not self._children:
            return summarise(blocks, settings)
        child = self._idle.get()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child.stdin, (blocks, settings))
            answer: CaptureSummary = _receive(child.stdout)
        except (BrokenPipeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise CaptureReadError(
                f"the process that parses captures ended with exit code {child.poll()}; out of memory?"
            ) from error
        finally:
            # Back even when it died, so that the other threads fail too instead of waiting for it.
            self._idle.put(child)
        return answer


def _send(pipe: IO[bytes], value: Any) -> None:
    pickle.dump(value, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    return pickle.load(pipe)  # noqa: S301 - from our own parent or child, over a private pipe


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    while True:
        try:
            blocks, settings = _receive(requests)
        except EOFError:
            return
        _send(answers, summarise(blocks, settings))


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
