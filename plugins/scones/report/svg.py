"""A few primitives for charts drawn as inline SVG.

Hand-made rather than by a plotting library: a page has some fifteen charts, they must follow the page's light and
dark colours (CSS classes, no fixed colours), scale to a phone and stay small. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape


def tag(name: str, content: Markup | str = "", **attributes: object) -> Markup:
    """An element; ``class_`` becomes ``class``, underscores become dashes, None is left out, floats are shortened."""
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    return Markup(f"<{name}{''.join(parts)}>{escape(content)}</{name}>")  # noqa: S704 - every part is escaped


def join(parts: Sequence[Markup]) -> Markup:
    """Elements one after another."""
    return Markup("").join(parts)


def chart(width: float, height: float, parts: Sequence[Markup], label: str) -> Markup:
    """The outer ``svg`` element, scaling with its column; ``label`` is what a screen reader says."""
    return tag(
        "svg",
        join(parts),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        preserveAspectRatio="xMidYMid meet",
        class_="chart",
    )


def text(x: float, y: float, content: str, anchor: str = "start", class_: str = "tick") -> Markup:
    """A piece of text."""
    return tag("text", content, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def bar(x: float, y: float, width: float, height: float, class_: str, title: str = "", rounding: float = 1.5) -> Markup:
    """A bar with an optional tooltip."""
    inner = tag("title", title) if title else ""
    return tag(
        "rect",
        inner,
        x=float(x),
        y=float(y),
        width=float(max(width, 0)),
        height=float(max(height, 0)),
        rx=float(min(rounding, max(width, 0) / 2)),
        class_=class_,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, close: bool = False) -> Markup:
    """A line through points, or the area they enclose."""
    if not points:
        return Markup("")
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=f"M{steps}{' Z' if close else ''}", class_=class_)


def runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Split at missing values, so that a line has gaps where there are no data."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [run for run in found if run]


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover ``[low, high]``: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        high = low + 1
    raw = (high - low) / max(count, 1)
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next((factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999), 10 * magnitude)
    first = math.ceil(low / step - 1e-9) * step
    ticks = []
    while first <= high + step * 1e-9:
        ticks.append(round(first, 10))
        first += step
    return ticks


def short(value: float) -> str:
    """A number as people write it on an axis: 0.5, 12, 3.4k."""
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:.1f}".rstrip("0").rstrip(".") + "M"
    if abs(value) >= 10_000:
        return f"{value / 1e3:.1f}".rstrip("0").rstrip(".") + "k"
    return f"{value:.10g}" if float(value).is_integer() else f"{value:.3g}"


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A linear scale from ``[low, high]`` to ``[start, end]``; a scale of no width maps to the middle."""
    if high <= low:
        middle = (start + end) / 2
        return lambda _: middle
    return lambda value: start + (value - low) / (high - low) * (end - start)


_TIME_STEPS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000)


def time_ticks(first: float, last: float, count: int = 7) -> list[tuple[float, str]]:
    """Times and their labels for an axis from ``first`` to ``last`` (epoch seconds, UTC)."""
    span = max(last - first, 60)
    month = _TIME_STEPS[-1]
    step = next((one for one in _TIME_STEPS if span / one <= count), month * math.ceil(span / month / count))
    form = "%H:%M" if span < 86400 else "%d %b %H:%M"
    if step >= 43200:
        form = "%d %b" if step <= month else "%b %Y"
    at = math.ceil(first / step) * step
    ticks = []
    while at <= last + 1:
        ticks.append((float(at), datetime.fromtimestamp(at, UTC).strftime(form)))
        at += step
    return ticks
