"""All state of the service: one SQLite file in WAL mode, one table of resources with an index for every List order.

A resource's `body` is what Describe answers (JSON; timestamps are seconds since the epoch), `internal` what only this
service needs to know (phases, stop requests). Writes are transactions: a `kill -9` at any moment loses nothing that was
answered. Each thread has its own connection; SQLite orders the writers.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sagemaker_local.config import Clock, wall_clock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
  kind TEXT NOT NULL, name TEXT NOT NULL, arn TEXT NOT NULL UNIQUE, status TEXT NOT NULL, parent TEXT NOT NULL,
  version INTEGER NOT NULL, created REAL NOT NULL, modified REAL NOT NULL, body TEXT NOT NULL, internal TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_created ON resources (kind, created, name);
CREATE INDEX IF NOT EXISTS by_modified ON resources (kind, modified, name);
CREATE INDEX IF NOT EXISTS by_status ON resources (kind, status, created, name);
CREATE INDEX IF NOT EXISTS by_status_name ON resources (kind, status, name);
CREATE INDEX IF NOT EXISTS by_parent ON resources (kind, parent, created, name);
CREATE INDEX IF NOT EXISTS by_version ON resources (kind, parent, version);
CREATE TABLE IF NOT EXISTS tags (arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

SORT_COLUMNS = {"CreationTime": "created", "LastModifiedTime": "modified", "Name": "name", "Status": "status"}


class AlreadyExists(Exception):
    """A resource of this kind and name, or with this ARN, is there already. Carries the one that is there."""

    def __init__(self, existing: Resource) -> None:
        super().__init__(existing.arn)
        self.existing = existing


@dataclass
class Resource:
    """One row. `parent` groups rows (the model package group of a package), `version` numbers them inside it.

    `created` and `modified` (seconds since the epoch) are the store's to set.
    """

    kind: str
    name: str
    arn: str
    body: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    internal: dict[str, Any] = field(default_factory=dict)
    parent: str = ""
    version: int = 0
    created: float = 0.0
    modified: float = 0.0

    def described(self, word: str) -> dict[str, Any]:
        """What Describe answers: the body, `<word>Arn` and the times."""
        times = {"CreationTime": self.created, "LastModifiedTime": self.modified}
        return {**self.body, f"{word}Arn": self.arn, **times}


@dataclass(frozen=True)
class Query:
    """What a List call asks for. Times are bounds, both exclusive; `after` is where the last page ended."""

    sort_by: str = "CreationTime"
    descending: bool = True
    limit: int = 10
    name_contains: str | None = None
    status: str | None = None
    parent: str | None = None
    among: str | None = None  # a JSON list of names
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    after: tuple[Any, str] | None = None


class _Opened:
    """One thread's connection. Only that thread holds on to this, so the connection is closed when the thread ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Store:
    """The resources, tags and facts of one service. Safe to use from any thread."""

    def __init__(self, path: Path, clock: Clock = wall_clock) -> None:
        self._path = path
        self._clock = clock
        self._local = threading.local()
        self._opened: WeakSet[_Opened] = WeakSet()
        self._guard = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection().executescript(_SCHEMA)

    def _connection(self) -> sqlite3.Connection:
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is None:
            connection = sqlite3.connect(self._path, timeout=30.0, isolation_level=None, check_same_thread=False)
            opened = _Opened(connection)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._local.opened = opened
            with self._guard:
                self._opened.add(opened)
        return opened.connection

    def close(self) -> None:
        """Close every thread's connection. Nothing may use the store afterwards."""
        with self._guard:
            for opened in self._opened:
                opened.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction on this thread's connection; joins the one already open, if any."""
        connection = self._connection()
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    # --- resources -----------------------------------------------------------------------------------------------

    def create(self, resource: Resource, tags: dict[str, str] | None = None) -> Resource:
        """Insert a resource with its tags and return it, its times set.

        Raises:
            AlreadyExists: there is one of this kind and name, or with this ARN.
        """
        resource.created = resource.modified = self._clock()
        row = {**vars(resource), "body": _dump(resource.body), "internal": _dump(resource.internal)}
        with self.transaction() as connection:
            try:
                connection.execute(
                    "INSERT INTO resources"
                    " (kind, name, arn, status, parent, version, created, modified, body, internal)"
                    " VALUES (:kind, :name, :arn, :status, :parent, :version, :created, :modified, :body, :internal)",
                    row,
                )
            except sqlite3.IntegrityError as error:
                existing = self.get(resource.kind, resource.name) or self.by_arn(resource.arn)
                if existing is None:
                    raise
                raise AlreadyExists(existing) from error
            if tags:
                self.set_tags(resource.arn, tags)
        return resource

    def get(self, kind: str, name: str) -> Resource | None:
        """The resource, or None."""
        row = self._connection().execute("SELECT * FROM resources WHERE kind=? AND name=?", (kind, name)).fetchone()
        return _resource(row) if row else None

    def by_arn(self, arn: str) -> Resource | None:
        """The resource with this ARN, or None."""
        row = self._connection().execute("SELECT * FROM resources WHERE arn=?", (arn,)).fetchone()
        return _resource(row) if row else None

    def update(
        self, kind: str, name: str, change: Callable[[Resource], None], *, touch: bool = True
    ) -> Resource | None:
        """Read, change and write a resource in one transaction; None if it is gone.

        `change` edits the resource in place and may raise to leave it as it was. `touch` moves its modified time.
        """
        with self.transaction() as connection:
            resource = self.get(kind, name)
            if resource is None:
                return None
            change(resource)
            if touch:
                resource.modified = self._clock()
            connection.execute(
                "UPDATE resources SET status=?, modified=?, body=?, internal=? WHERE kind=? AND name=?",
                (resource.status, resource.modified, _dump(resource.body), _dump(resource.internal), kind, name),
            )
        return resource

    def delete(self, kind: str, name: str) -> bool:
        """Remove a resource and its tags; False if it was not there."""
        with self.transaction() as connection:
            resource = self.get(kind, name)
            if resource is None:
                return False
            connection.execute("DELETE FROM resources WHERE kind=? AND name=?", (kind, name))
            connection.execute("DELETE FROM tags WHERE arn=?", (resource.arn,))
        return True

    def page(self, kind: str, query: Query) -> list[Resource]:
        """One page in the order asked for (ties by name), found through an index."""
        column = SORT_COLUMNS[query.sort_by]
        where, values = ["kind=?"], [kind]
        bounds: list[tuple[str, Any]] = [
            ("status=?", query.status),
            ("parent=?", query.parent),
            ("name IN (SELECT value FROM json_each(?))", query.among),
            ("created>?", query.created_after),
            ("created<?", query.created_before),
            ("modified>?", query.modified_after),
            ("modified<?", query.modified_before),
        ]
        for condition, value in bounds:
            if value is not None:
                where.append(condition)
                values.append(value)
        if query.name_contains:
            where.append("instr(lower(name), lower(?)) > 0")
            values.append(query.name_contains)
        if query.after is not None:
            where.append(f"({column}, name) {'<' if query.descending else '>'} (?, ?)")
            values.extend(query.after)
        direction = "DESC" if query.descending else "ASC"
        # Only the fixed fragments above are put into the statement; every value is bound.
        statement = (
            f"SELECT * FROM resources WHERE {' AND '.join(where)}"  # noqa: S608
            f" ORDER BY {column} {direction}, name {direction} LIMIT ?"
        )
        rows = self._connection().execute(statement, (*values, query.limit)).fetchall()
        return [_resource(row) for row in rows]

    def every(self, kind: str) -> Iterator[Resource]:
        """Every resource of a kind, oldest first. For Search; List calls have their pages."""
        for row in self._connection().execute("SELECT * FROM resources WHERE kind=? ORDER BY created, name", (kind,)):
            yield _resource(row)

    def children(self, kind: str, parent: str) -> list[Resource]:
        """Every resource of a kind under a parent, oldest first."""
        rows = self._connection().execute(
            "SELECT * FROM resources WHERE kind=? AND parent=? ORDER BY created, name", (kind, parent)
        )
        return [_resource(row) for row in rows]

    def with_status(self, kind: str, *statuses: str) -> list[Resource]:
        """Every resource of a kind in one of these states, oldest first. For start-up, not for List calls."""
        marks = ",".join("?" * len(statuses))
        rows = self._connection().execute(
            f"SELECT * FROM resources WHERE kind=? AND status IN ({marks}) ORDER BY created, name",  # noqa: S608
            (kind, *statuses),
        )
        return [_resource(row) for row in rows]

    def count(self, kind: str, parent: str) -> int:
        """How many resources of a kind have this parent."""
        row = self._connection().execute("SELECT count(*) FROM resources WHERE kind=? AND parent=?", (kind, parent))
        return int(row.fetchone()[0])

    def last_version(self, kind: str, parent: str) -> int:
        """The highest version number under a parent, 0 if there is none."""
        row = self._connection().execute("SELECT max(version) FROM resources WHERE kind=? AND parent=?", (kind, parent))
        return int(row.fetchone()[0] or 0)

    # --- tags and facts ------------------------------------------------------------------------------------------

    def tags(self, arn: str) -> dict[str, str]:
        """The tags of an ARN, by key."""
        rows = self._connection().execute("SELECT key, value FROM tags WHERE arn=? ORDER BY key", (arn,))
        return {row["key"]: row["value"] for row in rows}

    def set_tags(self, arn: str, tags: dict[str, str]) -> None:
        """Add tags, or give those that are there a new value."""
        with self.transaction() as connection:
            connection.executemany(
                "INSERT INTO tags VALUES (?,?,?) ON CONFLICT (arn, key) DO UPDATE SET value=excluded.value",
                [(arn, key, value) for key, value in tags.items()],
            )

    def delete_tags(self, arn: str, keys: list[str]) -> None:
        """Remove tags; keys that are not there are no error."""
        with self.transaction() as connection:
            connection.executemany("DELETE FROM tags WHERE arn=? AND key=?", [(arn, key) for key in keys])

    def fact(self, key: str) -> str | None:
        """A remembered value, such as the account id, or None."""
        row = self._connection().execute("SELECT value FROM facts WHERE key=?", (key,)).fetchone()
        return str(row["value"]) if row else None

    def remember(self, key: str, value: str) -> None:
        """Remember a value over restarts."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO facts VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", (key, value)
            )


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _resource(row: sqlite3.Row) -> Resource:
    return Resource(**{**row, "body": json.loads(row["body"]), "internal": json.loads(row["internal"])})
