"""The store says "not there" of what is not there only, and loses nobody's change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from scones.aws.errors import code_of
from scones.aws.store import (
    JSON,
    ArchivedObjectError,
    ConflictError,
    DamagedDocumentError,
    NotDeletedError,
    ObjectStore,
    ObjectTooLargeError,
)
from tests.support.fake_aws import FakeS3, client_error


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def store(s3: FakeS3) -> ObjectStore:
    return ObjectStore("b", client=s3)


@pytest.mark.parametrize("read", ["read", "read_json", "lines"])
def test_what_is_not_there_is_none_and_what_is_refused_is_an_error(store: ObjectStore, s3: FakeS3, read: str) -> None:
    assert getattr(store, read)("absent") is None
    s3.forbidden.add("secret")
    with pytest.raises(ClientError) as refused:
        getattr(store, read)("secret")
    assert code_of(refused.value) == "AccessDenied"


def test_exists_tells_absent_from_refused(store: ObjectStore, s3: FakeS3) -> None:
    s3.objects["there"] = b""
    s3.forbidden.add("secret")
    assert (store.exists("there"), store.exists("absent")) == (True, False)
    with pytest.raises(ClientError):
        store.exists("secret")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_document_is_named(store: ObjectStore, s3: FakeS3, body: bytes) -> None:
    s3.objects["config/x.json"] = body
    with pytest.raises(DamagedDocumentError, match=r"s3://b/config/x\.json"):
        store.read_json("config/x.json")


def test_a_damaged_document_counts_as_none_where_one_can_do_without_and_is_named(
    store: ObjectStore, s3: FakeS3, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.read_usable("k", "it is written anew") == {}
    assert caplog.text == ""
    s3.objects["k"] = b"{"
    assert store.read_usable("k", "it is written anew") == {}
    assert "s3://b/k is not JSON" in caplog.text
    assert "it is written anew" in caplog.text
    s3.objects["k"] = b'{"n": 1}'
    assert store.read_usable("k", "it is written anew") == {"n": 1}
    s3.forbidden.add("k")
    with pytest.raises(ClientError, match="AccessDenied"):
        store.read_usable("k", "it is written anew")


def test_a_reader_says_how_much_it_takes(store: ObjectStore, s3: FakeS3) -> None:
    s3.objects["k"] = b"12345"
    assert store.read("k", at_most=5) == b"12345"
    with pytest.raises(ObjectTooLargeError):
        store.read("k", at_most=4)


def test_an_archived_object_is_there_and_says_that_it_must_be_restored(store: ObjectStore, s3: FakeS3) -> None:
    s3.objects["k"] = b"12345"
    s3.archived.add("k")
    assert store.exists("k")
    with pytest.raises(ArchivedObjectError, match="s3://b/k is archived: restore it first"):
        store.read("k")


def test_lines_come_without_their_ends(store: ObjectStore, s3: FakeS3) -> None:
    s3.objects["k"] = b"a\nb\n\nc"
    assert list(store.lines("k") or ()) == [b"a", b"b", b"", b"c"]


def test_listing_objects_and_folders(store: ObjectStore, s3: FakeS3) -> None:
    s3.objects.update({"r/a/1": b"x", "r/a/2": b"", "r/b/1": b"", "s/c": b""})
    assert [one["Key"] for one in store.objects("r/a/")] == ["r/a/1", "r/a/2"]
    assert list(store.folders("r/")) == ["r/a/", "r/b/"]


def test_no_concurrent_change_is_lost(store: ObjectStore, s3: FakeS3) -> None:
    """Somebody else writes between our read and our write, three times."""
    others = iter([b'{"n": 10}', b'{"n": 20}', b'{"n": 30}'])

    def add_one(body: bytes | None) -> bytes:
        if other := next(others, None):
            s3.objects["k"] = other
        return json.dumps({"n": json.loads(body or b'{"n": 0}')["n"] + 1}).encode()

    store.update("k", add_one, JSON)
    assert json.loads(s3.objects["k"]) == {"n": 31}


def test_who_always_loses_is_told_so(store: ObjectStore, s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scones.aws.store.time.sleep", lambda _: None)
    writes = iter(range(1000))

    def overtaken(_: bytes | None) -> bytes:
        s3.objects["k"] = str(next(writes)).encode()
        return b"ours"

    with pytest.raises(ConflictError, match="s3://b/k"):
        store.update("k", overtaken, "text/plain")
    assert s3.objects["k"] != b"ours"


def test_leaving_an_object_as_it_is_writes_nothing(store: ObjectStore, s3: FakeS3) -> None:
    store.update("k", lambda body: None, "text/plain")
    assert "k" not in s3.objects


def test_a_new_object_is_written_once_and_a_conflict_is_no_answer(
    store: ObjectStore, s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 409 while somebody else writes or deletes the key: then nobody knows yet whether there is one."""
    monkeypatch.setattr("scones.aws.store.time.sleep", lambda _: None)
    conflicts, put = ["ConditionalRequestConflict", "409"], s3.put_object

    def put_object(**arguments: Any) -> dict[str, Any]:
        if conflicts:
            raise client_error(conflicts.pop(), "k", status=409)
        return put(**arguments)

    s3.__dict__["put_object"] = put_object
    assert store.write_new("k", b"one", "text/plain")
    assert not store.write_new("k", b"two", "text/plain")
    assert store.read("k") == b"one"
    conflicts += ["409"] * 100
    with pytest.raises(ConflictError, match="times in a row"):
        store.write_new("other", b"one", "text/plain")


def test_deleting_takes_a_thousand_at_a_time_and_says_what_s3_kept(store: ObjectStore, s3: FakeS3) -> None:
    keys = [f"k/{number}" for number in range(1001)]
    s3.objects.update(dict.fromkeys(keys, b""))
    store.delete([*keys, "gone"])
    assert s3.objects == {}
    s3.objects["k"] = b""
    s3.forbidden.add("k")
    with pytest.raises(NotDeletedError, match=r"\(AccessDenied\).*1 of 1 objects of b were kept, the first is k"):
        store.delete(["k"])
