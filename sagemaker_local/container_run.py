"""What runs of every kind of job have in common: their row, their container, how they end."""

from __future__ import annotations

import signal
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

from sagemaker_local import s3
from sagemaker_local.container import Container
from sagemaker_local.context import Context
from sagemaker_local.errors import ServiceError
from sagemaker_local.folder_sync import FolderSync
from sagemaker_local.images import Command
from sagemaker_local.jobs import Control
from sagemaker_local.logs import LineListener, LogShipper
from sagemaker_local.mlroot import HOST, MlRoot
from sagemaker_local.store import Resource

POLL = 0.2

COMPLETED = "Completed"
STOPPED = "Stopped"
MAX_RUNTIME = "MaxRuntimeExceeded"


def exit_status(code: int) -> int:
    """An exit code as a container runtime reports it: 128 + signal for a killed process."""
    return code if code >= 0 else 128 - code


def signal_text(code: int) -> str:
    """What ended a process by a signal, in words; nothing for one that ended by itself."""
    if code >= 0:
        return ""
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"the container was ended by {name}{hint}"


class JobFailed(Exception):
    """The job ends as Failed with this reason."""


class ContainerRun(ABC):
    """One attempt at one job; made anew for every attempt. `run` returns when the job is final."""

    kind: ClassVar[str]
    folder: ClassVar[str]

    def __init__(self, ctx: Context, name: str, control: Control) -> None:
        self.ctx = ctx
        self.name = name
        self.control = control
        job = ctx.store.get(self.kind, name)
        if job is None:
            raise KeyError(name)
        self.job = job
        self.directory: Path = ctx.config.data_dir / self.folder / name
        self.root = MlRoot(self.directory / "ml")
        self.container: Container | None = None
        self.syncs: list[FolderSync] = []  # folders sent to S3 while the container runs

    @abstractmethod
    def steps(self) -> str:
        """Do the job and return COMPLETED, STOPPED or MAX_RUNTIME.

        Raises:
            JobFailed: the job ends as Failed; the message is the reason.
            jobs.Abandoned: the service goes down.
            s3.Cancelled: the job was stopped.
            s3.DataError: its data cannot be had or stored.
            s3.OutageError: S3 did not answer for as long as the service waits.
            ServiceError: what the job refers to cannot be had.
        """

    @abstractmethod
    def finish(self, outcome: str, reason: str) -> None:
        """Write the final state; `reason` is empty unless the outcome is Failed."""

    def run(self) -> None:
        """Do the job, whatever is left of it.

        Raises:
            jobs.Abandoned: the service goes down; the job's row then stays as it is.
        """
        reason = ""
        try:
            outcome = self.steps()
        except s3.Cancelled:
            outcome = STOPPED
        except JobFailed as error:
            outcome, reason = "Failed", str(error)
        except s3.DataError as error:
            outcome, reason = "Failed", f"ClientError: {error}"
        except ServiceError as error:  # what was there when the job was made may be gone, as its model or its image
            fault = "ClientError" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "InternalServerError"
            outcome, reason = "Failed", f"{fault}: {error}"
        except s3.OutageError as error:
            outcome, reason = "Failed", f"InternalServerError: {error}. Please try again."
        except (OSError, sqlite3.Error) as error:
            outcome, reason = "Failed", f"InternalServerError: {error}"
        finally:
            self.kill_container()
            for sync in self.syncs:
                sync.abandon()
        self.control.check_abandoned()
        if outcome == "Failed":
            self.root.remove()  # first: on a full disk the failure itself could not be stored otherwise
        self.finish(outcome, reason[:1024])
        self.root.remove()

    def begin_attempt(self, on_restart: Callable[[Resource], None] | None = None, retries: int | None = None) -> None:
        """Count the attempt.

        Raises:
            JobFailed: the service was interrupted too often during this job.
        """
        attempt = self.job.internal.get("attempt", 0) + 1
        allowed = self.ctx.config.max_restarts if retries is None else retries
        if attempt > 1 + allowed:
            raise JobFailed(f"InternalServerError: the job was interrupted {attempt - 1} times. Please try again.")

        def begin(job: Resource) -> None:
            job.internal["attempt"] = attempt
            if attempt > 1 and on_restart is not None:
                on_restart(job)

        self.save(begin)

    def note_start(self, job: Resource, word: str) -> None:
        """Note in the row, once, when the job started and where its log goes."""
        now = self.ctx.now()
        job.body.setdefault(f"{word}StartTime", now)
        job.internal.setdefault("log_stream", f"{self.name}/{HOST}-{int(now)}")

    def enter(self, change: Callable[[Resource], None]) -> None:
        """Begin a step and note it in the row, unless the job is to end first."""
        self.control.check_abandoned()
        if self.control.cancelled.is_set():
            raise s3.Cancelled
        self.save(change)

    def save(self, change: Callable[[Resource], None]) -> None:
        """Change the job's row."""
        job = self.ctx.store.update(self.kind, self.name, change)
        if job is None:
            raise s3.Cancelled
        self.job = job

    def spawn(self, command: Command, environment: dict[str, str]) -> Container:
        """Start the job's container.

        Raises:
            JobFailed: it cannot be started; the message says why.
        """
        command = self.root.translate(command)
        try:
            self.container = self.ctx.processes.start(
                command, env=environment, root=self.root.path, log=self.directory / "log"
            )
        except OSError as error:
            words = list(command.words)
            raise JobFailed(f"AlgorithmError: the container command {words} could not be started: {error}") from error
        return self.container

    @contextmanager
    def logged(self, group: str, on_line: LineListener | None = None) -> Iterator[None]:
        """Ship the container's output while the block runs; at its end the container ends too."""
        log = self.directory / "log"
        shipper = LogShipper(self.ctx, group, self.job.internal["log_stream"], log, on_line).start()
        try:
            yield
        finally:
            self.kill_container()
            self.control.check_abandoned()
            shipper.finish()

    def check_exit(self, container: Container) -> None:
        """Raise `JobFailed` with the container's own words, or with what is known, unless it ended well."""
        code = container.exit_code()
        if code:
            reason = self.root.failure()[:900] or signal_text(code)
            raise JobFailed(f"AlgorithmError: {reason}, exit code: {exit_status(code)}")

    def watch(self, container: Container, deadline: float, meanwhile: Callable[[], None] | None = None) -> str:
        """Wait for the container: COMPLETED when it ended by itself, STOPPED or MAX_RUNTIME when it was made to.

        `deadline` is in seconds since the epoch; `meanwhile` is called a few times a second.
        """
        while True:
            ended = container.wait(POLL) is not None
            self.control.check_abandoned()
            if self.control.cancelled.is_set():
                self.end_container(container)
                return STOPPED
            if ended:
                return COMPLETED
            if self.ctx.now() > deadline:
                self.end_container(container)
                return MAX_RUNTIME
            if meanwhile is not None:
                meanwhile()

    def end_container(self, container: Container) -> None:
        """SIGTERM, the grace in which a container saves its work, SIGKILL."""
        container.signal(signal.SIGTERM)
        limit = time.monotonic() + self.ctx.config.stop_grace_seconds
        while container.wait(POLL) is None and time.monotonic() < limit:
            self.control.check_abandoned()
        if container.exit_code() is None:
            container.kill()

    def kill_container(self) -> None:
        """End the container at once, if it still runs, and whatever it left in its process group."""
        if self.container is not None:
            self.container.kill()
