"""How the accuracy grew while a job trained, read from the algorithm's log: SageMaker keeps only the last value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from scones.report import svg

# As the built-in algorithm writes it: "Epoch[3] Validation-accuracy=0.912500".
_ACCURACY = re.compile(r"Epoch\[(\d+)\] (Train|Validation)-accuracy=([0-9.]+)")
_WIDTH, _HEIGHT = 560.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 14.0, 34.0
_LINES = {"train": "line faint", "validation": "line"}

Curve = Mapping[str, Sequence[tuple[int, float]]]


def training_curve(lines: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
    """Return ``{"train": [(epoch, accuracy)], "validation": [...]}``; of an epoch trained again, the last value."""
    found: dict[str, dict[int, float]] = {name: {} for name in _LINES}
    for line in lines:
        if match := _ACCURACY.search(line):
            found[match[2].lower()][int(match[1])] = float(match[3])
    return {name: sorted(points.items()) for name, points in found.items()}


def curve_chart(curve: Curve) -> Markup:
    """Return the chart of a curve; empty when the log holds none."""
    points = [point for name in _LINES for point in curve[name]]
    if not points:
        return Markup("")
    last = max(*(epoch for epoch, _ in points), 1)
    lowest = min(accuracy for _, accuracy in points)
    floor = max(0.0, (int(lowest * 20) - 1) / 20)
    x = svg.scale(0, last, _LEFT + 8, _WIDTH - _RIGHT - 8)
    y = svg.scale(floor, 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in svg.nice_ticks(floor, 1.0):
        if floor <= tick <= 1:
            parts.append(svg.line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "grid"))
            parts.append(svg.text(_LEFT - 6, y(tick) + 4, svg.short(tick), "end"))
    for tick in svg.nice_ticks(0, last, 8):
        if float(tick).is_integer() and tick <= last:
            parts.append(svg.text(x(tick), _HEIGHT - _BOTTOM + 17, f"{tick:g}", "middle"))
    parts.append(svg.text(_WIDTH - _RIGHT, _HEIGHT - 2, "epoch", "end"))
    for name, style in _LINES.items():
        placed = [(x(epoch), y(accuracy)) for epoch, accuracy in curve[name]]
        if len(placed) > 1:
            parts.append(svg.path(placed, style))
        for (across, up), (epoch, accuracy) in zip(placed, curve[name], strict=True):
            title = svg.tag("title", f"epoch {epoch}, {name}: {accuracy:.4f}")
            parts.append(svg.tag("circle", title, cx=across, cy=up, r=2.6, class_=f"dot {name}"))
    return svg.chart(_WIDTH, _HEIGHT, parts, "Accuracy by epoch, on training and on validation images")
