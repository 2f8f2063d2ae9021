"""The batch benchmarks on a machine with a user, whose processes come and go."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks.batch import our_engine, raw_engine
from benchmarks.batch_platform import BatchPlatform
from embedded.settings import EmbeddedSettings


class SeenError(Exception):
    """What was to be seen was."""


@pytest.fixture
def platform(tmp_path: Path) -> BatchPlatform:
    settings = replace(EmbeddedSettings(), run_dir=tmp_path, aws_secret_key="mine")
    service: Any = SimpleNamespace(process=SimpleNamespace(pid=7))
    api: Any = None
    return BatchPlatform(settings, api, {"one": service}, {"StateMachineArn": "arn", "BucketName": "bucket"})


def test_the_raw_engine_signs_with_the_secret_that_is_set(platform: BatchPlatform, monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, Any] = {}

    def create(service: str, **options: Any) -> Any:
        seen.update(options)
        raise SeenError

    monkeypatch.setattr("aiobotocore.session.get_session", lambda: SimpleNamespace(create_client=create))
    with pytest.raises(SeenError):
        asyncio.run(raw_engine(platform, []))
    assert seen["aws_secret_access_key"] == "mine"


def test_images_are_copied_with_the_secret_that_is_set(platform: BatchPlatform, monkeypatch: pytest.MonkeyPatch):
    def session(key_id: str, secret: str, **options: Any) -> Any:
        raise SeenError(secret)

    monkeypatch.setattr("boto3.Session", session)
    with pytest.raises(SeenError, match="mine"):
        platform.copy_images("folder/", 1)


def test_airflow_does_not_write_into_the_users_home(platform: BatchPlatform, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/nowhere/airflow")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "")

    def hook(*_: Any) -> Any:
        raise SeenError(os.environ["AIRFLOW_HOME"])

    monkeypatch.setattr("scones.batch.aws.hook_for", hook)
    with pytest.raises(SeenError, match=str(platform.settings.run_dir)):
        asyncio.run(our_engine(platform, []))


def test_a_child_that_ends_meanwhile_is_left_out(platform: BatchPlatform, monkeypatch: pytest.MonkeyPatch):
    """The thread that watches for the peak would end with it, and the peak be too small."""

    def ended() -> Any:
        raise psutil.NoSuchProcess(8)

    def process(pid: int) -> Any:
        child = SimpleNamespace(memory_info=ended, is_running=lambda: True)
        own = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=3_000_000), is_running=lambda: True)
        return SimpleNamespace(**vars(own), children=lambda recursive: [child])

    monkeypatch.setattr("psutil.Process", process)
    assert platform.memory_mb("one") == 3
