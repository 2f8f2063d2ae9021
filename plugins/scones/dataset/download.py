"""Download one large file over HTTP so that nothing already received is lost: ranges, retries, a checksum, a budget.

The university's host serves at about 50 kB/s (an hour for the archive), so a download also has a budget: it is given up
early, with the arithmetic in the message, when the rest cannot arrive in time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import logging
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scones.dataset.errors import CorruptArchiveError, DownloadError

log = logging.getLogger(__name__)
_BLOCK = 256 * 1024
_PERMANENT = {400, 401, 403, 404, 405, 410, 451}


@dataclass(frozen=True)
class DownloadBudget:
    """How long a download may take.

    Attributes:
        stall_seconds: longest silence of the host, also for the connection, before a try counts as failed.
        total_seconds: for the whole download over all tries of one URL.
        trial_seconds: after this long at the present rate, a download that cannot end within the total is given up.
        tries: how often it is tried, each continuing where the last one stopped.
        max_bytes: a longer file is not what was asked for.
    """

    stall_seconds: float = 20.0
    total_seconds: float = 900.0
    trial_seconds: float = 15.0
    tries: int = 5
    max_bytes: int = 1024 * 1024 * 1024


class _PermanentError(DownloadError):
    """The host answered clearly that it will not serve this URL."""


def file_md5(path: Path) -> str:
    """Hex MD5 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _open(url: str, headers: dict[str, str], timeout: float) -> Any:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked by download()
    return urllib.request.urlopen(request, timeout=timeout)  # noqa: S310


class _Download:
    def __init__(
        self, url: str, part: Path, budget: DownloadBudget, opener: Callable[..., Any], clock: Callable[[], float]
    ) -> None:
        self.url, self.part, self.budget, self.opener, self.clock = url, part, budget, opener, clock
        self.etag_file = part.with_name(part.name + ".etag")
        self.started = clock()

    def attempt(self) -> None:
        """One request, from where the part file ends. Returns when the body has ended as announced."""
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"User-Agent": "scones-ml", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.etag_file.exists():  # the host then sends the whole file when it is not the same file any more
                headers["If-Range"] = self.etag_file.read_text()
        try:
            response = self.opener(self.url, headers, self.budget.stall_seconds)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing is left to send, or another file: the checksum tells which
                return
            if error.code in _PERMANENT:
                raise _PermanentError(f"{self.url} answers {error.code} {error.reason}") from error
            raise
        with response:
            resumed = have > 0 and response.status == 206
            start = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            if total is not None and total > self.budget.max_bytes:
                raise _PermanentError(f"{self.url} is {total:,} bytes long, more than {self.budget.max_bytes:,}")
            if etag := response.headers.get("ETag"):
                self.etag_file.write_text(etag)
            with self.part.open("ab" if resumed else "wb") as out:
                self._copy(response, out, start, total)

    def _copy(self, response: Any, out: IO[bytes], start: int, total: int | None) -> None:
        began, size = self.clock(), start
        read = getattr(
            response, "read1", response.read
        )  # what has arrived, not a full block: a slow host is still heard
        while block := read(_BLOCK):
            out.write(block)
            size += len(block)
            now = self.clock()
            if size > self.budget.max_bytes:
                raise _PermanentError(f"{self.url} sends more than {self.budget.max_bytes:,} bytes")
            rate = (size - start) / max(now - began, 1e-9)
            left = self.budget.total_seconds - (now - self.started)
            needed = ((total or size) - size) / max(rate, 1.0)
            if left < 0 or (now - began > self.budget.trial_seconds and needed > left):
                raise _PermanentError(
                    f"{self.url} sends {rate / 1000:.0f} kB/s: the rest would take {needed / 60:.0f} minutes, "
                    f"{max(left, 0) / 60:.1f} are left of the budget of {self.budget.total_seconds / 60:.0f}. "
                    f"{size:,} bytes are kept for the next try"
                )
        if total is not None and size < total:
            raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")


def download(
    url: str,
    target: Path,
    md5: str = "",
    budget: DownloadBudget | None = None,
    *,
    opener: Callable[..., Any] = _open,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch ``url`` into ``target`` (replaced whole, never half written) and return it.

    What has arrived is kept in ``<target>.part`` and continued, also by a later process. With ``md5`` the file
    must have it: a continued file that does not is fetched once more from the start.

    Raises:
        DownloadError: it could not be fetched; worth another try later.
        CorruptArchiveError: the host really serves another file.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadError(f"{url} is not an http or https URL")
    budget = budget or DownloadBudget()
    target.parent.mkdir(parents=True, exist_ok=True)
    run = _Download(url, target.with_name(target.name + ".part"), budget, opener, clock)
    with _alone(target.with_name(target.name + ".lock"), budget, clock, sleep):
        return _fetch(run, target, md5, budget, clock, sleep)


@contextlib.contextmanager
def _alone(
    lock: Path, budget: DownloadBudget, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[None]:
    """Two processes must not write one part file: the second waits, and then finds most of its work done."""
    began = clock()
    with lock.open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if clock() - began > budget.total_seconds:
                    raise DownloadError(
                        f"Another process has been downloading to {lock.parent} for too long"
                    ) from error
                sleep(1.0)
        yield


def _fetch(
    run: _Download,
    target: Path,
    md5: str,
    budget: DownloadBudget,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Path:
    url = run.url
    for number in range(1, budget.tries + 1):
        resumed = run.part.exists()
        try:
            run.attempt()
            found = file_md5(run.part)
            if not md5 or found == md5.lower():
                run.part.replace(target)
                run.etag_file.unlink(missing_ok=True)
                return target
            run.part.unlink()
            run.etag_file.unlink(missing_ok=True)
            if not resumed:
                raise CorruptArchiveError(
                    f"{url} serves a file with the md5 {found}, expected {md5}. Use another source, or correct the md5."
                )
            log.warning("The continued download of %s has the wrong md5: starting over", url)
        except _PermanentError:
            raise
        except (OSError, http.client.HTTPException) as error:
            if number == budget.tries or clock() - run.started > budget.total_seconds:
                raise DownloadError(f"{url} could not be downloaded in {number} tries: {error}") from error
            pause = min(30.0, 0.5 * 2 ** (number - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            log.warning(
                "Try %d of %d to download %s failed (%s); again in %.1f s", number, budget.tries, url, error, pause
            )
            sleep(pause)
    raise DownloadError(f"{url} could not be downloaded in {budget.tries} tries")


def download_first(urls: Sequence[str], target: Path, md5: str, budget: DownloadBudget, **options: Any) -> str:
    """Try ``urls`` in order; return the one that gave the file.

    Raises:
        DownloadError: none did; the message says what each one answered.
    """
    said = []
    for url in urls:
        try:
            download(url, target, md5, budget, **options)
            return url
        except (DownloadError, CorruptArchiveError) as error:
            log.warning("%s", error)
            said.append(str(error))
    raise DownloadError("; ".join(said) or "no URL was given")
