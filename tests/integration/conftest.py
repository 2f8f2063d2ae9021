"""A platform of the test's own: its own run folder and ports, as a second checkout would have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded.processes import end_leftovers
from embedded.settings import VARIABLES, free_port
from tests.integration.live import LivePlatform
from tests.support.checkout import Checkout, make_checkout

if TYPE_CHECKING:
    from tests.support.running_platform import RunningPlatform


@pytest.fixture
def checkout_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Checkout]]:
    """`checkout_factory(CIFAR100_ARCHIVE=...)` gives a platform that nobody else uses; all of it ends with the test."""
    made: list[Checkout] = []

    def make(**overrides: str) -> Checkout:
        made.append(make_checkout(tmp_path_factory, **overrides))
        return made[-1]

    yield make
    for checkout in made:
        end_leftovers(checkout.run_dir)


@pytest.fixture(scope="session")
def trained_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A platform with a deployed model, for all tests of the session that only need one to work on."""
    from tests.support.running_platform import RunningPlatform

    run_dir = tmp_path_factory.mktemp("trained") / "run"
    ports = {VARIABLES[name]: str(free_port()) for name in VARIABLES if name.endswith("_port")}
    # The drawn sample will do, and is there on every machine.
    environment = {**os.environ, **ports, "SCONES_RUN_DIR": str(run_dir), "CIFAR100_MIRRORS": ""}
    environment.pop("AIRFLOW_HOME", None)
    checkout = Checkout(run_dir, environment)
    try:
        done = checkout.call("up")
        assert done.returncode == 0, done.stdout
        platform = RunningPlatform(checkout)
        run_id = platform.start("train_and_deploy", {"epochs": 3, "minimum_accuracy": 0.5})
        assert platform.wait("train_and_deploy", run_id, 900) == "success", platform.explain("train_and_deploy", run_id)
        yield platform
        checkout.call("down")
    finally:
        end_leftovers(run_dir)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[LivePlatform]:
    """One platform that is up, shared by all tests of the session that only start runs on it.

    LIVE_PLATFORM=<run folder> uses one that is up already, which saves a minute while writing a test.
    """
    if up_already := os.environ.get("LIVE_PLATFORM"):
        yield LivePlatform(Path(up_already))
        return
    checkout = make_checkout(tmp_path_factory, CIFAR100_ARCHIVE=str(shared_data / "cifar-100-python.tar.gz"))
    try:
        done = checkout.call("up")
        assert done.returncode == 0, done.stdout
        yield LivePlatform(checkout.run_dir)
        assert checkout.call("down").returncode == 0
    finally:
        end_leftovers(checkout.run_dir)
