"""Where a batch's images come from: a prefix, a manifest, keys, an earlier batch, or the served model's test images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from scones.batch.inputs import BatchInputError, entry_of, folder_prefix, object_key, parse_manifest
from scones.batch.items import WITHOUT_ANSWER, Entry, Item, Row
from scones.batch.names import check_batch_id
from scones.batch.store import BatchStore
from scones.training.served import ServedModel

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
PROBES_MAX = 100


@dataclass(frozen=True)
class Filters:
    """Which entries are taken: by suffix (any case) and by ``after <= LastModified < before``."""

    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    modified_after: datetime | None = None
    modified_before: datetime | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is wanted.

        Raises:
            BatchInputError: a date filter is set and the entry has no date.
        """
        if not entry.item.key.rstrip().lower().endswith(self.suffixes):
            return False
        if self.modified_after is None and self.modified_before is None:
            return True
        if entry.modified is None:
            raise BatchInputError(
                f"The date filters need a date and {entry.item.key!r} has none: give the manifest a last_modified"
                " column, or list a prefix."
            )
        if self.modified_after is not None and entry.modified < self.modified_after:
            return False
        return self.modified_before is None or entry.modified < self.modified_before


@dataclass(frozen=True)
class Source:
    """Where a batch's images come from, and what to do when nothing is there.

    ``counts`` and ``notes`` tell what was passed over before there was an entry.
    """

    name: str
    entries: Iterable[Entry]
    advice: str
    near: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def nothing_left(self, counts: Mapping[str, int], filters: Filters, store: BatchStore) -> str:
        """Say why there is nothing to score, and what to do."""
        if not counts["listed"]:
            meant = next((prefix for prefix in self.near if any(store.objects(prefix))), None)
            return f"There is nothing in {self.name}. {f'Did you mean {meant!r}?' if meant else self.advice}"
        return (
            f"None of the {counts['listed']} entries of {self.name} is wanted: image keys must end in"
            f" {', '.join(filters.suffixes)}"
            + (" and be in the given dates" if filters.modified_after or filters.modified_before else "")
            + ". Change the filters, or name the folder that holds the images."
        )


def find_source(store: BatchStore, params: Mapping[str, Any], model: ServedModel) -> Source:
    """Return the source that the params name; by default the test images of the dataset the served model is from.

    Labels are indices of the served model's classes: those of a dataset with another order are taken by name.

    Raises:
        BatchInputError: several sources are named, or the one named cannot be read.
    """
    named = [name for name in ("prefix", "manifest", "keys", "rerun_failed_of") if params[name]]
    if len(named) > 1:
        raise BatchInputError(f"Give one source of images, not {' and '.join(named)}: leave the others empty.")
    kind = named[0] if named else "dataset"
    if kind in ("dataset", "prefix"):
        return _listed_source(store, params["prefix"] or "", model)
    if kind == "rerun_failed_of":
        earlier = _earlier_batch(params["rerun_failed_of"])
        answered = (store.plan(earlier) or {}).get("model")
        # A model without classes names a label by its number, which another model's class may be called.
        known = model.classes if isinstance(answered, Mapping) and answered.get("classes") else ()
        return Source(
            f"what got no answer in batch {earlier}",
            (_again(row, known) for row in store.rows_with(earlier, WITHOUT_ANSWER)),
            "Every image of that batch got an answer: there is nothing to run again.",
        )
    labels = _labels(store, model.dataset_version, model)
    if kind == "keys":
        keys = ({"key": key} for key in params["keys"] if key)
        entries: Iterator[Entry] = (entry_of(key, "The param keys", store.bucket, model.classes) for key in keys)
        name, advice = "the given keys", "Give at least one key."
    else:
        manifest = object_key(params["manifest"], store.bucket, "The manifest")
        name, advice = f"the manifest {store.uri(manifest)}", "Write one key per line: JSONL with `key`, or CSV."
        lines = store.text_lines(manifest)
        if lines is None:
            raise BatchInputError(f"{store.uri(manifest)} does not exist: give the manifest's key in the bucket.")
        entries = parse_manifest(lines, store.uri(manifest), store.bucket, model.classes)
    return Source(name, _labelled(_meant(store, entries), labels), advice)


def _earlier_batch(text: str) -> str:
    try:
        return check_batch_id(text.strip())
    except ValueError as error:
        raise BatchInputError(f"rerun_failed_of: {error}") from error


def _listed_source(store: BatchStore, prefix: str, model: ServedModel) -> Source:
    version = model.dataset_version
    advice = "Check the prefix for typing errors, or upload images there."
    if prefix:
        prefix = folder_prefix(prefix, store.bucket)
        version = store.dataset_of(prefix) or version
    elif not version:
        raise BatchInputError(
            f"No dataset is known that the model of {model.endpoint_name} was trained on, so there are no test images:"
            " give a prefix with images, or run the DAG train_and_deploy."
        )
    else:
        prefix = store.test_images(version)
        advice = "Those were the model's test images: give a prefix with images, or run the DAG train_and_deploy."
    near = {prefix.strip("/ ") + "/", unquote(prefix), "/" + prefix} - {prefix, "/"}
    return Source(store.uri(prefix), store.listed(prefix, _labels(store, version, model)), advice, sorted(near))


def _labels(store: BatchStore, version: str, model: ServedModel) -> dict[str, int]:
    """Return {key: the served model's label} of a dataset's images; classes the model does not know have none."""
    dataset = store.manifest(version) if version else None
    if dataset is None:
        return {}
    names = dataset.get("classes", [])
    known = {label: model.classes.index(name) for label, name in enumerate(names) if name in model.classes}
    folder = store.dataset_prefix(version)
    return {folder + file["key"]: known[file["label"]] for file in dataset.get("files", []) if file["label"] in known}


def _labelled(entries: Iterable[Entry], labels: Mapping[str, int]) -> Iterator[Entry]:
    for entry in entries:
        item = entry.item
        known = labels.get(item.key) if item.label is None else None
        yield entry if known is None else replace(entry, item=replace(item, label=known))


def _again(row: Row, classes: Sequence[str]) -> Entry:
    """Return the image of an earlier row; its label by name, as another model may answer now.

    Args:
        classes: those of the model that answers now; none when the row's label has no name.
    """
    name = row.get("label_class")
    label = row["label"]
    if classes and name:
        label = classes.index(name) if name in classes else None
    return Entry(Item(row["key"], label, row.get("etag")))


def _meant(store: BatchStore, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Pass on what was named; refuse a key that is not there and was written in another way than the one that is."""
    probes = 0
    for entry in entries:
        key = entry.item.key
        near = {unquote(key), unquote(key.replace("+", " ")), key.strip(), key.lstrip("/")} - {key, ""}
        if near and probes < PROBES_MAX:
            probes += 1
            found = None if store.exists(key) else next((other for other in sorted(near) if store.exists(other)), None)
            if found:
                raise BatchInputError(
                    f"There is no object {key!r}. Did you mean {found!r}? Keys are taken as they are."
                )
        yield entry
