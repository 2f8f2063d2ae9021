"""Keeps the platform up: starts its processes in order, starts again what dies, ends all of them together."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from embedded import services
from embedded.airflow_api import AirflowApi, AirflowApiError
from embedded.processes import Patience, Service, ServiceError, end_leftovers, own_family, stop_all
from embedded.run_folder import AlreadyRunningError, held, write_state
from embedded.settings import PORT_FIELDS, EmbeddedSettings, SettingsError, with_usable_ports

WATCH_SECONDS = 0.5
STARTS_PER_MINUTE = 5


def applied(settings: EmbeddedSettings, state: dict[str, Any]) -> EmbeddedSettings:
    """The settings with the ports the running platform really has."""
    return replace(settings, **state["ports"])


class Supervisor:
    """Runs in a process of its own until SIGTERM, or until its owner (a ``make run``) is gone."""

    def __init__(self, settings: EmbeddedSettings, owner_pid: int | None = None, move_ports: bool = False):
        self.settings = settings
        self.owner_pid = owner_pid
        self.move_ports = move_ports
        self.services: list[Service] = []
        self.notes: list[str] = []
        self.ended_because: str | None = None
        self._starts: dict[str, deque[float]] = {}
        self._pool = ThreadPoolExecutor(2)
        self._deployment: Future[None] | None = None

    def run(self) -> None:
        """Start all, watch until told to stop, end all.

        Raises:
            AlreadyRunningError, SettingsError, ServiceError, AirflowApiError: nothing is left running then.
        """
        with contextlib.suppress(_StopRequested):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._on_signal)
            with held(self.settings.run_dir):
                try:
                    self._run()
                finally:
                    self.ended_because = self.ended_because or "an error"
                    _say(f"stopping: {self.ended_because}")
                    self._tell({"ended": self.ended_because})
                    self._pool.shutdown(wait=False, cancel_futures=True)
                    stop_all(self.services)
                    end_leftovers(self.settings.run_dir, spare=own_family())
                    _say("stopped")

    def _run(self) -> None:
        write_state(self.settings.run_dir, {})
        ended = end_leftovers(self.settings.run_dir, spare=own_family())
        if ended:
            _say(f"ended {ended} processes that an earlier run left behind")
        self.settings = with_usable_ports(self.settings, self.move_ports)
        self._start()
        write_state(self.settings.run_dir, self._state())
        _say("ready")
        self._watch()

    def _start(self) -> None:
        settings = self.settings
        started_at = datetime.now(UTC)
        self.notes = services.put_damaged_databases_aside(settings)
        for note in self.notes:
            _say(note)
        ministack, sagemaker = services.ministack(settings), services.sagemaker_local(settings)
        services.write_passwords(settings)
        airflow = services.airflow(settings)
        self.services = [ministack, sagemaker, *airflow]
        for service in (ministack, sagemaker):
            self._launch(service)
        migration = self._pool.submit(services.migrate, settings)
        deployment = self._pool.submit(self._deploy)
        migration.result()
        for service in airflow:
            self._launch(service)
        for service in (sagemaker, *airflow):
            service.wait_ready()
        deployment.result()
        api = AirflowApi(settings.airflow_url, settings.user, settings.password)
        api.wait_healthy(started_at, Patience(lambda: [service.work_done() for service in airflow]))
        api.ensure_pools(services.pools())

    def _deploy(self) -> None:
        self.services[0].wait_ready()
        services.deploy(self.settings)

    def _launch(self, service: Service) -> None:
        self._starts.setdefault(service.name, deque(maxlen=STARTS_PER_MINUTE)).append(time.monotonic())
        service.start()

    def _may_start(self, service: Service) -> bool:
        """Not too often: what keeps a process from starting (a full disk) takes its time to pass."""
        starts = self._starts[service.name]
        return len(starts) < STARTS_PER_MINUTE or time.monotonic() - starts[0] > 60

    def _watch(self) -> None:
        """Start again what died, side by side, until told to stop."""
        while self.owner_pid is None or os.getppid() == self.owner_pid:
            dead = [service for service in self.services if not service.running and self._may_start(service)]
            for service in dead:
                status = service.process.returncode if service.process else None
                _say(f"{service.name} ended with {status}; starting it again")
                try:
                    self._launch(service)
                except OSError as error:
                    _say(f"trying again: {error}")
            if dead:
                self._tell(self._state())
            if self.services[0] in dead or self._deployment_failed():
                # All but S3 is lost in a kill: the stack is deployed again over the bucket that survived.
                self._deployment = self._pool.submit(self._deploy)
            time.sleep(WATCH_SECONDS)
        self.ended_because = "the command that started it is gone"

    def _deployment_failed(self) -> bool:
        if self._deployment is None or not self._deployment.done():
            return False
        error = self._deployment.exception()
        self._deployment = None
        if error:
            _say(f"trying again: {error}")
        return error is not None

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self.ended_because:
            self.ended_because = "`make down`" if number == signal.SIGTERM else signal.Signals(number).name
            raise _StopRequested

    def _tell(self, state: dict[str, Any]) -> None:
        # A full disk is no reason to end, nor to leave processes behind at the end.
        with contextlib.suppress(OSError):
            write_state(self.settings.run_dir, state)

    def _state(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "pid": os.getpid(),
            "owned": self.owner_pid is not None,
            "notes": self.notes,
            "airflow_url": settings.airflow_url,
            "aws_url": settings.aws_url,
            "sagemaker_url": settings.sagemaker_url,
            "ports": {name: getattr(settings, name) for name in PORT_FIELDS},
            "processes": {service.name: service.process.pid for service in self.services if service.process},
        }


class _StopRequested(Exception):
    """A signal asked the supervisor to end."""


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # the log is on the same disk
        print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}", flush=True)


def main(settings: EmbeddedSettings, owner_pid: int | None, move_ports: bool) -> int:
    """Entry of the supervisor's own process."""
    try:
        Supervisor(settings, owner_pid, move_ports).run()
    except (AlreadyRunningError, SettingsError, ServiceError, AirflowApiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
