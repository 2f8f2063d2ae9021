"""What a report keeps of captured records: a few numbers for each, and the images worth showing.

A block of lines becomes a :class:`CaptureSummary`; summaries add up. A record costs about 60 bytes here, its image
is gone. Beyond :data:`MAX_ROWS` records the per-record numbers are a uniform sample; counts stay exact.
"""

from __future__ import annotations

import urllib.parse
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scones.images.pictures import Geometry, PictureError, Pixels, decode_sized
from scones.images.statistics import STATISTICS, NoveltyScale, image_statistics, size_label
from scones.monitoring.capture import CaptureRecord, MalformedCaptureError, parse_line

#: One piece of a file: its key, the number of its first line, whole lines.
Block = tuple[str, int, bytes]
MAX_ROWS = 500_000
DEFAULT_THRESHOLD = 0.93
#: The size of CIFAR's images, where no baseline tells another.
CIFAR = Geometry(32, 32)
_EXAMPLES = 5
_BATCH = 256
#: Larger inputs are not kept for showing; they still count in the statistics.
_MAX_SHOWN_BYTES = 1 << 20
_COLUMNS = ("time", "confidence", "predicted", "fingerprint", "novelty", *STATISTICS)


@dataclass(frozen=True)
class ReadSettings:
    """How records are read.

    Attributes:
        classes: class names in the order of the endpoint's answer; empty takes whatever number it answers.
        geometry: how images are scaled before their statistics are computed: to the baseline's size.
        scale: scale of novelty, from the baseline; None when there is no baseline.
        threshold: confidence from which a prediction passes.
        since, until: records outside ``[since, until)`` (inferenceTime, epoch seconds) are left out; None for all.
        inference_ids: InferenceIds whose predictions are wanted one by one, for ground truth.
        shown: how many images to keep of the least confident and of the most unlike the baseline.
        images: whether images are decoded at all; without, only outputs are read.
    """

    classes: tuple[str, ...] = ()
    geometry: Geometry = CIFAR
    scale: NoveltyScale | None = None
    threshold: float = DEFAULT_THRESHOLD
    since: float | None = None
    until: float | None = None
    inference_ids: frozenset[str] = frozenset()
    shown: int = 12
    images: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """A record worth showing. ``image`` is what the endpoint was sent: hostile, for ``thumbnail_uri`` only."""

    confidence: float
    novelty: float
    predicted: int
    event_id: str
    source: str
    fingerprint: int
    image: bytes


@dataclass
class CaptureSummary:
    """Counts, per-record columns and examples of captured records.

    Attributes:
        records: well-formed lines in the window.
        malformed: lines that are no capture record; the first few are quoted in ``malformed_examples``.
        unusable_outputs: records without class probabilities.
        undecodable: records whose input is no image.
        rejected: records below the threshold.
        columns: ``time``, ``confidence``, ``predicted``, ``fingerprint``, ``novelty`` and the image statistics,
            one value per record; NaN (or -1) where a record has none.
        labelled: ``(inference_id, predicted, confidence)`` of the records that were asked for by InferenceId.
    """

    records: int = 0
    malformed: int = 0
    malformed_examples: list[str] = field(default_factory=list)
    unusable_outputs: int = 0
    output_examples: list[str] = field(default_factory=list)
    undecodable: int = 0
    undecodable_examples: list[str] = field(default_factory=list)
    rejected: int = 0
    bytes_read: int = 0
    files: set[str] = field(default_factory=set)
    predicted_counts: Counter[int] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    content_types: Counter[str] = field(default_factory=Counter)
    minutes: Counter[int] = field(default_factory=Counter)
    columns: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    least_confident: list[Example] = field(default_factory=list)
    most_unlike: list[Example] = field(default_factory=list)
    labelled: list[tuple[str, int, float]] = field(default_factory=list)
    _rows: int = 0
    _share: float = 1.0  # of the records so far that have their row

    def column(self, name: str) -> NDArray[Any]:
        """All values of a column; empty when nothing was read."""
        parts = self.columns[name]
        if len(parts) > 1:
            self.columns[name] = parts = [np.concatenate(parts)]
        return parts[0] if parts else np.empty(0)

    def add(self, other: CaptureSummary, shown: int) -> None:
        """Add what another block held."""
        for name in ("records", "malformed", "unusable_outputs", "undecodable", "rejected"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bytes_read += other.bytes_read
        for name in ("malformed_examples", "output_examples", "undecodable_examples"):
            setattr(self, name, (getattr(self, name) + getattr(other, name))[:_EXAMPLES])
        self.files |= other.files
        self.predicted_counts.update(other.predicted_counts)
        self.sizes.update(other.sizes)
        self.content_types.update(other.content_types)
        self.minutes.update(other.minutes)
        # What comes after a thinning is thinned as much: every record keeps the same chance. A fixed seed makes a
        # repeated run equal.
        draw = np.random.default_rng(self.records)
        kept = draw.random(other._rows) < self._share
        for name in _COLUMNS:
            self.columns[name].append(other.column(name)[kept])
        self.labelled.extend(other.labelled)
        self.least_confident = _best(self.least_confident + other.least_confident, shown, _by_confidence)
        self.most_unlike = _best(self.most_unlike + other.most_unlike, shown, _by_novelty)
        self._rows += int(kept.sum())
        if self._rows > 2 * MAX_ROWS:
            self._thin_out(draw)

    def _thin_out(self, draw: np.random.Generator) -> None:
        kept = np.sort(draw.choice(self._rows, MAX_ROWS, replace=False))
        for name in _COLUMNS:
            self.columns[name] = [self.column(name)[kept]]
        self._share *= MAX_ROWS / self._rows
        self._rows = MAX_ROWS


def _by_confidence(example: Example) -> tuple[float, str]:
    return example.confidence, example.event_id


def _by_novelty(example: Example) -> tuple[float, str]:
    return -example.novelty, example.event_id


def _best(examples: list[Example], shown: int, order: Any) -> list[Example]:
    """The first ``shown`` in ``order``, each image once."""
    unique: dict[int, Example] = {}
    for example in sorted(examples, key=order):
        unique.setdefault(example.fingerprint, example)
        if len(unique) == shown:
            break
    return list(unique.values())


def summarise(blocks: Iterable[Block], settings: ReadSettings) -> CaptureSummary:
    """Read blocks of lines. Bad lines and bad payloads are counted and quoted, never fatal."""
    summary = CaptureSummary()
    batch: list[_Row] = []
    for row in _rows(blocks, settings, summary):
        batch.append(row)
        if len(batch) == _BATCH:
            _flush(batch, settings, summary)
            batch = []
    if batch:
        _flush(batch, settings, summary)
    return summary


@dataclass(slots=True)
class _Row:
    record: CaptureRecord
    image: bytes
    pixels: Pixels | None
    confidence: float
    predicted: int


def _rows(blocks: Iterable[Block], settings: ReadSettings, summary: CaptureSummary) -> Iterator[_Row]:
    for key, first, data in blocks:
        summary.files.add(key)
        summary.bytes_read += len(data)
        for number, line in enumerate(data.split(b"\n"), start=first):
            if not line.strip():
                continue
            try:
                record = parse_line(line)
            except MalformedCaptureError as error:
                summary.malformed += 1
                _note(summary.malformed_examples, key, number, error)
                continue
            if not _in_window(record.inference_time, settings):
                continue
            summary.records += 1
            yield _read(record, key, number, settings, summary)


def _note(examples: list[str], key: str, number: int, error: Exception) -> None:
    if len(examples) < _EXAMPLES:
        examples.append(f"{key}, line {number}: {error}")


def _in_window(time: float, settings: ReadSettings) -> bool:
    return (settings.since is None or time >= settings.since) and (settings.until is None or time < settings.until)


def _read(record: CaptureRecord, key: str, number: int, settings: ReadSettings, summary: CaptureSummary) -> _Row:
    confidence, predicted = float("nan"), -1
    try:
        probabilities = record.probabilities()
        if settings.classes and len(probabilities) != len(settings.classes):
            raise MalformedCaptureError(
                f"{len(probabilities)} probabilities, but there are {len(settings.classes)} classes"
            )
        confidence = max(probabilities)
        predicted = probabilities.index(confidence)
    except MalformedCaptureError as error:
        summary.unusable_outputs += 1
        _note(summary.output_examples, key, number, error)
    else:
        summary.predicted_counts[predicted] += 1
        summary.rejected += confidence < settings.threshold
        if record.inference_id in settings.inference_ids:
            summary.labelled.append((str(record.inference_id), predicted, confidence))
    summary.minutes[int(record.inference_time // 60)] += 1
    summary.content_types[record.input_content_type or "unknown"] += 1
    image, pixels = b"", None
    if not settings.images:
        return _Row(record, image, pixels, confidence, predicted)
    try:
        image = record.input_bytes()
        pixels, size = decode_sized(image, settings.geometry)
        summary.sizes[size_label(*size)] += 1
    except (MalformedCaptureError, PictureError) as error:
        summary.undecodable += 1
        _note(summary.undecodable_examples, key, number, error)
    return _Row(record, image, pixels, confidence, predicted)


def _flush(batch: list[_Row], settings: ReadSettings, summary: CaptureSummary) -> None:
    count = len(batch)
    pixels = [row.pixels for row in batch if row.pixels is not None]
    present = np.array([row.pixels is not None for row in batch])
    columns: dict[str, NDArray[Any]] = {
        "time": np.array([row.record.inference_time for row in batch]),
        "confidence": np.array([row.confidence for row in batch], dtype=np.float32),
        "predicted": np.array([row.predicted for row in batch], dtype=np.int16),
        "fingerprint": np.array([zlib.crc32(row.image) for row in batch], dtype=np.uint32),
        "novelty": np.full(count, np.nan, dtype=np.float32),
        **{name: np.full(count, np.nan, dtype=np.float32) for name in STATISTICS},
    }
    if pixels:
        statistics = image_statistics(np.stack(pixels))
        for name, values in statistics.items():
            columns[name][present] = values
        if settings.scale is not None:
            columns["novelty"][present] = settings.scale.score(statistics)
    for name, values in columns.items():
        summary.columns[name].append(values)
    summary._rows += count
    confident = np.where(present, np.nan_to_num(columns["confidence"], nan=2.0), 2.0)
    summary.least_confident = _best(
        summary.least_confident + _examples(batch, columns, np.argsort(confident, kind="stable"), settings.shown),
        settings.shown,
        _by_confidence,
    )
    unlike = np.nan_to_num(columns["novelty"], nan=-1.0)
    summary.most_unlike = _best(
        summary.most_unlike + _examples(batch, columns, np.argsort(-unlike, kind="stable"), settings.shown),
        settings.shown,
        _by_novelty,
    )


def _examples(
    batch: list[_Row], columns: dict[str, NDArray[Any]], order: NDArray[np.intp], shown: int
) -> list[Example]:
    # Twice as many as are shown: some may be the same image.
    examples = []
    for index in order[: 2 * shown]:
        row = batch[index]
        if row.pixels is None or len(row.image) > _MAX_SHOWN_BYTES or not np.isfinite(row.confidence):
            continue
        examples.append(
            Example(
                confidence=row.confidence,
                novelty=float(np.nan_to_num(columns["novelty"][index])),
                predicted=row.predicted,
                event_id=row.record.event_id,
                # What the caller said of the image, its key by our own; else the name it gave the request.
                source=urllib.parse.unquote(row.record.custom_attributes or row.record.inference_id or "")[:300],
                fingerprint=int(columns["fingerprint"][index]),
                image=row.image,
            )
        )
    return examples
