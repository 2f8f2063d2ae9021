"""One instance of a production variant: a model server process, kept healthy.

The container contract: the image's `serve` command, the model unpacked under /opt/ml/model (here SM_ML_ROOT/model),
GET /ping answers 200 when ready, POST /invocations answers, on the port SAGEMAKER_BIND_TO_PORT.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagemaker_local.container import Container
from sagemaker_local.images import Command
from sagemaker_local.processes import Processes
from sagemaker_local.serving.model_client import ExchangeError, ModelClient, Response
from sagemaker_local.serving.settings import ServingSettings

log = logging.getLogger(__name__)
_RESTART_PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_FIRST_PING_PAUSE, _LONGEST_PING_PAUSE = 0.02, 0.25
LOG_FILE = "container.log"
_CHECK_LOGS = "Please check CloudWatch logs for this endpoint."


class StartError(Exception):
    """The model server did not become healthy; the message says why, as a FailureReason does."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True)
class ServerSpec:
    """What a model server is.

    Attributes:
        variant: the variant's name, for messages.
        root: the directory that stands for /opt/ml; its name is the instance's.
        command: the image's serve command.
        environment: what the process gets on top of the service's environment; root and port are added.
        startup_timeout: seconds until /ping must have answered 200.
        max_answer: bytes that an answer may have.
    """

    variant: str
    root: Path
    command: Command
    environment: Mapping[str, str]
    startup_timeout: float
    max_answer: int

    @property
    def log(self) -> Path:
        """The file its output goes to."""
        return self.root / LOG_FILE


class ModelServer:
    """A model server process: started, watched, restarted when it exits or hangs, stopped.

    `on_health` is called whenever `healthy` changes.
    """

    def __init__(
        self, spec: ServerSpec, processes: Processes, settings: ServingSettings, on_health: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.instance_id = spec.root.name
        self._who = f"The primary container for production variant {spec.variant}"
        self.outstanding = 0
        self.healthy = False
        self._processes = processes
        self._settings = settings
        self._on_health = on_health
        self._client: ModelClient | None = None
        self._container: Container | None = None
        self._exited: asyncio.Future[int] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._check: asyncio.Task[None] | None = None
        self._broken_client: ModelClient | None = None
        self._load_when_broken = 0
        self._failed_starts = 0  # in a row

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._container.pid if self._container else None

    def start(self, *, revive: bool = False) -> asyncio.Future[None]:
        """Start the process and keep it running; gives a future of its first good health check.

        The future raises StartError when the process cannot be started, exits too often or answers no ping in
        time. With `revive` (an endpoint that was InService comes back) each of these is tried `revival_attempts` times.
        """
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._keeper = loop.create_task(self._keep(revive=revive), name=f"keep {self.instance_id}")
        self._keeper.add_done_callback(self._keeper_ended)
        return self._first

    async def invoke(self, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout: float) -> Response:
        """POST /invocations.

        Raises:
            ExchangeError: the server is not running, refuses the connection, breaks off, or answers something that is
                not HTTP; then `failed_alone` says more.
            ExchangeTimeoutError: there is no complete answer in time.
            ResponseTooLargeError: the answer's body is longer than the spec's `max_answer`.
        """
        client = self._client
        if client is None:
            raise ExchangeError("the model server is not running", sent=False)
        self.outstanding += 1
        try:
            return await client.request(b"POST", b"/invocations", headers, body, timeout)
        except ExchangeError:
            if self._broken_client is not client:
                self._broken_client, self._load_when_broken = client, self.outstanding
            raise
        finally:
            self.outstanding -= 1
            if self.outstanding == 0:
                self._idle.set()

    async def drained(self, timeout: float) -> None:
        """Return when no invocation is under way, or after `timeout` seconds."""
        if self.outstanding:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout)

    @property
    def failed_alone(self) -> bool:
        """Whether the server's last failure met a single invocation, which then is what broke it."""
        return self._load_when_broken <= 1

    @property
    def keeps_failing(self) -> bool:
        """Whether it failed to start so often in a row that an invocation need not wait for it."""
        return self._failed_starts >= self._settings.startup_attempts

    async def exits_within(self, seconds: float) -> bool:
        """Whether the process is gone, or goes within this time."""
        if self._exited is None:
            return True
        await asyncio.wait({self._exited}, timeout=seconds)
        return self._exited is None or self._exited.done()

    def suspect(self) -> None:
        """An invocation got no answer in time: see whether the server hangs, unless that is being looked at."""
        if self._check is None or self._check.done():
            self._check = asyncio.get_running_loop().create_task(self._restart_if_hung())

    async def _restart_if_hung(self) -> None:
        """Kill the process if it does not answer /ping either; its keeper starts another."""
        container = self._container
        if not await self._ping(self._settings.ping_timeout) and container and container is self._container:
            self._note("The model server answers neither its invocation nor /ping: it is restarted.")
            self._set_healthy(False)
            await asyncio.to_thread(container.signal, signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, the grace time, SIGKILL; returns when the process is gone."""
        self._set_healthy(False)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._end_process()
        if self._first is not None and not self._first.done():
            self._first.set_exception(StartError("The model server was stopped before it became healthy."))
            self._first.exception()  # nobody may be waiting any more

    # -- the keeper

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """A defect in the keeper must reach whoever waits for the first health check."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            log.error("the keeper of %s ended", self.instance_id, exc_info=error)
            if self._first is not None and not self._first.done():
                self._first.set_exception(error)

    async def _keep(self, *, revive: bool) -> None:
        assert self._first is not None
        attempts = self._settings.revival_attempts if revive else self._settings.startup_attempts
        while True:
            try:
                await self._launch()
                await self._become_healthy()
            except StartError as error:
                await self._end_process()
                self._note(str(error))
                self._failed_starts += 1
                if not self._first.done() and (self._failed_starts >= attempts or (error.final and not revive)):
                    self._first.set_exception(error)
                    return
            else:
                self._failed_starts = 0
                self._set_healthy(True)
                if not self._first.done():
                    self._first.set_result(None)
                reason = await self._watch()
                self._set_healthy(False)
                await self._end_process()
                self._note(reason)
                log.warning("%s of variant %s: %s", self.instance_id, self.spec.variant, reason)
            await asyncio.sleep(_RESTART_PAUSES[min(self._failed_starts, len(_RESTART_PAUSES) - 1)])

    async def _launch(self) -> None:
        loop = asyncio.get_running_loop()
        port = self._processes.port(self.spec.command)
        own = {"SM_ML_ROOT": str(self.spec.root), "SAGEMAKER_BIND_TO_PORT": str(port)}
        try:
            container = await self._spawn({**self.spec.environment, **own})
        except OSError as error:
            raise StartError(
                f"{self._who} cannot be started: {error}.",
                final=True,
            ) from error
        self._container = container
        self._exited = exited = loop.create_future()

        def report(code: int) -> None:
            if not exited.done():
                exited.set_result(code)
            if self._exited is exited:
                self._set_healthy(False)

        def wait() -> None:
            code = container.wait()
            assert code is not None
            with contextlib.suppress(RuntimeError):  # the loop ended first
                loop.call_soon_threadsafe(report, code)

        threading.Thread(target=wait, name=f"wait {self.instance_id}", daemon=True).start()
        self._client = ModelClient(
            port,
            max_connections=self._settings.connections_per_instance,
            max_body=self.spec.max_answer,
            connect=container.connect if container.is_apart else None,
        )

    async def _spawn(self, environment: dict[str, str]) -> Container:
        """Start the process in a thread: a fork would hold up every invocation.

        Raises:
            OSError: it cannot be started.
        """
        start, root = self._processes.start, self.spec.root
        starting = asyncio.ensure_future(
            asyncio.to_thread(start, self.spec.command, env=environment, root=root, log=self.spec.log)
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            (await starting).kill()  # stopped meanwhile: nobody else knows of it
            raise

    async def _become_healthy(self) -> None:
        """Ping ever less often until the first 200."""
        loop, exited = asyncio.get_running_loop(), self._exited
        assert exited is not None
        deadline, pause = loop.time() + self.spec.startup_timeout, _FIRST_PING_PAUSE
        while True:
            left = deadline - loop.time()
            if left > 0 and await self._ping(min(left, self._settings.ping_timeout)):
                return
            if exited.done():
                raise StartError(
                    f"{self._who} ended with {_exit(exited.result())} "
                    f"before it passed the ping health check. {_CHECK_LOGS}"
                )
            if left <= 0:
                raise StartError(
                    f"{self._who} did not pass the ping health check. " + _CHECK_LOGS,
                    final=True,
                )
            await asyncio.wait({exited}, timeout=pause)
            pause = min(pause * 1.5, _LONGEST_PING_PAUSE)

    async def _watch(self) -> str:
        """Wait until the process exits, or has answered no ping for longer than an invocation may keep it busy."""
        loop, exited = asyncio.get_running_loop(), self._exited
        assert exited is not None
        patience = self._settings.invocation_timeout + 2 * self._settings.ping_timeout
        last_good = loop.time()
        while True:
            await asyncio.wait({exited}, timeout=self._settings.ping_interval)
            if exited.done():
                return f"The model server ended with {_exit(exited.result())}: it is restarted."
            if await self._ping(self._settings.ping_timeout):
                last_good = loop.time()
            elif loop.time() - last_good > patience and not exited.done():
                return "The model server stopped answering /ping: it is restarted."

    async def _ping(self, timeout: float) -> bool:
        """One health check on a connection of its own: the pool may be full of invocations."""
        if self._client is None:
            return False
        client = ModelClient(self._client.port, max_connections=1, connect=self._client.connect)
        try:
            response = await client.request(b"GET", b"/ping", (), b"", timeout)
        except ExchangeError:
            return False
        finally:
            client.close()
        return response.status == 200

    async def _end_process(self) -> None:
        container, self._container = self._container, None
        exited, self._exited = self._exited, None
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if container is None or exited is None:
            return
        try:
            if not exited.done():
                await asyncio.to_thread(container.signal, signal.SIGTERM)
                await asyncio.wait({exited}, timeout=self._settings.stop_grace)
        finally:  # also where the keeper is cancelled meanwhile: nobody else knows of the process any more
            await asyncio.to_thread(container.kill)  # also what the server left behind in its group
            await asyncio.wait({exited})

    def _set_healthy(self, healthy: bool) -> None:
        if healthy != self.healthy:
            self.healthy = healthy
            self._on_health()

    def _note(self, message: str) -> None:
        """Say it where the container's own output is, so that the CloudWatch log tells the whole story."""
        with contextlib.suppress(OSError), self.spec.log.open("a") as file:
            file.write(message + "\n")


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
