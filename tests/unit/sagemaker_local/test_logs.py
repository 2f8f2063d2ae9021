"""Container output reaches CloudWatch Logs whole: through outages, restarts, long lines."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from sagemaker_local.context import Context
from sagemaker_local.logs import LogShipper


class ResourceAlreadyExistsException(Exception):
    pass


class FakeLogs:
    """CloudWatch Logs that can be away, and can forget."""

    exceptions = SimpleNamespace(ResourceAlreadyExistsException=ResourceAlreadyExistsException)

    def __init__(self) -> None:
        self.away = False
        self.streams: set[tuple[str, str]] = set()
        self.messages: list[str] = []
        self.refused = 0

    def create_log_group(self, **_: str) -> None:
        self._answer()

    def create_log_stream(self, logGroupName: str, logStreamName: str) -> None:
        self._answer()
        if (logGroupName, logStreamName) in self.streams:
            raise ResourceAlreadyExistsException
        self.streams.add((logGroupName, logStreamName))

    def put_log_events(self, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> None:
        self._answer()
        if (logGroupName, logStreamName) not in self.streams:
            raise EndpointConnectionError(endpoint_url="forgotten")
        assert sum(len(e["message"].encode()) + 26 for e in logEvents) <= 1 << 20, "AWS takes 1 MiB at a time"
        self.messages += [event["message"] for event in logEvents]

    def _answer(self) -> None:
        if self.away:
            self.refused += 1
            raise EndpointConnectionError(endpoint_url="away")


@pytest.fixture
def logs() -> FakeLogs:
    return FakeLogs()


@pytest.fixture
def ctx(logs: FakeLogs) -> Context:
    return cast(Context, SimpleNamespace(clients=SimpleNamespace(get=lambda service: logs), now=time.time))


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ship(ctx: Context, path: Path, seen: list[str] | None = None) -> LogShipper:
    return LogShipper(ctx, "group", "stream", path, (lambda line, at: seen.append(line)) if seen is not None else None)


def test_lines_are_shipped_while_they_are_written_and_the_last_one_without_its_newline(ctx, logs, tmp_path):
    path = tmp_path / "log"
    shipper = ship(ctx, path).start()
    with path.open("a") as out:
        out.write("first\nhalf a li")
        out.flush()
        wait_for(lambda: logs.messages == ["first"])
        out.write("ne\n\nno newline")
    assert shipper.finish()
    assert logs.messages == ["first", "half a line", "no newline"]


def test_an_outage_delays_lines_but_metrics_see_them_at_once_and_once(ctx, logs, tmp_path):
    path = tmp_path / "log"
    path.write_text("one\ntwo\n")
    logs.away = True
    seen: list[str] = []
    shipper = ship(ctx, path, seen).start()
    wait_for(lambda: logs.refused > 1)
    assert seen == ["one", "two"]
    logs.away = False
    assert shipper.finish()
    assert logs.messages == ["one", "two"]
    assert seen == ["one", "two"]


def test_a_group_that_was_forgotten_is_made_again(ctx, logs, tmp_path):
    path = tmp_path / "log"
    path.write_text("one\n")
    shipper = ship(ctx, path).start()
    wait_for(lambda: logs.messages == ["one"])
    logs.streams.clear()
    with path.open("a") as out:
        out.write("two\n")
    wait_for(lambda: logs.messages == ["one", "two"])
    assert shipper.finish()


def test_a_restarted_service_ships_each_line_once(ctx, logs, tmp_path):
    path = tmp_path / "log"
    path.write_text("one\n")
    assert ship(ctx, path).start().finish()
    with path.open("a") as out:
        out.write("two\n")
    assert ship(ctx, path).start().finish()
    assert logs.messages == ["one", "two"]


def test_long_and_many_lines_fit_into_what_aws_takes(ctx, logs, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 900_000 + b"\n" + b"".join(b"line %d\n" % number for number in range(12_000)))
    assert ship(ctx, path).start().finish()
    assert logs.messages[:-12_000] == ["x" * 200_000] * 2, "of each batch that the line fills, what one event may hold"
    assert logs.messages[-12_000:] == [f"line {number}" for number in range(12_000)]


def test_a_container_that_printed_nothing_has_its_stream_all_the_same(ctx, logs, tmp_path):
    assert ship(ctx, tmp_path / "log").start().finish()
    assert logs.streams == {("group", "stream")}
    assert logs.messages == []
