import ast
import ctypes
import multiprocessing
import sqlite3
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.base_executor import RunningRetryAttemptType
from airflow.executors.local_executor import LocalExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import State
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from embedded import airflow_scheduler
from embedded.airflow_scheduler import BETWEEN_LOOKS_S, TASKS, WAITING, DatabaseWatch, Handover


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


def write(database: Path, statement: str = "INSERT INTO dag_run (state) VALUES ('queued')") -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)


@pytest.fixture(params=["WAL", "DELETE"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "airflow.db"
    # Held open, as the scheduler itself does: the log of writes goes with the last connection.
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={request.param}")
    connection.execute("CREATE TABLE dag_run (dag_id TEXT DEFAULT 'd', run_id TEXT DEFAULT 'r', state TEXT)")
    connection.execute(
        "CREATE TABLE task_instance (id TEXT, dag_id TEXT DEFAULT 'd', run_id TEXT DEFAULT 'r', state TEXT, beat TEXT)"
    )
    connection.execute("CREATE TABLE asset_dag_run_queue (target_dag_id TEXT)")
    connection.execute("CREATE TABLE job (latest_heartbeat TEXT)")
    connection.execute("INSERT INTO dag_run (state) VALUES ('success')")
    connection.execute("INSERT INTO task_instance (id, state) VALUES ('first', 'success')")
    connection.commit()
    yield path
    connection.close()


def test_it_sleeps_until_somebody_writes(clock: Clock, database: Path) -> None:
    watch = DatabaseWatch(database)
    clock.at = [(3.0, lambda: write(database))]
    watch.sleep(60)
    assert 3.0 <= clock.now < 3.2


@pytest.mark.parametrize(
    "work",
    [
        "INSERT INTO dag_run (state) VALUES ('queued')",
        "INSERT INTO asset_dag_run_queue VALUES ('train_and_deploy')",
    ],
)
def test_signs_of_life_are_no_work(clock: Clock, database: Path, work: str) -> None:
    alive = "INSERT INTO job VALUES ('now')"
    watch = DatabaseWatch(database)
    clock.at = [(at, lambda: write(database, alive)) for at in (2.0, 3.0, 4.0)]
    clock.at += [(10.0, lambda: write(database, work)), (20.0, lambda: write(database, alive))]
    watch.sleep(60)
    assert 10.0 <= clock.now < 10.2
    watch.sleep(60)  # with the next full second
    assert clock.now < 11
    watch.sleep(60)
    assert 20.0 <= clock.now < 20.2, "there is still work, and something was written"


def test_in_a_running_run_only_another_state_of_a_task_is_work(clock: Clock, database: Path) -> None:
    watch = DatabaseWatch(database)
    news = {
        1.0: "UPDATE dag_run SET state = 'running'",
        3.0: "INSERT INTO task_instance (id) VALUES ('second')",
        6.0: "UPDATE task_instance SET state = 'queued' WHERE id = 'second'",
        12.0: "UPDATE task_instance SET state = 'success' WHERE id = 'second'",
        15.0: "UPDATE task_instance SET state = NULL WHERE id = 'first'",
        18.0: "UPDATE dag_run SET state = 'failed'",
    }
    signs_of_life = {
        7.0: "UPDATE task_instance SET state = 'running' WHERE id = 'second'",
        8.0: "UPDATE task_instance SET beat = 'now' WHERE id = 'second'",
        9.0: "INSERT INTO job VALUES ('now')",
    }
    clock.at = [(at, lambda said=said: write(database, said)) for at, said in sorted((news | signs_of_life).items())]
    for at in news:
        watch.sleep(60)
        assert at <= clock.now < at + 0.2
        watch.sleep(60)  # with the next full second
        assert clock.now < at + 1.2
    watch.sleep(60)
    assert clock.now > 60


def test_a_write_that_is_seen_before_it_is_done_is_not_missed(
    clock: Clock, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files' times are coarser than a write: its first and its last byte may bear the same."""
    watch = DatabaseWatch(database)
    times = iter([0, 0, 1, *[1] * 1000])
    monkeypatch.setattr(watch, "_written", lambda: next(times))
    clock.at = [(BETWEEN_LOOKS_S + 0.25, lambda: write(database))]
    watch.sleep(60)
    assert clock.now < 1


def test_what_cannot_be_read_is_left_to_the_scheduler(clock: Clock, database: Path) -> None:
    watch = DatabaseWatch(database)
    clock.at = [(3.0, lambda: write(database, "DROP TABLE asset_dag_run_queue"))]
    watch.sleep(60)
    assert 3.0 <= clock.now < 3.2


def test_the_question_for_work_is_answered_by_airflows_own_tables_out_of_an_index() -> None:
    from airflow.models import import_all_models
    from airflow.models.asset import AssetDagRunQueue
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

    import_all_models()
    with closing(sqlite3.connect(":memory:")) as connection:
        for table in (DagRun.__table__, TaskInstance.__table__, AssetDagRunQueue.__table__):
            connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
            for index in table.indexes:
                connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
        steps = [step for sql in (WAITING, TASKS) for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert any("idx_dag_run_running_dags" in step for step in steps), steps
    assert any("idx_dag_run_queued_dags" in step for step in steps), steps
    assert any("SEARCH task USING INDEX" in step for step in steps), steps
    assert {str(state) for state in State.unfinished_dr_states} == {"queued", "running"}


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


KEY = TaskInstanceKey("d", "t", "r", try_number=1)


class Worker(LocalExecutor):
    """The executor with nobody at work: a test hands in the ends of processes."""

    def __init__(self) -> None:
        super().__init__(parallelism=2)
        queues: list[Any] = [SimpleQueue(), SimpleQueue()]
        self.activity_queue, self.result_queue = queues
        self._unread_messages = multiprocessing.Value(ctypes.c_uint)

    def _check_workers(self) -> None:
        pass

    def queue(self, *keys: TaskInstanceKey) -> None:
        for key in keys:
            self.queued_tasks[key] = SimpleNamespace(key=key, ti=SimpleNamespace(priority_weight=1), sort_key=1)

    def look(self) -> list[TaskInstanceKey]:
        """One look of the scheduler's; what it gave to the workers."""
        self.heartbeat()
        started = []
        while not self.activity_queue.empty():
            started.append(self.activity_queue.get().key)
        return started

    def would_fail(self, key: TaskInstanceKey) -> bool:
        """Whether Airflow, which finds the task queued, takes an end that it hears of for that one's."""
        known: Any = SimpleNamespace(id="", key=key)
        return key in self.get_event_buffer() and not self.has_task(known)


@pytest.fixture
def worker() -> tuple[Worker, Handover]:
    class Handed(Worker):
        pass

    handover = Handover(Handed)
    return Handed(), handover


def test_airflow_fails_a_task_whose_first_process_it_hears_of_late():
    """What the handover is for. When this fails, Airflow has mended it and the handover can go."""
    executor = Worker()
    executor.queue(KEY)
    assert executor.look() == [KEY]
    executor.result_queue.put((KEY, State.SUCCESS, None))
    executor.queue(KEY)
    assert executor.look() == [KEY]
    assert executor.would_fail(KEY)


def test_a_task_goes_on_when_the_end_of_its_first_process_was_heard(worker: tuple[Worker, Handover]):
    executor, _ = worker
    executor.queue(KEY)
    assert executor.look() == [KEY]
    executor.result_queue.put((KEY, State.SUCCESS, None))
    executor.queue(KEY)
    assert executor.look() == []
    assert not executor.would_fail(KEY)
    assert executor.look() == [KEY]
    executor.result_queue.put((KEY, State.FAILED, None))
    executor.look()
    assert executor.would_fail(KEY), "this is its own end"


def test_a_task_waits_for_the_end_of_its_first_process_and_others_do_not(worker: tuple[Worker, Handover]):
    executor, handover = worker
    other = KEY._replace(task_id="other")
    executor.queue(KEY)
    executor.look()
    executor.queue(KEY, other)
    assert executor.look() == [other]
    assert not handover.ready()
    executor.result_queue.put((KEY, State.SUCCESS, None))
    assert handover.ready()
    assert executor.look() == []
    assert not executor.would_fail(KEY)
    assert executor.look() == [KEY]
    assert not handover.ready()


def test_an_end_that_nobody_tells_of_is_not_waited_for_for_ever(
    worker: tuple[Worker, Handover], monkeypatch: pytest.MonkeyPatch
):
    executor, _ = worker
    executor.queue(KEY)
    executor.look()
    executor.queue(KEY)
    assert executor.look() == []
    monkeypatch.setattr(RunningRetryAttemptType, "elapsed", RunningRetryAttemptType.MIN_SECONDS + 1)
    assert executor.look() == []
    assert executor.look() == [KEY]


def test_what_no_database_tells_of_ends_the_sleep_too(clock: Clock, database: Path):
    called: list[float] = []
    watch = DatabaseWatch(database, lambda: bool(called))
    clock.at.append((2.0, lambda: called.append(clock.now)))
    watch.sleep(5)
    assert 2.0 <= clock.now < 2.5
