"""The supervisor keeps processes up, and gives up none for what may pass."""

from __future__ import annotations

import errno
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedded import run_folder, supervisor
from embedded.processes import Service, stop_all
from embedded.settings import EmbeddedSettings
from embedded.supervisor import STARTS_PER_MINUTE, Supervisor


class Watched(Supervisor):
    """A supervisor of the given services alone, which looks at them `looks` times."""

    def __init__(self, settings: EmbeddedSettings, services: list[Service], looks: int) -> None:
        super().__init__(settings)
        self.services, self._looks = services, looks

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def look(_: float) -> None:
            self._looks -= 1
            if self._looks == 0:
                raise KeyboardInterrupt

        for service in self.services:
            self._launch(service)
        # Its own: other threads of the tests sleep too.
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(sleep=look, monotonic=time.monotonic))
        with pytest.raises(KeyboardInterrupt):
            self._watch()


def _service(folder: Path, name: str, code: str) -> Service:
    return Service(name, [sys.executable, "-S", "-c", code], {}, folder / f"{name}.log")


def test_what_ends_at_once_is_started_a_few_times_a_minute_and_never_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lasting = _service(tmp_path, "ministack", "import time; time.sleep(600)")
    failing = _service(tmp_path, "failing", "")
    started: list[str] = []
    monkeypatch.setattr(Service, "start", _counted(started))
    try:
        Watched(EmbeddedSettings(run_dir=tmp_path), [lasting, failing], 20).watch(monkeypatch)
    finally:
        stop_all([lasting, failing])
    assert started.count("failing") == STARTS_PER_MINUTE
    assert started.count("ministack") == 1


def _counted(started: list[str]) -> Any:
    start = Service.start

    def counted(service: Service) -> None:
        started.append(service.name)
        start(service)
        if service.name == "failing" and service.process:
            service.process.wait()

    return counted


def test_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    lasting = _service(tmp_path, "ministack", "import time; time.sleep(600)")
    failing = _service(tmp_path, "failing", "")
    monkeypatch.setattr(supervisor, "write_state", full)
    monkeypatch.setattr("builtins.print", full)
    try:
        Watched(EmbeddedSettings(run_dir=tmp_path), [lasting, failing], 5).watch(monkeypatch)
        assert lasting.running
    finally:
        stop_all([lasting, failing])


@pytest.fixture
def own_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_it_can_be_ended_before_it_has_started_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_signals: None
):
    def asked_to_end(*_: Any, **__: Any) -> int:
        monkeypatch.setattr(supervisor, "end_leftovers", lambda *_, **__: 0)
        signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr(supervisor, "end_leftovers", asked_to_end)
    assert supervisor.main(EmbeddedSettings(run_dir=tmp_path), None, False) == 0
    assert run_folder.ended_because(tmp_path) == "`make down`"
