"""Settings of a deployment, read from the environment when a task runs (never while a DAG file is parsed)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

OFFICIAL_ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
OFFICIAL_ARCHIVE_URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
)


@dataclass(frozen=True)
class Settings:
    """What an operator of the project may set. Everything has a default that works on one laptop.

    Attributes:
        stack_name: CloudFormation stack whose outputs name the bucket, the roles and the state machines
            (``SCONES_STACK_NAME``).
        cifar100_archive: path, http(s) or s3 URL of a CIFAR-100 archive to use instead of the official one
            (``CIFAR100_ARCHIVE``); empty for the official one.
        cifar100_archive_md5: md5 that archive must have (``CIFAR100_ARCHIVE_MD5``); empty to accept any.
        archive_urls: where the official archive is looked for, in order (``CIFAR100_MIRRORS``, comma separated,
            are tried first).
        cache_dir: folder for half-finished downloads (``SCONES_CACHE_DIR``); empty for the system's temporary one.
        alert_notifiers: Airflow notifiers that every alert goes to beside the alert topic, as a JSON list of
            ``{"notifier": class path, "arguments": {...}}`` (``SCONES_ALERT_NOTIFIERS``).
        labels_to_retrain: new labels from which `monitor_endpoint` asks for a training (``SCONES_LABELS_TO_RETRAIN``);
            0 for never.
    """

    stack_name: str = "scones"
    cifar100_archive: str = ""
    cifar100_archive_md5: str = ""
    archive_urls: tuple[str, ...] = field(default=OFFICIAL_ARCHIVE_URLS)
    cache_dir: str = ""
    alert_notifiers: str = ""
    labels_to_retrain: int = 0

    @classmethod
    def from_environ(cls) -> Settings:
        """Read the settings; an empty variable counts as unset.

        Raises:
            ValueError: a number is none.
        """
        env = os.environ
        mirrors = tuple(url.strip() for url in env.get("CIFAR100_MIRRORS", "").split(",") if url.strip())
        return cls(
            stack_name=env.get("SCONES_STACK_NAME") or "scones",
            cifar100_archive=env.get("CIFAR100_ARCHIVE", "").strip(),
            cifar100_archive_md5=env.get("CIFAR100_ARCHIVE_MD5", "").strip(),
            archive_urls=mirrors + OFFICIAL_ARCHIVE_URLS,
            cache_dir=env.get("SCONES_CACHE_DIR", "").strip(),
            alert_notifiers=env.get("SCONES_ALERT_NOTIFIERS", "").strip(),
            labels_to_retrain=int(env.get("SCONES_LABELS_TO_RETRAIN") or 0),
        )
