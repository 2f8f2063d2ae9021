"""An execution environment of a Python function: one process, one invocation at a time, warm in between."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedded.functions.code import BOOTSTRAP, Unpacked
from embedded.functions.pythons import Python
from sagemaker_local.box import Box

INIT_SECONDS = 10.0  # Lambda's: a start that takes longer goes on at the invocation's expense
RESPONSE_LIMIT = 6_291_556  # bytes, Lambda's
LOG_LIMIT = 4 * 2**20  # bytes kept of what one invocation prints

_LENGTHS = struct.Struct(">II")
_MEMORY_UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, per MB


class Failure(Exception):
    """An invocation without an answer of the handler's: Lambda's error type and message, or what the runtime said."""

    def __init__(self, error_type: str, message: str, said: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.error_type, self._said = error_type, said

    def told(self, request_id: str) -> dict[str, Any]:
        """The payload the caller gets."""
        if self._said is not None:
            return self._said | {"requestId": request_id}
        return {"errorType": self.error_type, "errorMessage": f"RequestId: {request_id} Error: {self}"}


@dataclass(frozen=True)
class Invocation:
    """What comes with an event (JSON text); `variables` are environment variables for this invocation alone."""

    event: bytes
    request_id: str
    arn: str
    trace: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Answer:
    """A payload (JSON text unless `raw`), and the log lines, Lambda's own around the handler's."""

    payload: bytes
    raw: bool = False
    failed: bool = False
    log: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Platform:
    """What all environments share, and what they ask MiniStack for.

    `packages` is a folder of `code.lambda_packages`, `linked` where its links lead.
    """

    packages: Path
    linked: Sequence[Path]
    unpacked: Unpacked
    python: Callable[[str], Python | None]
    layers: Callable[[dict[str, Any]], Sequence[bytes]]
    variables: Callable[[dict[str, Any]], dict[str, str]]
    box: Box | None = None


class Environment:
    """Takes the place of MiniStack's `Worker`, which pools, leases, reaps and kills it.

    Args:
        config: the function's configuration, as GetFunctionConfiguration gives it.
        code_zip: its deployment package.
    """

    def __init__(self, platform: Platform, config: dict[str, Any], code_zip: bytes) -> None:
        self.config, self.code_zip = config, code_zip
        self.in_use, self.last_used = False, time.time()
        self.log_stream = ""
        self._platform = platform
        self._lock = threading.Lock()
        self._proc: subprocess.Popen[bytes] | None = None
        self._cold = True
        self._folders: list[Path] = []  # of what is unpacked: its code, its layers
        self._own: Path | None = None
        self._connection: socket.socket | None = None
        self._output = -1  # a pipe's end: what the function writes to stdout and stderr
        self._poller = select.poll()
        self._received, self._log = bytearray(), bytearray()

    def invoke(self, invocation: Invocation) -> Answer:
        """Run the handler, in a process started for it if need be."""
        with self._lock:
            timeout = float(self.config.get("Timeout", 3))
            began = time.monotonic()
            initialised = None
            header: dict[str, Any] = {}
            try:
                if self._proc is None or self._proc.poll() is not None:
                    self._start(began + INIT_SECONDS + timeout)
                    initialised = time.monotonic() - began
                    began += min(initialised, INIT_SECONDS)
                self._send(invocation, timeout)
                header, payload = self._receive(began + timeout)
                answer = _answer(header, payload)
            except Failure as failure:
                self._end()
                answer = Answer(json.dumps(failure.told(invocation.request_id)).encode(), failed=True)
                self._log += f"RequestId: {invocation.request_id} Error: {failure}\n".encode()
            answer.log = self._lines(invocation.request_id, time.monotonic() - began, initialised, header.get("memory"))
            return answer

    def _spawn(self) -> None:
        """Start ahead of the first invocation, as MiniStack asks for SnapStart.

        Raises:
            Failure: it does not come to take events.
        """
        self._start(time.monotonic() + INIT_SECONDS + float(self.config.get("Timeout", 3)))

    def kill(self) -> None:
        """End it at once."""
        self._end()
        self._discard_tmpdir()

    def _discard_tmpdir(self) -> None:
        """Let go of what a dead process had: its pipes, its code, its /tmp."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            os.close(self._output)
        while self._folders:
            self._platform.unpacked.release(self._folders.pop())
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None

    # -- the process

    def _start(self, deadline: float) -> None:
        """Start the process and wait until it takes events.

        Raises:
            Failure: it ends before that, or takes too long.
        """
        self._discard_tmpdir()
        runtime = self.config.get("Runtime", "")
        python = self._platform.python(runtime)
        if python is None:
            raise Failure("Runtime.InvalidRuntime", f"{runtime} is not installed on this machine")
        try:
            for archives in ([self.code_zip], self._platform.layers(self.config)):
                self._folders.append(self._platform.unpacked.take(archives))
        except zipfile.BadZipFile as error:
            raise Failure("InvalidZipFileException", f"Lambda could not unzip the function's code: {error}") from error
        code, layers = self._folders
        own = self._own = Path(tempfile.mkdtemp(prefix="environment-"))
        version = self.config.get("Version", "$LATEST")
        self.log_stream = f"{datetime.now(UTC):%Y/%m/%d}/[{version}]{os.urandom(16).hex()}"
        command, places = self._placed(python, code, layers, own)
        variables = self._platform.variables(self.config) | {"AWS_LAMBDA_LOG_STREAM_NAME": self.log_stream} | places
        self._connection, theirs = socket.socketpair()
        self._output, writing = os.pipe()
        os.set_blocking(self._output, False)
        try:
            self._proc = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=writing,
                stderr=writing,
                cwd=code,
                env=variables,
            )
        except OSError as error:
            raise Failure("Runtime.InvalidEntrypoint", f"{python.executable} could not be started: {error}") from error
        finally:
            theirs.close()
            os.close(writing)
        self._poller = select.poll()
        self._poller.register(self._connection, select.POLLIN)
        self._poller.register(self._output, select.POLLIN)
        self._received.clear()
        header, payload = self._receive(deadline)
        if header["kind"] != "ready":
            said = json.loads(payload)
            raise Failure(said["errorType"], said["errorMessage"], said)
        self._cold = False

    def _placed(self, python: Python, code: Path, layers: Path, own: Path) -> tuple[list[str], dict[str, str]]:
        """The command, and the variables that say where things are: in a box, where they are on AWS."""
        packages, box = self._platform.packages, self._platform.box
        task, runtime, opt = "/var/task", "/var/runtime", "/opt"
        if box is None:
            task, runtime, opt = str(code), str(packages), str(layers)
        command = [str(python.executable), "-I", "-S", "-X", "utf8", f"{runtime}/{BOOTSTRAP.name}"]
        places = {"LAMBDA_TASK_ROOT": task, "LAMBDA_RUNTIME_DIR": runtime, "LAMBDA_LAYERS_ROOT": opt}
        if box is None:
            return command, places | {"TMPDIR": str(own)}
        readable = {task: code, runtime: packages, opt: layers, str(python.prefix): python.prefix}
        readable |= {str(path): path for path in self._platform.linked}
        tmp = {"/tmp": own}  # noqa: S108 - the place in the box
        return box.command(command, cwd=task, readable=readable, writable=tmp), places

    def _end(self) -> None:
        proc, self._proc = self._proc, None
        if proc is not None:
            proc.kill()
            proc.wait()

    # -- messages

    def _send(self, invocation: Invocation, timeout: float) -> None:
        assert self._connection is not None
        header = json.dumps(
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": int((time.time() + timeout) * 1000),
                "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
                "Lambda-Runtime-Trace-Id": invocation.trace,
                "Content-Type": "application/json",
                "variables": dict(invocation.variables),
            }
        ).encode()
        lengths = _LENGTHS.pack(len(header), len(invocation.event))
        with contextlib.suppress(OSError):  # it has died: `_receive` tells how
            self._connection.sendall(lengths + header + invocation.event)

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        """The next message, while the output is read too, so that no full pipe holds up the function.

        Raises:
            Failure: the process ends, or the deadline (of the monotonic clock) passes first.
        """
        assert self._connection is not None
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failure("Sandbox.Timedout", f"Task timed out after {self.config.get('Timeout', 3):.2f} seconds")
            for descriptor, _ in self._poller.poll(1000 * left):
                if descriptor == self._output:
                    if not self._read_output():
                        self._poller.unregister(self._output)
                    continue
                try:
                    data = self._connection.recv(2**18)
                except OSError:
                    data = b""
                if not data:
                    self._read_output()
                    raise Failure("Runtime.ExitError", self._exit_message())
                self._received += data
                if (message := self._message()) is not None:
                    self._read_output()
                    return message

    def _message(self) -> tuple[dict[str, Any], bytes] | None:
        if len(self._received) < _LENGTHS.size:
            return None
        header, body = _LENGTHS.unpack_from(self._received)
        start, end = _LENGTHS.size + header, _LENGTHS.size + header + body
        if len(self._received) < end:
            return None
        message = json.loads(self._received[_LENGTHS.size : start]), bytes(self._received[start:end])
        del self._received[:end]
        return message

    def _read_output(self) -> bool:
        """Take what the function has written so far; False at its end."""
        while True:
            try:
                data = os.read(self._output, 2**16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._log += data
            del self._log[:-LOG_LIMIT]

    def _exit_message(self) -> str:
        assert self._proc is not None
        code = self._proc.wait()
        if code < 0:
            return f"Runtime exited with error: signal: {signal.strsignal(-code)}"
        return f"Runtime exited with error: exit status {code}" if code else "Runtime exited without providing a reason"

    # -- the log

    def _lines(self, request_id: str, seconds: float, initialised: float | None, memory: int | None) -> list[str]:
        written = self._log.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
        self._log.clear()
        size = self.config.get("MemorySize", 128)
        report = (
            f"REPORT RequestId: {request_id}\tDuration: {1000 * seconds:.2f} ms\t"
            f"Billed Duration: {int(1000 * seconds) + 1} ms\tMemory Size: {size} MB\t"
            f"Max Memory Used: {memory // _MEMORY_UNIT if memory else size} MB\t"
        )
        return [
            f"START RequestId: {request_id} Version: {self.config.get('Version', '$LATEST')}",
            *(line.replace("\r", "\n") for line in written if line),  # awslambdaric joins a traceback's lines by \r
            f"END RequestId: {request_id}",
            report + (f"Init Duration: {1000 * initialised:.2f} ms\t" if initialised is not None else ""),
        ]


def _answer(header: Mapping[str, Any], payload: bytes) -> Answer:
    """What Lambda makes of a message of the runtime."""
    if header["kind"] == "response" and len(payload) > RESPONSE_LIMIT:
        raise Failure(
            "Function.ResponseSizeTooLarge",
            f"Response payload size ({len(payload)} bytes) exceeded maximum allowed payload size "
            f"({RESPONSE_LIMIT} bytes).",
        )
    return Answer(payload, raw=header.get("type") == "application/unknown", failed=header["kind"] != "response")
