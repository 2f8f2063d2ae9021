"""The report of a batch: one self-contained HTML page, readable in light and dark."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scones.batch.outcomes import ABORTED, CLASSIFIED, FAILED, REJECTED, TIMED_OUT, WITHOUT_ANSWER
from scones.batch.results import describe
from scones.report.formatting import DASH, environment, number, percent

THUMBNAILS = 48
THUMBNAIL_PIXELS = 96
IMAGE_BYTES_MAX = 8 * 1024 * 1024
IMAGE_PIXELS_MAX = 50_000_000
KEY_SHOWN = 20

_TONES = {CLASSIFIED: "ok", REJECTED: "attention", FAILED: "violation", TIMED_OUT: "violation", ABORTED: "violation"}


class Gallery:
    """Picks the rows worth looking at while all rows stream by: the least certain rejections, the first failures."""

    def __init__(self, size: int = THUMBNAILS) -> None:
        self._size = size
        self._rejected: list[tuple[float, int, dict[str, Any]]] = []
        self.failed: list[dict[str, Any]] = []
        self._count = 0

    def add(self, row: dict[str, Any]) -> None:
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
    def rejected(self) -> list[dict[str, Any]]:
        """Least certain first."""
        return [row for _, _, row in sorted(self._rejected, reverse=True)]


def thumbnail(data: bytes | None) -> str | None:
    """Return an image as a data URI, drawn anew as a small PNG; None for what is no image.

    Nothing of the original bytes reaches the page, whatever they pretend to be.
    """
    if not data:
        return None
    import warnings

    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > IMAGE_PIXELS_MAX:
                    return None
                small = image.convert("RGB")
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        OSError,
        SyntaxError,
        ValueError,
    ):
        return None
    scale = THUMBNAIL_PIXELS / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    small.resize(size, resample).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def render(summary: Mapping[str, Any], rejected: list[dict[str, Any]], failed: list[dict[str, Any]]) -> str:
    """Return the page, in the style of the monitoring report. Rows carry ``picture`` (a data URI or None)."""
    page = environment(Path(__file__).parent)
    page.filters["short_key"] = short_key
    return page.get_template("batch.html.j2").render(
        summary=summary,
        status=_status(summary),
        headline=describe(summary).split(". Most frequent causes")[0] + ".",
        tiles=_tiles(summary),
        shares=[
            {"name": name.replace("_", " "), "count": summary[name], "tone": tone} for name, tone in _TONES.items()
        ],
        rejected=rejected,
        failed=failed,
        without=sum(summary[outcome] for outcome in WITHOUT_ANSWER),
        lineage=[(name.replace("_", " "), value) for name, value in summary["model"].items() if value],
    )


def short_key(key: str) -> str:
    """Return a key's file name, its middle left out where it is long."""
    name = key.rstrip("/").rsplit("/", 1)[-1]
    return name if len(name) <= KEY_SHOWN else f"{name[: KEY_SHOWN // 2]}…{name[-(KEY_SHOWN // 2) + 1 :]}"


def _status(summary: Mapping[str, Any]) -> str:
    """Over a limit of the run, some without an answer, or all answered."""
    limits = summary.get("limits") or {}
    over = any(
        (summary[f"{what}_share"] or 0.0) > limits.get(f"max_{what}_share", 1.0) for what in ("failed", "rejected")
    )
    return "violation" if over else "attention" if summary["failed_share"] else "ok"


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a reader wants first. A count has a colour only where there is something to see."""
    answered = summary["classified"] + summary["rejected"]
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
                "value": number(summary[outcome]),
                "note": _of(summary[outcome], summary),
                "tone": "violation" if summary[outcome] else "",
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


def _of(count: int, summary: Mapping[str, Any]) -> str:
    return percent(count / summary["images"] if summary["images"] else None)
