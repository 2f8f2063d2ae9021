"""How the report and the pages in the Airflow UI show numbers, times and states. Imports nothing heavy."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent
#: Status -> (symbol, word). Symbols, not only colours: some readers do not see the colours.
STATUS_WORDS = {
    "ok": ("✓", "fine"),
    "attention": ("!", "worth a look"),
    "violation": ("✕", "violation"),
    "alarm": ("✕", "violations"),
    "unknown": ("?", "not checked"),
    "no_traffic": ("?", "no traffic"),
    "capture_broken": ("✕", "capture broken"),
}
#: Status -> one of the four colours of the page.
STATUS_COLOURS = {
    "ok": "ok",
    "attention": "attention",
    "violation": "violation",
    "alarm": "violation",
    "unknown": "unknown",
    "no_traffic": "unknown",
    "capture_broken": "violation",
}
DASH = "\u2013"


@lru_cache(maxsize=4)
def environment(*folders: Path) -> Environment:
    """The Jinja2 environment of the report; ``folders`` are searched before the report's own templates."""
    found = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(percent=percent, number=number, when=when)
    found.globals.update(status_words=STATUS_WORDS, status_colours=STATUS_COLOURS, css=stylesheet())
    return found


@lru_cache(maxsize=1)
def stylesheet() -> Markup:
    """The style sheet, to stand inside a page."""
    return Markup((TEMPLATES / "style.css").read_text("utf-8"))  # noqa: S704 - our own file


def percent(value: float | None, digits: int = 1) -> str:
    """0.1234 as ``12.3 %``; a dash for None."""
    return DASH if value is None else f"{value * 100:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with thin thousands separators; a dash for None."""
    if value is None:
        return DASH
    if float(value).is_integer():
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")


def when(value: str | float | datetime | None) -> str:
    """A time, also as ISO text or epoch seconds, as ``20 Nov 2026, 14:05 UTC``."""
    if value is None or value == "":
        return DASH
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return time.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")
