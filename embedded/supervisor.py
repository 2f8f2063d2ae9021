"""Keeps the platform up: starts its processes in order, starts again what dies, ends all of them together."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from embedded import services
from embedded.airflow_api import AirflowApi
from embedded.processes import Service, ServiceError, end_leftovers, stop_all
from embedded.settings import PORT_FIELDS, EmbeddedSettings, SettingsError, with_usable_ports

STATE_FILE = "state.json"
WATCH_SECONDS = 0.5
STARTS_PER_MINUTE = 5


class AlreadyRunningError(RuntimeError):
    """Another supervisor holds this run folder."""


def read_state(settings: EmbeddedSettings) -> dict[str, Any] | None:
    """Return what the running supervisor wrote once all was ready, or None where none runs."""
    try:
        state: dict[str, Any] = json.loads((settings.run_dir / STATE_FILE).read_text())
    except (OSError, ValueError):
        return None
    return state if is_alive(state["pid"], state["created"]) else None


def is_alive(pid: int, created: float) -> bool:
    """Whether that very process still runs: a reused pid has another creation time."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    return False


def applied(settings: EmbeddedSettings, state: dict[str, Any]) -> EmbeddedSettings:
    """The settings with the ports the running platform really has."""
    return replace(settings, **state["ports"])


@contextlib.contextmanager
def _exclusive(run_dir: Path) -> Iterator[None]:
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(f"Another supervisor holds {run_dir}: `make down` ends it") from error
        yield


class Supervisor:
    """Runs in a process of its own until SIGTERM, or until its owner (a ``make run``) is gone."""

    def __init__(self, settings: EmbeddedSettings, owner: tuple[int, float] | None = None, move_ports: bool = False):
        self.settings = settings
        self.owner = owner
        self.move_ports = move_ports
        self.services: list[Service] = []
        self.stopping = False
        self._starts: dict[str, list[float]] = {}

    def run(self) -> None:
        """Start all, watch until told to stop, end all.

        Raises:
            AlreadyRunningError, SettingsError, ServiceError: nothing is left running then.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        with _exclusive(self.settings.run_dir):
            (self.settings.run_dir / STATE_FILE).unlink(missing_ok=True)
            ended = end_leftovers(self.settings.run_dir, spare=_own_family())
            if ended:
                _say(f"ended {ended} processes that an earlier run left behind")
            self.settings = with_usable_ports(self.settings, self.move_ports)
            try:
                self._start()
                self._write_state()
                _say("ready")
                while not self._should_stop():
                    self._restart_dead()
                    time.sleep(WATCH_SECONDS)
            except _StopRequested:
                pass
            finally:
                self.stopping = True
                _say("stopping")
                (self.settings.run_dir / STATE_FILE).unlink(missing_ok=True)
                stop_all(self.services)
                end_leftovers(self.settings.run_dir, spare=_own_family())
                _say("stopped")

    def _start(self) -> None:
        settings = self.settings
        started_at = datetime.now(UTC)
        ministack, sagemaker = services.ministack(settings), services.sagemaker_local(settings)
        services.write_passwords(settings)
        airflow = services.airflow(settings)
        self.services = [ministack, sagemaker, *airflow]
        with ThreadPoolExecutor(2) as pool:
            for service in (ministack, sagemaker):
                self._launch(service)
            migration = pool.submit(services.migrate, settings)

            def deploy_when_up() -> None:
                ministack.wait_ready()
                services.deploy(settings)
                sagemaker.wait_ready()

            deployment = pool.submit(deploy_when_up)
            migration.result()
            for service in airflow:
                self._launch(service)
            deployment.result()
        for service in airflow:
            service.wait_ready()
        api = AirflowApi(settings.airflow_url, settings.user, settings.password)
        api.wait_healthy(started_at)
        api.ensure_pools(services.pools())

    def _launch(self, service: Service) -> None:
        now = time.monotonic()
        recent = [moment for moment in self._starts.get(service.name, []) if now - moment < 60]
        if len(recent) >= STARTS_PER_MINUTE:
            raise ServiceError(f"{service.name} ended {len(recent)} times within a minute. {service.tail()}")
        self._starts[service.name] = [*recent, now]
        service.start()

    def _restart_dead(self) -> None:
        for service in self.services:
            if self.stopping or service.running:
                continue
            status = service.process.returncode if service.process else None
            _say(f"{service.name} ended with {status}; starting it again")
            self._launch(service)
            try:
                service.wait_ready()
                if service.name == "ministack":
                    # All but S3 is lost in a kill: the stack is deployed again over the bucket that survived.
                    services.deploy(self.settings)
            except ServiceError as error:
                _say(f"{service.name} did not come back, trying again: {error}")

    def _should_stop(self) -> bool:
        return self.stopping or (self.owner is not None and not is_alive(*self.owner))

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self.stopping:
            self.stopping = True
            raise _StopRequested(signal.Signals(number).name)

    def _write_state(self) -> None:
        settings = self.settings
        me = psutil.Process()
        state = {
            "pid": me.pid,
            "created": me.create_time(),
            "airflow_url": settings.airflow_url,
            "aws_url": settings.aws_url,
            "sagemaker_url": settings.sagemaker_url,
            "ports": {name: getattr(settings, name) for name in PORT_FIELDS},
            "processes": {service.name: service.process.pid for service in self.services if service.process},
        }
        partial = settings.run_dir / f"{STATE_FILE}.part"
        partial.write_text(json.dumps(state, indent=2) + "\n")
        partial.replace(settings.run_dir / STATE_FILE)


class _StopRequested(Exception):
    """A signal asked the supervisor to end."""


def _own_family() -> frozenset[int]:
    me = psutil.Process()
    return frozenset([me.pid, *(parent.pid for parent in me.parents())])


def _say(message: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}", flush=True)


def main(settings: EmbeddedSettings, owner_pid: int | None, move_ports: bool) -> int:
    """Entry of the supervisor's own process."""
    owner = None
    if owner_pid is not None:
        try:
            owner = (owner_pid, psutil.Process(owner_pid).create_time())
        except psutil.NoSuchProcess:
            return 0
    try:
        Supervisor(settings, owner, move_ports).run()
    except (AlreadyRunningError, SettingsError, ServiceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
