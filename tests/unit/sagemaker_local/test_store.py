"""The store: transactions, pages, threads, and lists that go by an index."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagemaker_local.store import AlreadyExists, Query, Resource, Store


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "s.sqlite", Clock())
    yield made
    made.close()


def fill(store: Store, count: int, kind: str = "model", parent: str = "") -> list[str]:
    names = [f"m-{number:05d}" for number in range(count)]
    with store.transaction():
        for number, name in enumerate(names):
            status = "Approved" if number % 3 == 0 else "Rejected"
            store.create(Resource(kind, name, f"arn:{kind}/{name}", {"n": number}, status, {}, parent, number))
    return names


def all_pages(store: Store, kind: str, size: int, **options: object) -> list[str]:
    column = {"CreationTime": "created", "Name": "name", "Status": "status"}[
        str(options.get("sort_by", "CreationTime"))
    ]
    found: list[Resource] = []
    after = None
    while page := store.page(kind, Query(limit=size, after=after, **options)):  # type: ignore[arg-type]
        found += page
        after = (getattr(page[-1], column), page[-1].name)
    return [row.name for row in found]


def test_created_resources_are_found_by_name_and_arn(store):
    made = store.create(Resource("model", "m", "arn:m", {"a": 1}, internal={"b": 2}))
    assert store.get("model", "m") == made == store.by_arn("arn:m")
    assert store.get("model", "n") is None
    with pytest.raises(AlreadyExists) as caught:
        store.create(Resource("model", "m", "arn:other"))
    assert caught.value.existing.arn == "arn:m"
    with pytest.raises(AlreadyExists):
        store.create(Resource("model", "other", "arn:m"))


def test_an_update_that_raises_changes_nothing(store):
    store.create(Resource("model", "m", "arn:m", {"a": 1}, "New"))

    def change(row: Resource) -> None:
        row.body["a"] = 2
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.update("model", "m", change)
    found = store.get("model", "m")
    assert found is not None
    assert found.body == {"a": 1}
    assert store.update("model", "gone", lambda row: None) is None


def test_updates_from_many_threads_are_all_kept(store):
    store.create(Resource("model", "m", "arn:m", {"n": 0}))

    def add() -> None:
        for _ in range(25):
            store.update("model", "m", lambda row: row.body.update(n=row.body["n"] + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.get("model", "m")
    assert found is not None
    assert found.body == {"n": 200}


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort_by", ["CreationTime", "Name", "Status"])
def test_pages_hold_every_row_once_in_order(store, sort_by, descending):
    names = fill(store, 57)
    listed = all_pages(store, "model", 10, sort_by=sort_by, descending=descending)
    assert sorted(listed) == names
    if sort_by != "Status":
        assert listed == sorted(names, reverse=descending)
    else:
        statuses = [found.status for name in listed if (found := store.get("model", name))]
        assert statuses == sorted(statuses, reverse=descending)


def test_a_row_created_while_a_client_pages_neither_repeats_nor_hides_others(store):
    names = fill(store, 20)
    first = store.page("model", Query(limit=10, descending=False))
    store.create(Resource("model", "late", "arn:late"))
    last = first[-1]
    rest = store.page("model", Query(limit=50, descending=False, after=(last.created, last.name)))
    assert [row.name for row in first + rest] == [*names, "late"]


def test_filters(store):
    fill(store, 30)
    assert len(store.page("model", Query(limit=100, status="Approved"))) == 10
    assert [row.name for row in store.page("model", Query(limit=100, name_contains="00007"))] == ["m-00007"]
    fifth = store.get("model", "m-00005")
    assert fifth is not None
    assert len(store.page("model", Query(limit=100, created_after=fifth.created))) == 24
    assert len(store.page("model", Query(limit=100, created_before=fifth.created))) == 5


def test_what_was_written_is_there_for_another_process(store, tmp_path):
    store.create(Resource("model", "m", "arn:m"))
    with sqlite3.connect(tmp_path / "s.sqlite") as other:
        assert other.execute("SELECT count(*) FROM resources").fetchone() == (1,)


def test_a_thread_that_ends_leaves_no_connection_behind(store):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        thread = threading.Thread(target=store.get, args=("model", "m"))
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) < before + 6


def test_deleting_takes_the_tags_along(store):
    store.create(Resource("model", "m", "arn:m"))
    store.set_tags("arn:m", {"a": "1", "b": "2"})
    store.set_tags("arn:m", {"b": "3"})
    assert store.tags("arn:m") == {"a": "1", "b": "3"}
    assert store.delete("model", "m") is True
    assert store.tags("arn:m") == {}
    assert store.delete("model", "m") is False


@pytest.mark.parametrize(
    ("where", "order"),
    [
        ("kind='k'", "created DESC, name DESC"),
        ("kind='k' AND (created, name) < (5, 'x')", "created DESC, name DESC"),
        ("kind='k'", "name ASC"),
        ("kind='k'", "status DESC, name DESC"),
        ("kind='k' AND status='s'", "created DESC, name DESC"),
        ("kind='k' AND parent='p'", "created DESC, name DESC"),
        ("kind='k' AND parent='p' AND status='s'", "created DESC, name DESC"),
    ],
)
def test_lists_go_by_an_index(store, tmp_path, where, order):
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM resources WHERE {where} ORDER BY {order} LIMIT 10")
        steps = [row[3] for row in plan]
    assert all("SCAN" not in step for step in steps), steps
    assert all("TEMP B-TREE" not in step for step in steps), steps
