"""The download against a real HTTP server that drops connections, ignores ranges, changes its mind, and is slow."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scones.dataset.download import DownloadBudget, download, download_first
from scones.dataset.errors import CorruptArchiveError, DownloadError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()
BUDGET = DownloadBudget(stall_seconds=5, tries=4)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, str]] = []
        self.content = CONTENT
        self.etag = '"one"'
        self.ranges = True
        self.drop_after: list[int] = []  # bytes sent before the connection is cut, per request
        self.statuses: list[int] = []  # answered instead, per request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/archive.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        start = 0
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        if server.drop_after and (cut := server.drop_after.pop(0)) < len(body):
            self.wfile.write(body[:cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def run(md5: str = MD5, budget: DownloadBudget = BUDGET, **options: Any) -> Path:
        return download(server.url, tmp_path / "a.tar.gz", md5, budget, **{"sleep": lambda seconds: None, **options})

    return run


def test_a_plain_download(fetch: Callable[..., Path], tmp_path: Path) -> None:
    assert fetch().read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.tar.gz.lock"]


def test_a_dropped_connection_is_continued(server: Server, fetch: Callable[..., Path]) -> None:
    server.drop_after = [300_000, 200_000]
    pauses: list[float] = []
    assert fetch(sleep=pauses.append).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert 0 < pauses[0] < pauses[1] * 2


def test_another_process_continues(server: Server, fetch: Callable[..., Path]) -> None:
    server.drop_after = [400_000]
    with pytest.raises(DownloadError, match=r"ended after 400,000 of 1,024,000 bytes"):
        fetch(budget=DownloadBudget(tries=1))
    assert fetch().read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=400000-"


def test_a_server_without_ranges_starts_over(server: Server, fetch: Callable[..., Path]) -> None:
    server.ranges, server.drop_after = False, [300_000]
    assert fetch().read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_over(server: Server, fetch: Callable[..., Path]) -> None:
    server.content, server.drop_after = bytes(1_024_000), [300_000]
    with pytest.raises(DownloadError):
        fetch(budget=DownloadBudget(tries=1))
    server.content, server.etag = CONTENT, '"two"'
    assert fetch().read_bytes() == CONTENT


def test_a_leftover_of_something_else_is_thrown_away(
    server: Server, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "a.tar.gz.part").write_bytes(bytes(100_000))
    assert fetch().read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == ["bytes=100000-", None]


def test_a_complete_leftover_is_used(server: Server, fetch: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz.part").write_bytes(CONTENT)
    assert fetch().read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_the_wrong_file_is_refused(fetch: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CorruptArchiveError, match=f"md5 {MD5}, expected {'0' * 32}"):
        fetch("0" * 32)
    assert not (tmp_path / "a.tar.gz").exists()


def test_a_passing_error_is_tried_again(server: Server, fetch: Callable[..., Path]) -> None:
    server.statuses = [503, 500, 200]
    assert fetch().read_bytes() == CONTENT


def test_a_clear_no_is_not(server: Server, fetch: Callable[..., Path]) -> None:
    server.statuses = [404, 200]
    with pytest.raises(DownloadError, match="answers 404"):
        fetch()
    assert len(server.requests) == 1


def test_errors_without_end_are_given_up(server: Server, fetch: Callable[..., Path]) -> None:
    server.statuses = [503] * 10
    with pytest.raises(DownloadError, match="in 4 tries"):
        fetch()
    assert len(server.requests) == 4


def test_a_file_longer_than_allowed(fetch: Callable[..., Path]) -> None:
    with pytest.raises(DownloadError, match="more than 1,000"):
        fetch(budget=DownloadBudget(max_bytes=1000))


def test_a_slow_host_is_given_up_with_the_arithmetic(
    server: Server, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    server.content = bytes(4_000_000)  # read in many pieces, however large the buffers of this Python are
    now = iter(range(0, 10_000, 8))  # every look at the clock is eight seconds later
    with pytest.raises(DownloadError, match=r"kB/s: the rest would take \d+ minutes, .* left of the budget of 1\. "):
        fetch(budget=DownloadBudget(total_seconds=60, trial_seconds=15), clock=lambda: float(next(now)))
    assert (tmp_path / "a.tar.gz.part").stat().st_size > 0


def test_two_at_once_take_turns(server: Server, fetch: Callable[..., Path], tmp_path: Path) -> None:
    with (tmp_path / "a.tar.gz.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waits: list[float] = []

        def release(seconds: float) -> None:
            waits.append(seconds)
            assert server.requests == []
            if len(waits) == 3:
                fcntl.flock(other, fcntl.LOCK_UN)

        assert fetch(sleep=release).read_bytes() == CONTENT
    assert len(waits) == 3


def test_the_other_one_never_ends(fetch: Callable[..., Path], tmp_path: Path) -> None:
    now = iter(range(0, 10_000, 30))
    with (tmp_path / "a.tar.gz.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="Another process"):
            fetch(clock=lambda: float(next(now)))


def test_nobody_there(tmp_path: Path, free_port_number: int) -> None:
    url = f"http://127.0.0.1:{free_port_number}/x"
    with pytest.raises(DownloadError, match=r"in 2 tries: .*refused"):
        download(url, tmp_path / "x", "", DownloadBudget(tries=2), sleep=lambda seconds: None)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "archive.tar.gz"])
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not an http or https URL"):
        download(url, tmp_path / "x")


def test_the_next_mirror_is_taken(server: Server, tmp_path: Path, free_port_number: int) -> None:
    urls = [f"http://127.0.0.1:{free_port_number}/x", server.url]
    used = download_first(urls, tmp_path / "x", MD5, DownloadBudget(tries=1), sleep=lambda seconds: None)
    assert used == server.url
    with pytest.raises(DownloadError, match=r"refused.*; .*expected 1234"):
        download_first(urls, tmp_path / "y", "1234", DownloadBudget(tries=1), sleep=lambda seconds: None)
    with pytest.raises(DownloadError, match="no URL"):
        download_first([], tmp_path / "z", MD5, BUDGET)
