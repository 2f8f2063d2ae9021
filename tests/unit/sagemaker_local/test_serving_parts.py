"""Parts of serving in one process: the spool's durability, the client of model servers, traffic, metrics."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sagemaker_local.serving import spool as spool_module
from sagemaker_local.serving.alarms import AlarmWatch
from sagemaker_local.serving.capture import CaptureSettings
from sagemaker_local.serving.fleet import Traffic
from sagemaker_local.serving.metrics import EndpointMetrics
from sagemaker_local.serving.model_client import (
    ExchangeError,
    ExchangeTimeoutError,
    ModelClient,
    ResponseTooLargeError,
)
from sagemaker_local.serving.spool import CaptureSpool, Destination

SETTINGS = CaptureSettings("bucket", "capture", 100, True, True)


# --- the spool


class Bucket:
    """Takes files as S3 does; `down` makes it refuse."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.down = False

    def deliver(self, destination: Destination, path: Path) -> None:
        if self.down:
            raise ConnectionError("S3 is away")
        self.puts += 1
        self.objects[destination.key] = path.read_bytes()

    def lines(self) -> list[str]:
        return sorted(line for body in self.objects.values() for line in body.decode().splitlines())


def make_spool(folder: Path, bucket: Bucket, **changes) -> CaptureSpool:
    return CaptureSpool(folder, bucket.deliver, **{"flush_age": 0.05, "flush_bytes": 1 << 20, **changes})


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_records_are_delivered_by_age_together(tmp_path):
    async def run():
        bucket = Bucket()
        spool = make_spool(tmp_path, bucket)
        spool.start()
        for number in range(5):
            spool.append("e", "v", SETTINGS, b'{"n":%d}\n' % number)
        await until(lambda: bucket.objects)
        await until(lambda: not list(tmp_path.iterdir()))
        assert bucket.puts == 1
        assert bucket.lines() == [f'{{"n":{number}}}' for number in range(5)]
        await spool.stop()

    asyncio.run(run())


def test_records_are_delivered_by_size(tmp_path):
    async def run():
        bucket = Bucket()
        spool = make_spool(tmp_path, bucket, flush_age=60, flush_bytes=200_000)
        spool.start()
        line = b"x" * 49_999 + b"\n"
        for _ in range(9):
            spool.append("e", "v", SETTINGS, line)
        await until(lambda: bucket.puts == 2)
        assert Counter(map(len, bucket.objects.values())) == {200_000: 2}
        await spool.stop()
        assert Counter(map(len, bucket.objects.values())) == {200_000: 2, 50_000: 1}

    asyncio.run(run())


def test_each_endpoint_variant_and_destination_has_its_own_file(tmp_path):
    async def run():
        bucket = Bucket()
        spool = make_spool(tmp_path, bucket)
        spool.start()
        for endpoint, variant in (("a", "v"), ("a", "w"), ("b", "v")):
            spool.append(endpoint, variant, SETTINGS, f"{endpoint}{variant}\n".encode())
        assert await spool.flush("a")
        assert bucket.lines() == ["av", "aw"]
        await spool.stop()
        assert bucket.lines() == ["av", "aw", "bv"]
        assert sorted(key.split("/2")[0] for key in bucket.objects) == ["capture/a/v", "capture/a/w", "capture/b/v"]

    asyncio.run(run())


def test_s3_that_is_away_delays_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "_RETRY_PAUSES", (0.02,))

    async def run():
        bucket = Bucket()
        bucket.down = True
        spool = make_spool(tmp_path, bucket)
        spool.start()
        spool.append("e", "v", SETTINGS, b"first\n")
        assert not await spool.flush(timeout=0.1)
        bucket.down = False
        spool.append("e", "v", SETTINGS, b"second\n")
        assert await spool.flush()
        assert bucket.lines() == ["first", "second"]
        await spool.stop()

    asyncio.run(run())


def test_what_a_killed_service_left_is_delivered_at_the_next_start_under_the_same_key(tmp_path):
    """Left: a file with a torn last line, one delivered but not removed, and debris."""

    async def killed() -> dict[str, bytes]:
        bucket = Bucket()
        spool = make_spool(tmp_path, bucket, flush_age=60)
        spool.start()
        for number in range(3):
            spool.append("e", "v", SETTINGS, b"%d\n" % number)
        [file] = spool._open.values()
        assert file.timer is not None
        with file.path.open("ab") as torn:
            torn.write(b"torn")
        file.timer.cancel()
        delivered = {file.destination.key: b"0\n1\n2\n"}
        (tmp_path / "empty.json").write_text(json.dumps(file.destination.__dict__))
        (tmp_path / "empty.jsonl").write_bytes(b"torn, no newline")
        (tmp_path / "alone.json").write_text(json.dumps(file.destination.__dict__))
        return delivered

    async def next_service(expected: dict[str, bytes]) -> None:
        bucket = Bucket()
        bucket.objects = dict.fromkeys(expected, b"0\n1\n2\n")  # as if it had been delivered just before the kill
        spool = make_spool(tmp_path, bucket)
        spool.start()
        assert await spool.flush()
        assert bucket.objects == expected
        assert not list(tmp_path.iterdir())
        await spool.stop()

    asyncio.run(next_service(asyncio.run(killed())))


def test_a_full_disk_loses_the_record_and_not_the_invocation(tmp_path, caplog):
    """A write that the system cuts short, as a full disk does, leaves no half record behind."""

    async def run():
        bucket = Bucket()
        spool = make_spool(tmp_path, bucket, flush_age=60)
        spool.start()
        spool.append("e", "v", SETTINGS, b"first\n")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(b"first\n") + 2, limits[1]))
        try:
            for _ in range(3):
                spool.append("e", "v", SETTINGS, b"lost\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert spool.lost_records == 3
        assert "could not be kept" in caplog.text
        spool.append("e", "v", SETTINGS, b"kept\n")
        await spool.stop()
        assert bucket.lines() == ["first", "kept"]

    asyncio.run(run())


# --- the client of a model server


class Scripted:
    """A server that answers each request on a connection with the next of its scripted bytes; None closes."""

    def __init__(self, *script: bytes | None) -> None:
        self.script = list(script)
        self.connections = 0
        self.requests: list[bytes] = []

    async def __aenter__(self) -> Scripted:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_) -> None:
        self.server.close()

    async def _serve(self, reader, writer) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                body = await reader.readexactly(int(length.split(b":")[1]))
                self.requests.append(head + body)
                answer = self.script.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                if b"HTTP/1.0" in answer:
                    break
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-A: b\r\n\r\n%s" % (len(body), body)


def exchange(*script: bytes | None, times: int = 1, body: bytes = b"in", timeout: float = 5.0, **options):
    """Results (Response or error) of so many requests, and the server."""

    async def run():
        async with Scripted(*script) as server:
            client = ModelClient(server.port, **options)
            results: list = []
            for _ in range(times):
                try:
                    results.append(await client.request(b"POST", b"/invocations", [(b"accept", b"x/y")], body, timeout))
                except ExchangeError as error:
                    results.append(error)
            client.close()
            return results, server

    return asyncio.run(run())


def test_connections_are_kept_and_answers_read_in_every_framing():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    early = b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"after")
    until_close = b"HTTP/1.0 200 OK\r\n\r\nto the end"
    results, server = exchange(ok(b"one"), chunked, early, until_close, ok(b"last"), times=5)
    assert [result.body for result in results] == [b"one", b"abcde", b"after", b"to the end", b"last"]
    assert results[0].headers[b"x-a"] == b"b"
    assert server.connections == 2
    assert b"accept: x/y\r\n" in server.requests[0]
    assert server.requests[0].endswith(b"\r\n\r\nin")


def test_a_kept_connection_that_was_closed_is_replaced_without_an_error():
    results, server = exchange(ok(b"one"), None, ok(b"two"), times=2)
    assert [result.body for result in results] == [b"one", b"two"]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, ExchangeError),
        (b"\x00 nonsense\r\n\r\n", ExchangeError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", ResponseTooLargeError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024, ResponseTooLargeError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", ExchangeTimeoutError),
    ],
)
def test_broken_answers_are_errors_and_their_connection_is_not_used_again(answer, kind):
    results, server = exchange(answer, ok(b"next"), times=2, timeout=0.3, max_body=512)
    assert type(results[0]) is kind
    assert results[0].sent
    assert results[1].body == b"next"
    assert server.connections == 2


def test_bytes_nobody_asked_for_never_reach_the_next_caller():
    results, server = exchange(ok(b"mine") + ok(b"nobody's"), ok(b"yours"), times=2)
    assert [result.body for result in results] == [b"mine", b"yours"]
    assert server.connections == 2


def test_a_refused_connection_was_not_sent():
    async def run():
        async with Scripted() as server:
            port = server.port
        with pytest.raises(ExchangeError) as caught:
            await ModelClient(port).request(b"GET", b"/ping", (), b"", 1.0)
        assert not caught.value.sent

    asyncio.run(run())


def test_more_callers_than_connections_wait_their_turn():
    async def run():
        busy = most = 0

        async def serve(reader, writer):
            nonlocal busy, most
            try:
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    busy += 1
                    most = max(most, busy)
                    await asyncio.sleep(0.005)
                    busy -= 1
                    writer.write(ok(b"done"))
            except asyncio.IncompleteReadError:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = ModelClient(server.sockets[0].getsockname()[1], max_connections=3)
        calls = [client.request(b"GET", b"/", (), b"", 5.0) for _ in range(30)]
        assert [answer.body for answer in await asyncio.gather(*calls)] == [b"done"] * 30
        assert most == 3
        waiting = [asyncio.ensure_future(client.request(b"GET", b"/", (), b"", 5.0)) for _ in range(6)]
        await asyncio.sleep(0)
        waiting[5].cancel()  # a caller that goes away while it waits gives its turn on
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Response"] * 5 + ["CancelledError"]
        assert (await client.request(b"GET", b"/", (), b"", 5.0)).body == b"done"
        client.close()
        server.close()

    asyncio.run(run())


# --- traffic between two fleets


def fleet(**weights: float):
    return SimpleNamespace(
        variants={name: SimpleNamespace(name=name, weight=weight) for name, weight in weights.items()}
    )


def shares(traffic: Traffic, target: str | None = None, count: int = 2000) -> dict[tuple[str, str], float]:
    chosen: Counter[tuple[str, str]] = Counter()
    for _ in range(count):
        found = traffic.choose(target)
        if found is not None:
            chosen["old" if found[0] is traffic.current else "new", found[1].name] += 1
    return {key: number / count for key, number in chosen.items()}


def test_traffic_is_split_between_fleets_and_then_by_weight():
    traffic = Traffic()
    assert traffic.choose() is None
    traffic.incoming = fleet(a=1.0)
    assert traffic.choose() is None  # still being created
    traffic.current, traffic.incoming = fleet(a=1.0, b=3.0), fleet(a=1.0)
    assert shares(traffic) == pytest.approx({("old", "a"): 0.25, ("old", "b"): 0.75}, abs=0.06)
    traffic.share = 0.5
    assert shares(traffic) == pytest.approx({("old", "a"): 0.125, ("old", "b"): 0.375, ("new", "a"): 0.5}, abs=0.06)
    assert shares(traffic, "b") == {("old", "b"): 1.0}
    traffic.share = 1.0
    assert shares(traffic) == {("new", "a"): 1.0}
    assert shares(traffic, "b") == {}


# --- metrics and alarms


def test_metrics_are_batched_and_wait_for_a_cloudwatch_that_is_away():
    async def run():
        batches, down = [], [True]

        def put(data):
            if down[0]:
                raise ConnectionError("away")
            batches.append(data)

        metrics = EndpointMetrics(put, period=60)
        for number in range(400):
            metrics.record("e", "v", 200, model_seconds=number / 1000, overhead_seconds=0.0005)
        metrics.record("e", "v", 500, model_seconds=0.001, overhead_seconds=0.0005)
        metrics.record("e", "v", 0, model_seconds=0.001, overhead_seconds=0.0005)
        assert not await metrics.deliver()
        down[0] = False
        assert await metrics.deliver()
        data = [datum for batch in batches for datum in batch]
        assert max(len(datum["Values"]) for datum in data) <= 150

        def total(name):
            return sum(
                value * count
                for datum in data
                if datum["MetricName"] == name
                for value, count in zip(datum["Values"], datum["Counts"], strict=True)
            )

        assert total("Invocations") == 402
        assert (total("Invocation4XXErrors"), total("Invocation5XXErrors"), total("InvocationModelErrors")) == (0, 2, 2)
        assert total("ModelLatency") == pytest.approx(1e6 * sum(range(400)) / 1000, rel=0.01)
        assert data[0]["Dimensions"] == [
            {"Name": "EndpointName", "Value": "e"},
            {"Name": "VariantName", "Value": "v"},
        ]

    asyncio.run(run())


def test_invocations_count_in_the_minute_they_were_in_however_late_they_are_delivered():
    """A report that ended just after a minute counted the invocations before it once more, and missed their records."""
    put: list[dict[str, Any]] = []
    clock = iter([57.0, 59.9, 60.1])
    metrics = EndpointMetrics(put.extend, period=60, now=lambda: next(clock))
    for _ in range(3):
        metrics.record("e", "v", 200, model_seconds=0.001, overhead_seconds=0.0005)
    assert asyncio.run(metrics.deliver())
    counted = [(d["Timestamp"].timestamp(), sum(d["Counts"])) for d in put if d["MetricName"] == "Invocations"]
    assert counted == [(59.9, 2.0), (60.1, 1.0)]


def test_a_cloudwatch_that_stays_silent_ends_the_deployment():
    from botocore.exceptions import EndpointConnectionError

    class Silent:
        def describe_alarms(self, **_):
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    async def run():
        watch = AlarmWatch(Silent(), ["a"])
        reasons = [await watch.reason() for _ in range(5)]
        assert reasons[:4] == [None] * 4
        assert "could not be read" in (reasons[4] or "")

    asyncio.run(run())
