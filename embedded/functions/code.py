"""What functions consist of, unpacked once for all environments that run it: code, layers, Lambda's own packages."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import stat
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

# What a Python function finds beside the standard library: boto3 and Amazon's runtime client, with what they need.
PACKAGES = (
    "awslambdaric", "simplejson", "snapshot_restore_py",
    "boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3",
)  # fmt: skip


BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


def lambda_packages(folder: Path) -> list[Path]:
    """Fill a folder with `BOOTSTRAP` and links to `PACKAGES` of the Python that runs this. Returns where they lead."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(BOOTSTRAP, folder)
    targets = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{name} is not installed: run `make check` or install requirements.txt again")
        target = Path(spec.origin)
        target = target.parent if spec.submodule_search_locations else target
        (folder / target.name).unlink(missing_ok=True)
        (folder / target.name).symlink_to(target)
        targets.append(target)
    return targets


class Unpacked:
    """Folders of unpacked archives under `folder`, one for each content, kept while an environment uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._users: dict[Path, int] = {}
        self._guard = threading.Lock()

    def take(self, archives: Sequence[bytes]) -> Path:
        """The folder with the archives unpacked over each other; `release` gives it back.

        Raises:
            BadZipFile: one cannot be unpacked; nothing is left of it.
        """
        digest = hashlib.sha256()
        for archive in archives:
            digest.update(hashlib.sha256(archive).digest())
        path = self._folder / digest.hexdigest()[:32]
        with self._guard:
            if not self._users.get(path):
                _unpack(archives, path)
            self._users[path] = self._users.get(path, 0) + 1
        return path

    def release(self, path: Path) -> None:
        """Remove the folder once nobody uses it."""
        with self._guard:
            self._users[path] -= 1
            if self._users[path] == 0:
                shutil.rmtree(path, ignore_errors=True)


def _unpack(archives: Sequence[bytes], path: Path) -> None:
    """Whole or not at all; executables stay executable, as in Lambda."""
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent))
    try:
        for archive in archives:
            _extract(archive, partial)
        partial.chmod(0o755)
        partial.rename(path)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        # Besides this one, zipfile raises nearly everything there is: where the data are damaged, or encrypted, ...
        raise zipfile.BadZipFile(f"{type(error).__name__}: {error}") from error


def _extract(archive: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        for member in content.infolist():
            target = content.extract(member, folder)  # zipfile keeps `..` and absolute names inside
            mode = stat.S_IMODE(member.external_attr >> 16)
            if not member.is_dir():
                os.chmod(target, 0o644 | (mode & 0o111))
