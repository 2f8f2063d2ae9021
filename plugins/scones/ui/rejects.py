"""The reject queue: images the model was not sure of, and what people say they show.

A label goes to three places: ``labels/accepted.csv``, which the next training reads; the ground truth, which the
monitor compares with the model's answer; and the history, which knows who said what, and takes it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import msgspec

from scones.aws.naming import content_hash
from scones.batch.inputs import BatchInputError
from scones.batch.labels import Rejected, accept_labels, read_accepted, read_rejected, withdraw_labels
from scones.monitoring.ground_truth import REJECTED, ground_truth_line
from scones.monitoring.index import Time, check_times
from scones.ui.pages import render
from scones.ui.predictions import path_of
from scones.ui.store import PageStore

#: What a person says of an image that shows none of the classes, or that nobody can tell.
SKIP = "skip"
SHOWN = 24
RECENT = 12
_BATCHES_SEARCHED = 20
_HOURS_OF_A_BATCH = 24
_SMALL, _LARGE = 160, 1024


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the history: what somebody said of an image; ``label`` is a class, "skip", or "" when taken back."""

    key: str
    label: str
    by: str = ""
    at: Time | None = None
    batch_id: str = ""

    def __post_init__(self) -> None:
        """Refuse a time that can't be shown."""
        check_times(self.at)


@dataclass(frozen=True)
class Batch:
    """What a label of a rejected image needs to know of its batch."""

    batch_id: str
    classes: tuple[str, ...]
    endpoint_name: str
    hours: tuple[str, ...]


@dataclass(frozen=True)
class Waiting:
    """An image of the queue. ``token`` stands for its key in forms, where a key may not survive."""

    token: str
    row: Rejected
    batch_id: str


@dataclass(frozen=True)
class Queue:
    """The queue as it is now.

    Attributes:
        waiting: what has no label yet, the least sure first.
        labelled: key -> class name, of accepted.csv.
        decisions: the history, oldest first.
    """

    waiting: Sequence[Waiting]
    labelled: Mapping[str, str]
    decisions: Sequence[Decision]

    @property
    def last(self) -> dict[str, Decision]:
        """The last word on each image, in the order in which they fell."""
        return _last_words(self.decisions)

    def find(self, token: str) -> Waiting | None:
        """The waiting image of a token."""
        return next((one for one in self.waiting if one.token == token), None)


class NotInTheQueueError(ValueError):
    """The image is not in the queue, or somebody decided on it already."""


def read_queue(store: PageStore) -> Queue:
    """Read the newest batches' rejected images, the labels and the history. What is damaged costs itself."""
    newest = store.newest_of_batches("rejected.csv", _BATCHES_SEARCHED)
    with ThreadPoolExecutor(8) as executor:
        parts = executor.map(lambda item: _rejected(store, item["Key"], item.get("ETag", "")), newest)
    try:
        labelled = read_accepted(store.accepted_labels())
    except BatchInputError:
        labelled = {}
    decisions = parse_history(store.label_history())
    decided = {key for key, last in _last_words(decisions).items() if last.label} | set(labelled)
    rows: dict[str, Waiting] = {}
    for part in parts:
        for one in part:
            if one.row.key not in decided:
                rows.setdefault(one.row.key, one)
    return Queue(sorted(rows.values(), key=_least_sure_first), labelled, decisions)


def _last_words(decisions: Sequence[Decision]) -> dict[str, Decision]:
    found: dict[str, Decision] = {}
    for decision in decisions:
        found.pop(decision.key, None)
        found[decision.key] = decision
    return found


def _least_sure_first(one: Waiting) -> tuple[bool, float, str]:
    return one.row.confidence is None, one.row.confidence or 0.0, one.row.key


@lru_cache(maxsize=2 * _BATCHES_SEARCHED)
def _rejected(store: PageStore, key: str, etag: str) -> Sequence[Waiting]:
    """A batch's rejected images; read once as long as the file and the store's object stay the same."""
    batch_id = key.split("/")[-2]
    rows = read_rejected(store.read(key) or b"", key)
    return [Waiting(token_of(row.key), row, batch_id) for row in rows]


def token_of(key: str) -> str:
    """What stands for a key in a form: browsers change line ends, and a key may hold them."""
    return content_hash([key], 20)


def parse_history(content: bytes | None) -> list[Decision]:
    """Read the history; a line that can't be understood costs itself."""
    found = []
    for line in (content or b"").split(b"\n"):
        try:
            found.append(msgspec.json.decode(line, type=Decision))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found


def read_batch(store: PageStore, batch_id: str) -> Batch:
    """Read what labels need of a batch: the classes of the model that answered, its endpoint, and when."""
    summary = store.summary_shown(batch_id)
    model, classes = summary.get("model"), summary.get("classes")
    endpoint = model.get("endpoint_name") if isinstance(model, Mapping) else ""
    return Batch(
        batch_id,
        tuple(map(str, classes)) if isinstance(classes, list) else (),
        endpoint if isinstance(endpoint, str) else "",
        tuple(_hours(summary.get("first_started_at"), summary.get("last_ended_at"))),
    )


def _hours(first: object, last: object) -> Iterable[str]:
    try:
        at, end = datetime.fromisoformat(str(first)), datetime.fromisoformat(str(last))
        for _ in range(_HOURS_OF_A_BATCH):
            yield f"{at:%Y/%m/%d/%H}"
            at = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            if at > end:
                return
    except (ValueError, TypeError, OverflowError):
        return


def decide(store: PageStore, choices: Mapping[str, str], by: str, now: datetime) -> list[Decision]:
    """Take what somebody says of images of the queue: token -> class name, or "skip".

    Raises:
        NotInTheQueueError: a token is of none; nothing is taken.
        BatchInputError: a label is no class of the model that rejected the image; nothing is taken.
    """
    queue = read_queue(store)
    found = [(queue.find(token), label) for token, label in choices.items()]
    batches = {one.batch_id: read_batch(store, one.batch_id) for one, _ in found if one}
    decisions, labels = [], dict[str, dict[str, str]]()
    for one, label in found:
        # Only what the queue shows: a form must not put any key of the bucket among the training images.
        if one is None:
            raise NotInTheQueueError("An image is not in the reject queue, or somebody decided on it already.")
        if label != SKIP and label not in batches[one.batch_id].classes:
            raise BatchInputError(f"{label!r} is no class of the model that rejected the image.")
        decisions.append(Decision(one.row.key, label, by, now, one.batch_id))
        if label != SKIP:
            labels.setdefault(one.batch_id, {})[one.row.key] = label
    for batch_id, of_batch in labels.items():
        accept_labels(of_batch, store, batches[batch_id].classes)
    for one, label in found:
        if one and one.row.inference_id and label != SKIP:
            line = ground_truth_line(one.row.inference_id, label, REJECTED)
            for key in _truth_keys(store, batches[one.batch_id], one.token):
                store.write(key, line, "application/jsonlines")
    _note(store, decisions)
    return decisions


def take_back(store: PageStore, token: str, by: str, now: datetime) -> Decision:
    """Undo a decision: the image waits again, and trains no more.

    Raises:
        NotInTheQueueError: nobody decided on such an image.
    """
    queue = read_queue(store)
    last = next((one for key, one in queue.last.items() if token_of(key) == token and one.label), None)
    if last is None:
        raise NotInTheQueueError("Nobody decided on this image, or it was taken back already.")
    if last.key in queue.labelled:
        withdraw_labels([last.key], store)
    store.delete(_truth_keys(store, read_batch(store, last.batch_id), token))
    decision = Decision(last.key, "", by, now)
    _note(store, [decision])
    return decision


def _truth_keys(store: PageStore, batch: Batch, token: str) -> list[str]:
    return store.truth_keys(batch.endpoint_name, batch.hours, token)


def _note(store: PageStore, decisions: Sequence[Decision]) -> None:
    store.add_to_history(b"".join(msgspec.json.encode(decision) + b"\n" for decision in decisions))


# ---- pages


def queue_page(store: PageStore, base: str, offset: int) -> str:
    """Rejected images that have no label yet, the least sure first."""
    queue = read_queue(store)
    offset = min(offset, max(0, len(queue.waiting) - 1) // SHOWN * SHOWN)
    part = queue.waiting[offset : offset + SHOWN]
    batches = {batch_id: read_batch(store, batch_id) for batch_id in {one.batch_id for one in part}}

    def card(one: Waiting) -> dict[str, object]:
        return {
            "token": one.token,
            "key": one.row.key,
            "guess": one.row.guess,
            "confidence": one.row.confidence,
            "classes": batches[one.batch_id].classes,
            "picture": store.thumbnail(one.row.key, _SMALL),
            "prediction": path_of(one.batch_id, one.row.inference_id) if one.row.inference_id else "",
            "test_image": store.test_image_behind(one.row.key),
        }

    with ThreadPoolExecutor(8) as executor:
        cards = list(executor.map(card, part))
    decided = [one for one in queue.last.values() if one.label]
    recent = [(token_of(one.key), one) for one in decided[::-1][:RECENT]]
    return render(
        "rejects.html.j2",
        base,
        cards=cards,
        total=len(queue.waiting),
        offset=offset,
        step=SHOWN,
        decided=max(len(decided), len(queue.labelled)),
        labelled=len(queue.labelled),
        recent=recent,
        skip=SKIP,
    )


def picture_page(store: PageStore, base: str, token: str) -> str:
    """One image of the queue, or one somebody decided on, as large as it is.

    Raises:
        NotInTheQueueError: there is no such image.
    """
    queue = read_queue(store)
    one = queue.find(token)
    key = one.row.key if one else next((key for key in queue.last if token_of(key) == token), None)
    if key is None:
        raise NotInTheQueueError("There is no such image in the reject queue.")
    return render("picture.html.j2", base, key=key, picture=store.thumbnail(key, _LARGE))
