import ast
import sqlite3
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded import airflow_scheduler
from embedded.airflow_scheduler import BETWEEN_LOOKS_S, DatabaseWatch


class Clock:
    """Time that passes by sleeping only; `at` holds what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: list[tuple[float, object]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.25 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.at and self.at[0][0] <= self.now:
            self.at.pop(0)[1]()  # type: ignore[operator]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(airflow_scheduler, "time", clock)
    return clock


def write(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO dag_run VALUES ('triggered')")


@pytest.fixture(params=["WAL", "DELETE"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "airflow.db"
    # Held open, as the scheduler itself does: the log of writes goes with the last connection.
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={request.param}")
    connection.execute("CREATE TABLE dag_run (state TEXT)")
    connection.commit()
    yield path
    connection.close()


def test_it_sleeps_until_somebody_writes(clock: Clock, database: Path) -> None:
    watch = DatabaseWatch(database)
    clock.at = [(3.0, lambda: write(database))]
    watch.sleep(60)
    assert 3.0 <= clock.now < 3.2


def test_without_a_write_it_sleeps_its_time(clock: Clock, database: Path) -> None:
    watch = DatabaseWatch(database)
    watch.sleep(5)
    assert 5.0 <= clock.now < 5.2
    watch.sleep(0.25)  # up to the next of the scheduler's own dates
    assert 5.25 <= clock.now < 5.5


def test_a_write_during_a_look_is_seen_after_it(clock: Clock, database: Path) -> None:
    watch = DatabaseWatch(database)
    watch.sleep(5)
    write(database)
    before = clock.now
    watch.sleep(60)
    assert clock.now - before == pytest.approx(BETWEEN_LOOKS_S)


def test_after_a_write_one_more_look_is_due_with_the_next_full_second(clock: Clock, database: Path) -> None:
    """A run that is due at 12:00:00.9 is found from 12:00:01 on: SQLite's "now" has whole seconds."""
    watch = DatabaseWatch(database)
    write(database)
    watch.sleep(60)
    assert clock.now == pytest.approx(BETWEEN_LOOKS_S)
    watch.sleep(60)
    assert clock.time() % 1 == pytest.approx(0, abs=0.11)
    assert clock.now < 1
    before = clock.now
    watch.sleep(60)
    assert clock.now - before >= 60


def test_a_database_that_is_not_there_yet_wakes_it_when_it_is(clock: Clock, tmp_path: Path) -> None:
    watch = DatabaseWatch(tmp_path / "airflow.db")
    clock.at = [(2.0, lambda: sqlite3.connect(tmp_path / "airflow.db").execute("CREATE TABLE dag_run (state TEXT)"))]
    watch.sleep(60)
    assert clock.now < 2.2


def test_a_write_of_another_thread_ends_a_real_sleep(database: Path) -> None:
    watch = DatabaseWatch(database)
    asleep = threading.Thread(target=watch.sleep, args=(3600,), daemon=True)
    asleep.start()
    write(database)
    asleep.join(60)
    assert not asleep.is_alive()


def test_airflow_only_sleeps_by_the_module_that_is_replaced() -> None:
    """Did Airflow sleep in another way, the watch would be passed by, and a trigger wait for the whole idle sleep."""
    source = Path(sysconfig.get_path("purelib"), "airflow", "jobs", "scheduler_job_runner.py").read_text()
    nodes = list(ast.walk(ast.parse(source)))
    used = [
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    ]
    assert used == ["sleep"]
    assert [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names].count("time") == 1
