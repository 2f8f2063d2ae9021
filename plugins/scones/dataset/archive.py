"""Get the CIFAR-100 archive: the one asked for, the official one, or, when neither can be fetched, a drawn sample."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scones.aws import layout
from scones.aws.store import ObjectStore
from scones.dataset.download import DownloadBudget, download, download_first, file_md5
from scones.dataset.errors import ArchiveNotFoundError, CorruptArchiveError, DownloadError
from scones.settings import OFFICIAL_ARCHIVE_MD5, Settings

log = logging.getLogger(__name__)
ARCHIVE_NAME = "cifar-100-python.tar.gz"
# Without internet the answer comes at once; a firewall that swallows packets costs the stall time once per URL.
OFFICIAL_BUDGET = DownloadBudget(stall_seconds=10.0, tries=3)


@dataclass(frozen=True)
class Archive:
    """Where the archive is now and where it came from. ``kind``: "official", "archive" (asked for) or "sample"
    (drawn).
    """

    path: Path
    kind: str
    uri: str
    md5: str

    def source(self) -> dict[str, str]:
        return {"kind": self.kind, "uri": self.uri, "md5": self.md5}


def _work_dir(settings: Settings) -> Path:
    """This user's folder for archives. In the shared temporary folder nobody else may have made it beforehand."""
    if settings.cache_dir:
        folder = Path(settings.cache_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()) / f"scones-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to somebody else: remove it or set SCONES_CACHE_DIR to a folder of yours"
        )
    return folder


def _from_s3(store: ObjectStore, key: str, target: Path) -> bool:
    """Whether the object exists; if so it is at ``target`` now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return store.download(key, str(target))


def _checked(path: Path, wanted: str, name: str) -> str:
    found = file_md5(path)
    if wanted and found != wanted.lower():
        raise CorruptArchiveError(
            f"{name} has the md5 {found}, CIFAR100_ARCHIVE_MD5 says {wanted}: it is damaged or another file. "
            "Get it again, or correct CIFAR100_ARCHIVE_MD5."
        )
    return found


def _asked_for(store: ObjectStore, settings: Settings, budget: DownloadBudget) -> Archive:
    """The archive that CIFAR100_ARCHIVE names. It is never replaced by another one; with CIFAR100_ARCHIVE_MD5 set, the
    same content may come from a cache."""
    name, wanted = settings.cifar100_archive, settings.cifar100_archive_md5
    scheme = urllib.parse.urlsplit(name).scheme.lower()
    target = _work_dir(settings) / hashlib.sha256(name.encode()).hexdigest()[:16] / ARCHIVE_NAME
    if scheme in ("http", "https"):
        if not (wanted and _cached(store, target, wanted)):
            download(name, target, wanted, budget)
        return Archive(target, "archive", name, _checked(target, wanted, name))
    if scheme == "s3":
        parts = urllib.parse.urlsplit(name)
        if not _from_s3(ObjectStore(parts.netloc, client=store.client), parts.path.lstrip("/"), target):
            raise ArchiveNotFoundError(f"There is no object {name}. Set CIFAR100_ARCHIVE to an archive that exists.")
        return Archive(target, "archive", name, _checked(target, wanted, name))
    path = Path(urllib.parse.urlsplit(name).path if scheme == "file" else name).expanduser()
    if not path.is_file():
        raise ArchiveNotFoundError(
            f"CIFAR100_ARCHIVE is {name}, but there is no such file where the task runs. "
            "Give an absolute path, an http(s) URL or an s3 URL, or unset it for the official archive."
        )
    md5 = _checked(path, wanted, name)
    kind = "official" if md5 == OFFICIAL_ARCHIVE_MD5 else "archive"
    return Archive(path, kind, path.name, md5)


def _cached(store: ObjectStore, target: Path, md5: str) -> bool:
    """Whether ``target`` holds the archive with this md5: from an earlier run on this machine, or now from S3."""
    if target.is_file() and file_md5(target) == md5.lower():
        log.info("The archive is in %s already", target.parent)
        return True
    key = layout.archive(md5.lower())
    if _from_s3(store, key, target) and file_md5(target) == md5.lower():
        log.info("The archive comes from the cache %s", store.uri(key))
        return True
    return False


def _official(store: ObjectStore, settings: Settings, budget: DownloadBudget) -> Archive:
    target = _work_dir(settings) / OFFICIAL_ARCHIVE_MD5 / ARCHIVE_NAME
    url = settings.archive_urls[-1]
    if not _cached(store, target, OFFICIAL_ARCHIVE_MD5):
        url = download_first(settings.archive_urls, target, OFFICIAL_ARCHIVE_MD5, budget)
    return Archive(target, "official", url, OFFICIAL_ARCHIVE_MD5)


def _drawn(settings: Settings, classes: Sequence[str], seed: int, reason: str) -> Archive:
    from scones.dataset.sample import write_sample_archive

    identity = hashlib.sha256(f"{seed}:{','.join(classes)}".encode()).hexdigest()[:16]
    path = _work_dir(settings) / f"sample-{identity}" / ARCHIVE_NAME
    write_sample_archive(path, classes, seed=seed)
    log.warning(
        "\n%s\nNO REAL DATA: the official CIFAR-100 archive could not be fetched (%s).\n"
        "The images of this run are a SAMPLE DRAWN BY THE PROJECT. Its accuracy says nothing about real photographs.\n"
        "For real data set CIFAR100_ARCHIVE to a path or URL of cifar-100-python.tar.gz, or CIFAR100_MIRRORS.\n%s",
        "=" * 100,
        reason,
        "=" * 100,
    )
    return Archive(path, "sample", f"drawn by the project, seed {seed}", file_md5(path))


def get_archive(
    store: ObjectStore,
    classes: Sequence[str],
    *,
    settings: Settings,
    seed: int = 0,
    budget: DownloadBudget | None = None,
    sample: Callable[..., Archive] = _drawn,
) -> Archive:
    """The archive to stage, as a local file, also kept in S3 (`layout.archive`): neither a later run nor another
    worker then needs its source.

    `settings.cifar100_archive` (path, http(s) or s3 URL) is used when set, and nothing else then. Otherwise the
    official archive: from this machine's folder, from S3, then from each of `settings.archive_urls`. When none can
    be fetched, a drawn sample of ``classes``.

    Raises:
        ArchiveNotFoundError: there is nothing where the settings point.
        CorruptArchiveError: what is there has another md5 than the settings ask for.
        DownloadError: it could not be fetched; a later try continues the download.
    """
    if settings.cifar100_archive:
        archive = _asked_for(store, settings, budget or DownloadBudget())
    else:
        try:
            archive = _official(store, settings, budget or OFFICIAL_BUDGET)
        except DownloadError as error:
            archive = sample(settings, classes, seed, str(error))
    log.info("Archive: %s (%s), md5 %s", archive.uri, archive.kind, archive.md5)
    key = layout.archive(archive.md5)
    if not store.exists(key):
        log.info("Keeping the archive as %s", store.upload(key, str(archive.path), "application/gzip"))
    return archive
