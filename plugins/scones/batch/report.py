"""The report of a batch: one self-contained HTML page, readable in light and dark."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scones.batch.costs import BatchCost
from scones.batch.items import ABORTED, CLASSIFIED, FAILED, REJECTED, TIMED_OUT, WITHOUT_ANSWER, Row
from scones.batch.summary import BatchSummary, headline, limits_exceeded, outcome_counts
from scones.report.formatting import DASH, environment, number, percent

THUMBNAILS = 48
THUMBNAIL_PIXELS = 96
KEY_SHOWN = 20

_PAID_FOR = {
    "endpoint": "Endpoint, while the batch ran",
    "step_functions": "Step Functions",
    "functions": "Lambda, at most",
    "s3": "S3 requests",
}
_TONES = {CLASSIFIED: "ok", REJECTED: "attention", FAILED: "violation", TIMED_OUT: "violation", ABORTED: "violation"}


class Gallery:
    """Picks the rows worth looking at while all rows stream by: the least certain rejections, the first failures."""

    def __init__(self, size: int = THUMBNAILS) -> None:
        self._size = size
        self._rejected: list[tuple[float, int, Row]] = []
        self.failed: list[Row] = []
        self._count = 0

    def add(self, row: Row) -> None:
        self._count += 1
        if row["outcome"] in WITHOUT_ANSWER and len(self.failed) < self._size:
            self.failed.append(row)
        elif row["outcome"] == REJECTED:
            entry = (-(row["confidence"] or 0.0), -self._count, row)
            if len(self._rejected) < self._size:
                heapq.heappush(self._rejected, entry)
            else:
                heapq.heappushpop(self._rejected, entry)

    @property
    def rejected(self) -> list[Row]:
        """Least certain first."""
        return [row for _, _, row in sorted(self._rejected, reverse=True)]


class Shown(Row):
    """A row with its picture: a data URI, or None for what cannot be shown."""

    picture: str | None


def shown(row: Row, image: bytes | None) -> Shown:
    """Return the row with its image drawn anew and small: nothing of the original bytes reaches the page."""
    from scones.images.thumbnails import thumbnail_uri

    return {**row, "picture": thumbnail_uri(image, THUMBNAIL_PIXELS) if image else None}


def render(summary: BatchSummary, rejected: list[Shown], failed: list[Shown], predictions: str = "") -> str:
    """Return the page, in the style of the monitoring report.

    Args:
        predictions: address of the page of a prediction; empty when nobody serves one.
    """
    counts = outcome_counts(summary)
    page = environment(Path(__file__).parent)
    page.filters["short_key"] = short_key
    return page.get_template("batch.html.j2").render(
        summary=summary,
        status=_status(summary),
        headline=headline(summary) + ".",
        warnings=_warnings(summary),
        tiles=_tiles(summary),
        shares=[{"name": name.replace("_", " "), "count": counts[name], "tone": tone} for name, tone in _TONES.items()],
        rejected=rejected,
        failed=failed,
        predictions=predictions,
        without=sum(counts[outcome] for outcome in WITHOUT_ANSWER),
        costs=_costs(summary["cost"]),
        lineage=[(name, value) for name, value in _lineage(summary) if value],
    )


def _costs(cost: BatchCost) -> list[tuple[str, str]]:
    """What is paid for, and how much, with the sum; a dash where the price or the time is not known."""
    found: Mapping[str, Any] = cost
    rows = [(name, found[member]) for member, name in _PAID_FOR.items()]
    known = all(usd is not None for _, usd in rows)
    rows.append(("Together" if known else "Together, as far as known", cost["total"]))
    return [(name, DASH if usd is None else f"{usd:.5f} USD") for name, usd in rows]


def short_key(key: str) -> str:
    """Return a key's file name, its middle left out where it is long."""
    name = key.rstrip("/").rsplit("/", 1)[-1]
    return name if len(name) <= KEY_SHOWN else f"{name[: KEY_SHOWN // 2]}…{name[-(KEY_SHOWN // 2) + 1 :]}"


def _warnings(summary: BatchSummary) -> list[str]:
    changed = summary["endpoint_changed"]
    said = [f"The endpoint changed while {changed} of these were scored: either model may have answered."]
    return [*summary["warnings"], *(said if changed else ())]


def _lineage(summary: BatchSummary) -> list[tuple[str, str]]:
    """What answered, for people."""
    names = ("endpoint_name", "endpoint_config", "model_name", "package_arn", "training_job", "dataset_version")
    facts = [(name.replace("_", " "), str(summary["model"].get(name) or "")) for name in names]
    return [*facts, ("classes", ", ".join(summary["classes"]))]


def _status(summary: BatchSummary) -> str:
    """Over a limit of the run, some without an answer, or all answered."""
    over = limits_exceeded(summary, **summary["limits"])
    return "violation" if over else "attention" if summary["failed_share"] else "ok"


def _tiles(summary: BatchSummary) -> list[dict[str, str]]:
    """What a reader wants first. A count has a colour only where there is something to see."""
    counts, answered = outcome_counts(summary), summary["classified"] + summary["rejected"]
    seconds, rate = summary["seconds"], summary["images_per_second"]
    tiles = [
        {"title": "Images", "value": number(summary["images"]), "note": f"{number(answered)} with an answer"},
        {"title": "Classified", "value": number(summary["classified"]), "note": _of(summary["classified"], summary)},
        {
            "title": "Rejected",
            "value": number(summary["rejected"]),
            "note": _of(summary["rejected"], summary),
            "tone": "attention" if summary["rejected"] else "",
        },
        *(
            {
                "title": outcome.replace("_", " ").capitalize(),
                "value": number(counts[outcome]),
                "note": _of(counts[outcome], summary),
                "tone": "violation" if counts[outcome] else "",
            }
            for outcome in WITHOUT_ANSWER
        ),
        {
            "title": "Throughput",
            "value": DASH if rate is None else f"{rate:.1f}/s",
            "note": "no execution timed" if seconds is None else f"in {seconds:.1f} s",
        },
    ]
    if summary["accuracy"] is not None:
        without_threshold = percent(summary["accuracy_before_threshold"])
        note = f"{without_threshold} without the threshold"
        tiles.append({"title": "Accuracy", "value": percent(summary["accuracy"]), "note": note})
    return [{"tone": "", **tile} for tile in tiles]


def _of(count: int, summary: BatchSummary) -> str:
    return percent(count / summary["images"] if summary["images"] else None)
