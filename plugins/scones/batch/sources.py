"""Where a batch's images come from: a prefix, a manifest, keys, an earlier batch, or the current dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from scones.batch.items import Item
from scones.batch.names import check_batch_id
from scones.batch.outcomes import WITHOUT_ANSWER
from scones.batch.planning import BatchInputError, Candidate, Filters, candidate_of, folder_prefix, parse_manifest
from scones.batch.store import BatchStore


@dataclass(frozen=True)
class Source:
    """Where a batch's images come from."""

    name: str
    candidates: Iterable[Candidate]
    advice: str
    classes: list[str] = field(default_factory=list)

    def nothing_left(self, counts: Mapping[str, int], filters: Filters) -> str:
        """Say why there is nothing to score, and what to do."""
        if not counts["listed"]:
            return f"There is nothing in {self.name}. {self.advice}"
        return (
            f"None of the {counts['listed']} entries of {self.name} is wanted: images must end in"
            f" {', '.join(filters.suffixes)}"
            + (" and be in the given dates" if filters.modified_after or filters.modified_before else "")
            + ". Change the filters, or name the folder that holds the images."
        )


def find_source(store: BatchStore, params: Mapping[str, Any]) -> Source:
    """Return the source that the params name; by default the test images of the current dataset.

    Raises:
        BatchInputError: several sources are named, or the one named cannot be read.
    """
    named = [name for name in ("prefix", "manifest", "keys", "rerun_failed_of") if params[name]]
    if len(named) > 1:
        raise BatchInputError(f"Give one source of images, not {' and '.join(named)}: leave the others empty.")
    kind = named[0] if named else "dataset"
    dataset = store.dataset_manifest()
    classes = tuple(dataset["classes"]) if dataset else ()
    if kind in ("dataset", "prefix"):
        return _listed_source(store, params["prefix"], dataset)
    labels = _labels(dataset)
    if kind == "rerun_failed_of":
        earlier = _earlier_batch(params["rerun_failed_of"])
        return Source(
            f"what got no answer in batch {earlier}",
            store.without_answer(earlier, WITHOUT_ANSWER),
            "Every image of that batch got an answer: there is nothing to run again.",
            list(classes),
        )
    if kind == "keys":
        keys = [key.strip() for key in params["keys"] if key.strip()]
        candidates: Iterable[Candidate] = (candidate_of({"key": key}, "keys", classes) for key in keys)
        return Source("the given keys", _labelled(candidates, labels), "Give at least one key.", list(classes))
    manifest = _object_key(params["manifest"], store.bucket)
    try:
        lines = _checked(store.lines(manifest))
    except FileNotFoundError as error:
        raise BatchInputError(f"{error}: give the manifest's key in the bucket.") from error
    candidates = parse_manifest(lines, manifest, classes)
    return Source(
        f"the manifest {store.uri(manifest)}",
        _labelled(candidates, labels),
        "Write one key per line: JSONL objects with `key`, or CSV with a header.",
        list(classes),
    )


def _earlier_batch(text: str) -> str:
    """Return the id of the earlier batch; as BatchInputError when it cannot be one."""
    try:
        return check_batch_id(text.strip())
    except ValueError as error:
        raise BatchInputError(f"rerun_failed_of: {error}") from error


def _listed_source(store: BatchStore, prefix: str, dataset: dict[str, Any] | None) -> Source:
    if prefix:
        prefix = folder_prefix(prefix, store.bucket)
        version = prefix.split("/")[1] if prefix.startswith("datasets/") and prefix.count("/") > 1 else None
        if version and (dataset is None or version != dataset["dataset_version"]):
            dataset = store.dataset_manifest(version) or dataset
    elif dataset is None:
        raise BatchInputError(
            f"No dataset is staged in s3://{store.bucket}, so there are no test images: run the DAG train_and_deploy"
            " first, or give a prefix with images."
        )
    else:
        prefix = f"datasets/{dataset['dataset_version']}/test/"
    return Source(
        f"s3://{store.bucket}/{prefix}",
        store.listed(prefix, _labels(dataset)),
        "Check the prefix for typing errors, upload images there, or leave it empty to score the test images of the"
        " current dataset.",
        list(dataset["classes"]) if dataset else [],
    )


def _labels(dataset: Mapping[str, Any] | None) -> dict[str, int]:
    if dataset is None:
        return {}
    folder = f"datasets/{dataset['dataset_version']}/"
    return {folder + entry["key"]: entry["label"] for entry in dataset["files"]}


def _labelled(candidates: Iterable[Candidate], labels: Mapping[str, int]) -> Iterator[Candidate]:
    for candidate in candidates:
        item: Item = candidate.item
        known = labels.get(item.key) if item.label is None else None
        yield candidate if known is None else replace(candidate, item=replace(item, label=known))


def _object_key(text: str, bucket: str) -> str:
    key = text.strip()
    if key.startswith("s3://"):
        other, _, key = key[5:].partition("/")
        if other != bucket:
            raise BatchInputError(f"The manifest is in bucket {other!r}; put it into {bucket!r}.")
    return key.lstrip("/")


def _checked(lines: Iterator[str]) -> Iterator[str]:
    """Open the object now, so that an absent one is an error of the params and not of some later line."""
    first = next(lines, None)
    return iter(()) if first is None else chain([first], lines)
