"""The report of a batch: one self-contained HTML page, readable in light and dark."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Mapping
from typing import Any

from scones.core.batch.outcomes import OUTCOMES, REJECTED, WITHOUT_ANSWER
from scones.core.batch.results import describe

THUMBNAILS = 48
THUMBNAIL_PIXELS = 96
IMAGE_BYTES_MAX = 8 * 1024 * 1024
IMAGE_PIXELS_MAX = 50_000_000


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
    """Return the page. Rows carry ``picture`` (a data URI or None) beside the columns of results."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(
        summary=summary,
        text=describe(summary),
        tiles=[(outcome.replace("_", " "), summary[outcome], outcome) for outcome in OUTCOMES],
        rejected=rejected,
        failed=failed,
        max_cell=max([count for row in summary["confusion_matrix"].values() for count in row.values()], default=0),
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Batch {{ summary.batch_id }}</title>
<style>
:root { color-scheme: light dark; --page: #fff; --ink: #1c2430; --soft: #5d6878; --line: #dbe1e8; --card: #f6f8fa;
  --classified: #1a7f5a; --rejected: #b35900; --failed: #b3261e; --bar: #2f6db3; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --ink: #e6eaf0; --soft: #9aa6b5; --line: #2c3541;
  --card: #1a2028; --classified: #5cc99a; --rejected: #f0a65a; --failed: #ff8a80; --bar: #77b0ee; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.soft { color: var(--soft); } .tiles, .gallery { display: grid; gap: .75rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); margin: 1rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
.classified b { color: var(--classified); } .rejected b { color: var(--rejected); }
.failed b, .timed_out b, .aborted b { color: var(--failed); }
.gallery { grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem;
  overflow-wrap: anywhere; font-size: .8rem; }
figure img, .nopicture { width: 96px; height: 96px; object-fit: contain; display: block; margin-bottom: .4rem; }
.nopicture { display: grid; place-items: center; border: 1px dashed var(--line); color: var(--soft); }
table { border-collapse: collapse; } th, td { border: 1px solid var(--line); padding: .3rem .7rem; text-align: right; }
th:first-child, .text { text-align: left; }
.meter { background: var(--line); width: 12rem; height: .7rem; position: relative; }
.meter i { background: var(--bar); position: absolute; inset: 0 auto 0 0; }
.wide { overflow-x: auto; }
</style>
</head>
<body>
<h1>Batch {{ summary.batch_id }}</h1>
<p class="soft">{{ summary.source }} · {{ summary.mode }} · {{ summary.created_at }}
 · endpoint {{ summary.model.endpoint_name }} ({{ summary.model.endpoint_config }})
 · threshold {{ summary.threshold }}</p>
<p>{{ text }}.</p>
<div class="tiles">
<div class="tile"><b>{{ summary.images }}</b>images</div>
{% for name, count, style in tiles %}<div class="tile {{ style }}"><b>{{ count }}</b>{{ name }}</div>
{% endfor %}
<div class="tile"><b>{{ "%.1f"|format(summary.images_per_second) if summary.seconds else "-" }}</b>images/s</div>
<div class="tile"><b>{{ "%.1f"|format(summary.seconds) if summary.seconds else "-" }}</b>seconds</div>
{% if summary.accuracy is not none %}
<div class="tile"><b>{{ "%.1f%%"|format(100 * summary.accuracy) }}</b>accuracy of the classified</div>
{% endif %}
{% if summary.accuracy_before_threshold is not none %}
<div class="tile"><b>{{ "%.1f%%"|format(100 * summary.accuracy_before_threshold) }}</b>accuracy without threshold</div>
{% endif %}
</div>
{% if summary.most_frequent_causes %}
<h2>Why images got no answer</h2>
<div class="wide"><table><tr><th>error</th><th class="text">message</th><th>images</th></tr>
{% for cause in summary.most_frequent_causes %}
<tr><td class="text">{{ cause.error }}</td><td class="text">{{ cause.message }}</td><td>{{ cause.images }}</td></tr>
{% endfor %}</table></div>
{% endif %}
{% if summary.confusion_matrix %}
<h2>Confusion of the classified images</h2>
<div class="wide"><table><tr><th>true \\ predicted</th>
{% for name in summary.confusion_matrix %}<th>{{ name }}</th>{% endfor %}</tr>
{% for name, row in summary.confusion_matrix.items() %}<tr><th>{{ name }}</th>
{% for count in row.values() %}
{% set share = (45 * count / max_cell)|round|int if max_cell else 0 %}
<td style="background: color-mix(in srgb, var(--bar) {{ share }}%, transparent)">{{ count }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}
{% if summary.calibration.bins %}
<h2>Calibration</h2>
<p class="soft">Expected calibration error {{ summary.calibration.expected_calibration_error }}, over all answers with a
 label, the rejected ones too.</p>
<div class="wide"><table><tr><th>confidence</th><th>images</th><th>mean confidence</th><th>accuracy</th><th></th></tr>
{% for bin in summary.calibration.bins %}
<tr><td>{{ bin["from"] }} to {{ bin["to"] }}</td><td>{{ bin.images }}</td><td>{{ bin.confidence }}</td>
<td>{{ bin.accuracy }}</td>
<td><div class="meter"><i style="width: {{ (100 * bin.accuracy)|round|int }}%"></i></div></td></tr>
{% endfor %}</table></div>
{% endif %}
{% macro gallery(rows) %}
<div class="gallery">
{% for row in rows %}
<figure>
{% if row.picture %}<img src="{{ row.picture }}" alt="">{% else %}<div class="nopicture">no picture</div>{% endif %}
{% if row.confidence is not none %}{{ row.predicted_class or row.predicted_index }} {{ "%.3f"|format(row.confidence) }}
{% if row.label_class %}(is {{ row.label_class }}){% endif %}<br>{% endif %}
{% if row.error and row.outcome != "rejected" %}<b>{{ row.error }}</b> {{ (row.message or "")[:160] }}<br>{% endif %}
<span class="soft">{{ row.key }}</span>
</figure>
{% endfor %}
</div>
{% endmacro %}
{% if rejected %}
<h2>Rejected: the {{ rejected|length }} least certain of {{ summary.rejected }}</h2>
<p class="soft">All of them are in rejected.csv, to be labelled: accepted labels become training images.</p>
{{ gallery(rejected) }}
{% endif %}
{% if failed %}
<h2>Without an answer: {{ failed|length }} of {{ summary.failed + summary.timed_out + summary.aborted }}</h2>
<p class="soft">Run them again with the param rerun_failed_of = {{ summary.batch_id }}.</p>
{{ gallery(failed) }}
{% endif %}
</body>
</html>
"""
