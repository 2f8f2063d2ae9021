"""Images that arrived below a prefix: what the queue's messages tell, and the batch that is made of it, once each.

At least once is what S3, EventBridge and SQS promise, in no order. An image is therefore its key and its ETag, and it
belongs to the batch that claimed it first, by an object that S3 lets only one write.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from scones.aws.naming import content_hash
from scones.batch.inputs import KEY_BYTES_MAX
from scones.batch.items import Entry, Item
from scones.batch.params import BATCH
from scones.batch.plan import Plan, make_plan
from scones.batch.sources import IMAGE_SUFFIXES, Filters, Source
from scones.batch.store import BatchStore
from scones.training.served import ServedModel

QUOTED, QUOTE_CHARACTERS = 10, 200
THREADS = 8


class NothingArrivedError(Exception):
    """No image is there that has not been scored; the message says what was there instead."""


class NoArrivalError(ValueError):
    """A message tells of no object of the bucket."""


# ---- when to start a run


@dataclass
class Bell:
    """When to ring for what lies in the queue: at once, and then ever less often until somebody takes it.

    The pause is about as long as nobody came, so a run that scores for ten minutes delays what arrives after it by no
    more than it took itself.
    """

    shortest_s: float = 20
    longest_s: float = 900
    rung_at: float = 0
    pause_s: float = 0

    def ring(self, sent_at: float, now: float) -> float:
        """Note a ring for a message that was sent at ``sent_at``; return the seconds until the next look.

        A message that is younger than the last ring says that somebody took those before it.
        """
        taken = sent_at > self.rung_at
        self.pause_s = self.shortest_s if taken else min(self.longest_s, 2 * self.pause_s)
        self.rung_at = now
        return self.pause_s


# ---- messages


def read_arrival(body: str, bucket: str) -> tuple[str, str]:
    """Return the key and ETag of the object that a message tells of: S3's `Object Created`, as EventBridge sends it.

    EventBridge gives the key as it is. S3's own notifications would quote it; the queue takes none.

    Raises:
        NoArrivalError: it is something else.
    """
    try:
        event = json.loads(body)
        detail = event["detail"]
        key, etag, where = detail["object"]["key"], detail["object"]["etag"], detail["bucket"]["name"]
        size = len(key.encode())
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise NoArrivalError("no event of S3") from None
    if event.get("detail-type") != "Object Created" or where != bucket:
        raise NoArrivalError("another event, or another bucket")
    if not isinstance(etag, str) or not 0 < size <= KEY_BYTES_MAX:
        raise NoArrivalError("no key, or none that S3 can have")
    return key, etag.strip('"')


@dataclass
class Post:
    """What lay in the queue, as a batch keeps it: its images, and how much was something else.

    Attributes:
        images: ``[key, ETag]``, each pair once, in the order of their first message.
        quoted: the first of the messages that told of no image: why, and how they begin.
    """

    messages: int = 0
    repeated: int = 0
    unreadable: int = 0
    images: list[list[str]] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, bodies: Iterable[str], bucket: str) -> Post:
        """Read the messages' bodies."""
        post, seen = cls(), dict[tuple[str, str], None]()
        for body in bodies:
            post.messages += 1
            try:
                image = read_arrival(body, bucket)
            except NoArrivalError as error:
                post.unreadable += 1
                if len(post.quoted) < QUOTED:
                    post.quoted.append(f"{error}: {body[:QUOTE_CHARACTERS]!r}")
                continue
            post.repeated += image in seen
            seen[image] = None
        post.images = [list(image) for image in seen]
        return post


# ---- the batch


class Queue(Protocol):
    """The queue of arrivals."""

    def receive(self, at_most: int) -> Sequence[tuple[str, str]]:
        """Return (receipt, body) of what lies there; nobody else gets it for five minutes."""

    def delete(self, receipts: Sequence[str]) -> None:
        """Take messages out for good."""


def make_arrivals(
    queue: Queue,
    store: BatchStore,
    batch_id: str,
    params: dict[str, Any],
    resources: Mapping[str, str],
    model: ServedModel,
) -> Plan:
    """Take what lies in the queue and plan it as a batch. A retry goes on with what the first try took.

    A message is deleted when the batch has written down what it says, so none is lost with whoever read it.

    Raises:
        NothingArrivedError: no image is new.
        BatchInputError: the batch cannot be planned.
    """
    written = store.arrivals(batch_id)
    if written is None:
        received = queue.receive(params["max_messages"])
        post = Post.read((body for _, body in received), store.bucket)
        written = asdict(post)
        if received:
            store.write_arrivals(batch_id, written)
        queue.delete([receipt for receipt, _ in received])
    told: list[list[str]] = written["images"]
    if params["sweep"]:
        found = store.objects(resources["ArrivalsPrefix"])
        told = told + [[entry["Key"], entry["ETag"].strip('"')] for entry in found]
    tally, passed_over = Counter[str](), {why: list[str]() for why in _PASSED_OVER}
    filters = Filters(tuple(suffix.lower() for suffix in params["suffixes"]) or IMAGE_SUFFIXES)
    new = []
    for entry in _sorted_out(store, batch_id, told, filters):
        if isinstance(entry, Entry):
            new.append(entry)
        else:
            why, key = entry
            tally[why] += 1
            if why in passed_over and len(passed_over[why]) < QUOTED:
                passed_over[why].append(f"{key!r:.{QUOTE_CHARACTERS}}")
    notes = [
        f"{tally[why]} objects {_PASSED_OVER[why]}: {', '.join(some)}" for why, some in passed_over.items() if some
    ]
    if written["unreadable"]:
        notes.append(f"{written['unreadable']} messages tell of no image: {', '.join(written['quoted'])}")
    counts = {"messages": written["messages"], "unreadable": written["unreadable"], **tally}
    if not new:
        raise NothingArrivedError("; ".join([f"No new image. {counts}", *notes]))
    source = Source(f"what arrived in {store.uri(resources['ArrivalsPrefix'])}", new, "", counts=counts, notes=notes)
    everything = {name: param["default"] for name, param in BATCH.items()} | params
    return make_plan(store, batch_id, everything, resources, model, source)


SCORED, GONE, REPLACED, OTHER = "taken_before", "gone", "replaced", "no_images"
_PASSED_OVER = {
    OTHER: "don't end like images",
    GONE: "are gone",
    REPLACED: "were overwritten since: what is there now has a message of its own",
}


def _sorted_out(
    store: BatchStore, batch_id: str, told: Sequence[Sequence[str]], filters: Filters
) -> Iterator[Entry | tuple[str, str]]:
    """Yield each image that is this batch's, and for every other one why it is not, with its key."""

    def look(image: Sequence[str]) -> Entry | tuple[str, str]:
        key, etag = image
        if not filters.takes(Entry(Item(key, etag=etag))):
            return OTHER, key
        head = store.head(key)
        if head is None:
            return GONE, key
        if head["ETag"].strip('"') != etag:
            return REPLACED, key
        if not store.claim(batch_id, content_hash([key, etag], 32)):
            return SCORED, key
        size, storage = head["ContentLength"], head.get("StorageClass", "")
        return Entry(Item(key, etag=etag), head["LastModified"], size, storage)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(look, told)
