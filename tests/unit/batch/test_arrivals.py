"""Arrivals: messages as they come, each image in one batch, and when the bell rings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scones.aws import layout
from scones.batch import arrivals, trigger
from scones.batch.arrivals import Bell, NoArrivalError, NothingArrivedError, Post, make_arrivals, read_arrival
from scones.batch.params import ARRIVALS
from scones.batch.plan import Plan
from scones.batch.store import BatchStore
from tests.support.batch_world import MODEL
from tests.support.fake_aws import AsyncScript, FakeS3, client_error

OUTPUTS = {"ArrivalsPrefix": "incoming/", "StateMachineArn": "arn:machine", "ArrivalsQueueUrl": "http://queue"}
PARAMS: dict[str, Any] = {name: field["default"] for name, field in ARRIVALS.items()} | {"threshold": 0.9}


def event(key: Any, etag: Any = "e1", bucket: str = "b", kind: str = "Object Created") -> str:
    detail = {"bucket": {"name": bucket}, "object": {"key": key, "etag": etag, "size": 1, "sequencer": "00"}}
    return json.dumps({"version": "0", "source": "aws.s3", "detail-type": kind, "detail": detail})


@pytest.mark.parametrize(
    "key", ["incoming/a.png", "incoming/a b+ü%20.png", "incoming/%2B.png", "incoming/\n.png", "incoming/" + "x" * 1015]
)
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert read_arrival(event(key, '"e1"'), "b") == (key, "e1")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "null",
        "[]",
        '"detail"',
        "[" * 100_000,
        '{"detail": 7}',
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}',
        '{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "incoming/a.png", "eTag": "e1"}}}]}',
        "x" * 1_048_576,
        event("incoming/a.png", bucket="another"),
        event("incoming/a.png", kind="Object Deleted"),
        event(""),
        event(7),
        event(["incoming/a.png"]),
        event("incoming/a.png", etag=None),
        event("k" * 1025),
        event("incoming/\ud800.png"),
    ],
    ids=lambda body: body[:20],
)
def test_what_is_no_arrival_is_counted_and_quoted(body: str) -> None:
    with pytest.raises(NoArrivalError):
        read_arrival(body, "b")
    post = Post.read([body, event("incoming/a.png")], "b")
    assert (post.messages, post.unreadable, post.images) == (2, 1, [["incoming/a.png", "e1"]])
    assert len(post.quoted) == 1
    assert len(post.quoted[0]) < 3 * arrivals.QUOTE_CHARACTERS


def test_a_flood_of_nonsense_is_quoted_in_part() -> None:
    post = Post.read(["nonsense"] * 1000, "b")
    assert (post.unreadable, len(post.quoted)) == (1000, arrivals.QUOTED)


class FakeQueue:
    """Messages that stay until they are deleted, as SQS has them."""

    def __init__(self, *bodies: str) -> None:
        self.bodies = dict(enumerate(bodies))

    def receive(self, at_most: int) -> list[tuple[str, str]]:
        return [(str(number), body) for number, body in self.bodies.items()][:at_most]

    def delete(self, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            del self.bodies[int(receipt)]


class Bucket:
    """A bucket in which images arrive; each new one, and each written again, with its message."""

    def __init__(self) -> None:
        self.s3 = FakeS3()
        self.store = BatchStore("b", client=self.s3)
        self.queue = FakeQueue()

    def put(self, *keys: str, body: bytes = b"image") -> None:
        for key in keys:
            self.s3.objects[key] = body
            told = event(key, self.s3.head_object(Key=key)["ETag"].strip('"'))
            self.queue.bodies[len(self.s3.objects) * 1000 + len(self.queue.bodies)] = told

    def plan(self, batch_id: str, **params: Any) -> Plan:
        return make_arrivals(self.queue, self.store, batch_id, PARAMS | params, OUTPUTS, MODEL)

    def keys(self, batch_id: str) -> list[str]:
        lines = self.s3.objects[layout.chunk(batch_id, 0)].decode().splitlines()
        return [json.loads(line)["s3_key"] for line in lines]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def test_all_that_arrived_is_one_batch_and_each_image_once(bucket: Bucket) -> None:
    odd = "incoming/a b+ü%20.PNG"
    bucket.put("incoming/1.png", odd, "incoming/1.png", "incoming/notes.txt", "incoming/folder/")
    bucket.put("incoming/1.png")
    bucket.queue.bodies[-1] = "poison"
    plan = bucket.plan("one")
    assert bucket.keys("one") == ["incoming/1.png", odd]
    assert bucket.queue.bodies == {}
    assert (plan.images, plan.counts["messages"], plan.counts["unreadable"], plan.counts["no_images"]) == (2, 7, 1, 2)
    notes = "\n".join(plan.warnings)
    assert "poison" in notes
    assert "incoming/notes.txt" in notes
    assert json.loads(bucket.s3.objects[layout.arrivals("one")])["repeated"] == 2


def test_an_image_told_of_again_is_not_scored_again_and_an_overwritten_one_is(bucket: Bucket) -> None:
    bucket.put("incoming/1.png", "incoming/2.png")
    bucket.plan("one")
    bucket.put("incoming/1.png")
    with pytest.raises(NothingArrivedError, match=r"'taken_before': 1"):
        bucket.plan("two")
    bucket.put("incoming/1.png", body=b"another")
    bucket.plan("three")
    assert bucket.keys("three") == ["incoming/1.png"]


def test_what_is_gone_or_overwritten_meanwhile_is_left_to_what_is_there_now(bucket: Bucket) -> None:
    bucket.put("incoming/1.png", "incoming/2.png", "incoming/3.png")
    bucket.put("incoming/2.png", body=b"newer")
    del bucket.s3.objects["incoming/1.png"]
    plan = bucket.plan("one")
    assert sorted(bucket.keys("one")) == ["incoming/2.png", "incoming/3.png"]
    assert (plan.counts["gone"], plan.counts["replaced"]) == (1, 1)
    assert "1 objects are gone: 'incoming/1.png'" in plan.warnings


def test_a_try_that_dies_anywhere_loses_nothing_and_doubles_nothing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(*(f"incoming/{number}.png" for number in range(5)))
    wanted = sorted(key for key in bucket.s3.objects if key.startswith("incoming/"))

    def die(*_: Any, **__: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:  # before anything is written down: the messages are there
        patch.setattr(bucket.store, "write_json", die)
        with pytest.raises(ConnectionError):
            bucket.plan("one")
    assert len(bucket.queue.bodies) == 5
    with monkeypatch.context() as patch:  # written down and not deleted
        patch.setattr(bucket.queue, "delete", die)
        with pytest.raises(ConnectionError):
            bucket.plan("one")
    with monkeypatch.context() as patch:  # claimed and not planned
        patch.setattr(arrivals, "make_plan", die)
        with pytest.raises(ConnectionError):
            bucket.plan("one")
    # The messages come again, and another run takes them: the images are the first one's.
    with pytest.raises(NothingArrivedError, match=r"'taken_before': 5"):
        bucket.plan("two")
    assert bucket.plan("one").images == 5
    assert sorted(bucket.keys("one")) == wanted


def test_a_run_takes_so_many_messages_and_leaves_the_rest_to_the_next(bucket: Bucket) -> None:
    bucket.put(*(f"incoming/{number}.png" for number in range(7)))
    assert [bucket.plan(name, max_messages=3).images for name in ("one", "two", "three")] == [3, 3, 1]


def test_a_sweep_finds_what_no_message_told_of(bucket: Bucket) -> None:
    bucket.put("incoming/1.png", "incoming/2.png")
    bucket.plan("one", max_messages=1)
    bucket.queue.bodies.clear()
    with pytest.raises(NothingArrivedError, match=r"'messages': 0"):
        bucket.plan("two")
    bucket.plan("three", sweep=True)
    assert bucket.keys("three") == ["incoming/2.png"]


def test_the_bell_rings_at_once_for_what_is_new_and_ever_less_often_for_what_nobody_takes() -> None:
    bell, now = Bell(), 1000.0
    pauses = []
    for _ in range(8):
        pauses.append(bell.ring(900.0, now))
        now += pauses[-1]
    assert pauses == [20, 40, 80, 160, 320, 640, 900, 900]
    assert bell.ring(now - 1, now) == 20, "what came after the last ring: the earlier ones were taken"


class _Clock:
    """Sleeping takes no time, and is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept: list[float] = []
        monkeypatch.setattr(trigger.asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def _message(sent_at: float) -> dict[str, Any]:
    return {
        "Messages": [{"ReceiptHandle": "r", "Body": "x", "Attributes": {"SentTimestamp": str(int(sent_at * 1000))}}]
    }


def test_the_watcher_outlives_outages_takes_nothing_and_waits_by_long_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    sqs = AsyncScript(receive_message=[client_error("ServiceUnavailable", "away", status=503), {}, {}, _message(1000)])
    outputs: list[Any] = [OSError("no network"), {}, OUTPUTS, OUTPUTS]

    def stack_outputs(*_: Any) -> dict[str, str]:
        found = outputs.pop(0)
        if isinstance(found, Exception):
            raise found
        return dict(found)

    @asynccontextmanager
    async def client(*_: Any) -> AsyncIterator[Any]:
        yield sqs

    monkeypatch.setattr("scones.aws.resources.stack_outputs", stack_outputs)
    monkeypatch.setattr("scones.batch.aws.async_client", client)

    async def first() -> Any:
        return await anext(trigger.ArrivalsTrigger().run())

    fired = asyncio.run(first())
    assert fired.payload == {"waiting_since": "1970-01-01T00:16:40+00:00"}
    # An outage of the network, a stack without the queue, an outage of SQS: a pause each, and none while it polls.
    assert clock.slept == [trigger.BLIND_S] * 3
    looks = sqs.called("receive_message")
    assert len(looks) == 4
    assert all((look["WaitTimeSeconds"], look["VisibilityTimeout"]) == (20, 0) for look in looks)
    assert {name for name, _ in sqs.calls} == {"receive_message"}
