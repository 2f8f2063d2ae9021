"""The charts of the monitoring report: histograms, lines over time and bars, as people know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from markupsafe import Markup

from scones.report import svg

Form = Literal["number", "percent"]
_WIDTH, _HEIGHT = 560.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 14.0, 30.0


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%d %b %H:%M")


def _y_axis(ticks: Sequence[float], y: Any) -> list[Markup]:
    parts = []
    for tick in ticks:
        parts.append(svg.line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 6, y(tick) + 4, svg.short(tick), "end"))
    return parts


def _x_time_axis(first: float, last: float, x: Any) -> list[Markup]:
    parts = [svg.line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "axis")]
    for at, label in svg.time_ticks(first, last):
        anchor = "start" if x(at) < _LEFT + 20 else "end" if x(at) > _WIDTH - _RIGHT - 20 else "middle"
        parts.append(svg.text(x(at), _HEIGHT - _BOTTOM + 17, label, anchor))
    return parts


def confidence_histogram(confidence: Mapping[str, Any], threshold: float) -> Markup:
    """Records by confidence, those below the threshold in another colour."""
    edges, counts = confidence["histogram"]["edges"], confidence["histogram"]["counts"]
    # With two classes no confidence is below a half: leave the empty left side out.
    first = next((index for index, count in enumerate(counts) if count), 0)
    first = min(first, int(min(0.5, max(threshold - 0.1, 0)) * len(counts)))
    edges, counts = edges[first:], counts[first:]
    top = max(*counts, 1)
    ticks = [tick for tick in svg.nice_ticks(0, top) if float(tick).is_integer()]
    y = svg.scale(0, max(top, ticks[-1]) * 1.02, _HEIGHT - _BOTTOM, _TOP + 12)
    x = svg.scale(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT)
    parts = _y_axis(ticks, y)
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        kind = "bar-bad" if high <= threshold + 1e-9 else "bar-mixed" if low < threshold else "bar-good"
        title = f"{low:.2f} to {high:.2f}: {count} records"
        parts.append(svg.bar(x(low) + 1, y(count), x(high) - x(low) - 2, y(0) - y(count), kind, title))
    parts.append(svg.line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "axis"))
    for tick in svg.nice_ticks(edges[0], edges[-1], 5):
        parts.append(svg.text(x(tick), _HEIGHT - _BOTTOM + 17, f"{tick:.2g}", "middle"))
    parts.append(svg.line(x(threshold), _TOP, x(threshold), y(0), "threshold"))
    anchor = "end" if threshold > 0.6 else "start"
    shift = -5 if anchor == "end" else 5
    parts.append(svg.text(x(threshold) + shift, _TOP + 8, f"threshold {threshold:g}", anchor, "threshold-label"))
    return svg.chart(_WIDTH, _HEIGHT, parts, "Histogram of the confidence of the answers, with the threshold")


def confidence_over_time(over_time: Mapping[str, Any], threshold: float) -> Markup:
    """Mean confidence, the lowest tenth as a band below it, and the threshold."""
    points = over_time["points"]
    step = over_time["step_seconds"]
    first, last = points[0]["time"], points[-1]["time"] + step
    low = min([point["lowest_tenth"] for point in points if point["lowest_tenth"] is not None] + [threshold, 0.9])
    floor = max(0.0, (int(low * 20) - 1) / 20)
    x = svg.scale(first, last, _LEFT, _WIDTH - _RIGHT)
    y = svg.scale(floor, 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = _y_axis(svg.nice_ticks(floor, 1.0), y)
    middle = [(x(point["time"] + step / 2), point) for point in points]
    for run in svg.runs([(at, None if p["mean"] is None else float(index)) for index, (at, p) in enumerate(middle)]):
        chosen = [(at, points[int(index)]) for at, index in run]
        upper = [(at, y(point["mean"])) for at, point in chosen]
        lower = [(at, y(point["lowest_tenth"])) for at, point in chosen]
        if len(chosen) == 1:
            parts.append(svg.line(upper[0][0], upper[0][1], lower[0][0], lower[0][1], "band-line"))
        else:
            parts.append(svg.path(upper + lower[::-1], "band", close=True))
            parts.append(svg.path(upper, "line"))
        for at, point in chosen:
            title = f"{_time(point['time'])}: mean {point['mean']:.3f}, lowest tenth {point['lowest_tenth']:.3f}"
            parts.append(svg.tag("circle", svg.tag("title", title), cx=at, cy=y(point["mean"]), r=2.6, class_="dot"))
    parts.append(svg.line(_LEFT, y(threshold), _WIDTH - _RIGHT, y(threshold), "threshold"))
    parts.append(svg.text(_WIDTH - _RIGHT, y(threshold) + 14, f"threshold {threshold:g}", "end", "threshold-label"))
    parts += _x_time_axis(first, last, x)
    return svg.chart(_WIDTH, _HEIGHT, parts, "Mean confidence over time with the threshold")


def volume_over_time(over_time: Mapping[str, Any]) -> Markup:
    """Records per step of time, the rejected share of each in another colour."""
    points, step = over_time["points"], over_time["step_seconds"]
    first, last = points[0]["time"], points[-1]["time"] + step
    top = max(*(point["records"] for point in points), 1)
    ticks = [tick for tick in svg.nice_ticks(0, top) if float(tick).is_integer()]
    y = svg.scale(0, max(top, ticks[-1]) * 1.02, _HEIGHT - _BOTTOM, _TOP)
    x = svg.scale(first, last, _LEFT, _WIDTH - _RIGHT)
    parts = _y_axis(ticks, y)
    width = min((_WIDTH - _LEFT - _RIGHT) / len(points), 60)
    for point in points:
        centre = x(point["time"] + step / 2)
        rejected = point["records"] * (point["rejection_rate"] or 0)
        title = f"{_time(point['time'])}: {point['records']} records, {rejected:.0f} rejected"
        left, inner = centre - width / 2 + 0.75, width - 1.5
        parts.append(svg.bar(left, y(point["records"]), inner, y(rejected) - y(point["records"]), "bar-good", title))
        parts.append(svg.bar(left, y(rejected), inner, y(0) - y(rejected), "bar-bad", title))
    parts += _x_time_axis(first, last, x)
    return svg.chart(_WIDTH, _HEIGHT, parts, "Records over time, rejected ones marked")


def latency_over_time(points: Sequence[Sequence[float]], limit: float | None) -> Markup:
    """Model latency in milliseconds; the limit only where it is near enough to show."""
    first, last = points[0][0], max(points[-1][0], points[0][0] + 60)
    top = max(value for _, value in points) * 1.15 or 1
    x = svg.scale(first, last, _LEFT, _WIDTH - _RIGHT)
    ticks = svg.nice_ticks(0, top)
    y = svg.scale(0, max(top, ticks[-1]), _HEIGHT - _BOTTOM, _TOP)
    parts = _y_axis(ticks, y)
    line = [(x(at), y(value)) for at, value in points]
    if len(line) > 1:
        parts.append(svg.path(line, "line"))
    for (at, value), (cx, cy) in zip(points, line, strict=True):
        dot = svg.tag("title", f"{_time(at)}: {value:.1f} ms")
        parts.append(svg.tag("circle", dot, cx=cx, cy=cy, r=2.6, class_="dot"))
    if limit is not None and limit <= top:
        parts.append(svg.line(_LEFT, y(limit), _WIDTH - _RIGHT, y(limit), "threshold"))
    parts += _x_time_axis(first, last, x)
    return svg.chart(_WIDTH, _HEIGHT, parts, "Model latency over time in milliseconds")


def class_mix(mix: Sequence[Mapping[str, Any]]) -> Markup:
    """A bar per predicted class, with a mark where the training data had it."""
    row, left = 46.0, 0.0
    height = row * len(mix) + 6
    x = svg.scale(0, 1, left, _WIDTH - 60)
    parts = []
    for index, one in enumerate(mix):
        top = index * row
        share = one["share"] or 0.0
        title = f"{one['class']}: {one['records']} records"
        parts.append(svg.text(left, top + 14, one["class"], "start", "bar-name"))
        parts.append(svg.bar(left, top + 20, x(1) - left, 16, "bar-track", rounding=3))
        parts.append(svg.bar(left, top + 20, x(share) - left, 16, "bar-good", title, rounding=3))
        parts.append(svg.text(x(1) + 8, top + 33, f"{share:.0%}", "start", "bar-value"))
        if one["baseline_share"] is not None:
            at = x(one["baseline_share"])
            parts.append(svg.line(at, top + 16, at, top + 40, "mark"))
    return svg.chart(_WIDTH, height, parts, "Share of each predicted class, with its share in the training data marked")


def drift_distances(drift: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Markup:
    """Each decisive test's distance relative to its limit."""
    shown = sorted(
        (result for result in drift if result["decisive"]),
        key=lambda result: result["value"] / result["threshold"],
        reverse=True,
    )
    row, left = 24.0, 118.0
    top_ratio = max([result["value"] / result["threshold"] for result in shown] + [1.25])
    x = svg.scale(0, min(top_ratio, 6.0), left, _WIDTH - 66)
    height = row * len(shown) + 30
    parts = [svg.text(x(1), 12, "limit", "middle", "threshold-label")]
    for index, result in enumerate(shown):
        ratio = result["value"] / result["threshold"]
        top = 20 + index * row
        kind = "bar-alarm" if result["drifted"] else "bar-baseline"
        title = f"{result['feature']}: {result['value']:.3f}, limit {result['threshold']:.3f}"
        parts.append(svg.text(left - 8, top + 14, names.get(result["feature"], result["feature"]), "end", "bar-name"))
        parts.append(svg.bar(left, top + 3, x(min(ratio, 6.0)) - left, 14, kind, title, rounding=3))
        parts.append(svg.text(x(min(ratio, 6.0)) + 6, top + 14, f"{result['value']:.2f}", "start", "bar-value"))
    parts.append(svg.line(x(1), 18, x(1), height - 6, "threshold"))
    return svg.chart(_WIDTH, height, parts, "Distance of each feature from the baseline, relative to its limit")


def feature_histogram(shares: Mapping[str, Any], name: str) -> Markup:
    """The distribution of one image statistic: the baseline as an area, the traffic as bars."""
    width, height, bottom = 260.0, 104.0, 18.0
    edges = shares["edges"]
    sides = [shares[side] for side in ("baseline", "current") if side in shares]
    top = max([max(side) for side in sides] + [1e-9])
    x = svg.scale(edges[0], edges[-1], 2, width - 2)
    y = svg.scale(0, top * 1.05, height - bottom, 4)
    parts = []
    if "baseline" in shares:
        outline = [(x(edges[0]), y(0))]
        for low, high, share in zip(edges[:-1], edges[1:], shares["baseline"], strict=True):
            outline += [(x(low), y(share)), (x(high), y(share))]
        parts.append(svg.path([*outline, (x(edges[-1]), y(0))], "area-baseline", close=True))
    for low, high, share in zip(edges[:-1], edges[1:], shares.get("current", []), strict=False):
        if share:
            title = f"{low:.3g} to {high:.3g}: {share:.1%} of the traffic"
            parts.append(
                svg.bar(x(low) + 0.8, y(share), x(high) - x(low) - 1.6, y(0) - y(share), "bar-current", title, 1)
            )
    parts.append(svg.line(0, y(0), width, y(0), "axis"))
    parts.append(svg.text(2, height - 4, svg.short(float(f"{edges[0]:.3g}"))))
    parts.append(svg.text(width - 2, height - 4, svg.short(float(f"{edges[-1]:.3g}")), "end"))
    return svg.chart(width, height, parts, f"Distribution of {name}: traffic and baseline")


def trend(values: Sequence[float | None], form: Form = "number") -> Markup:
    """A small line for a table, from old to new, with the range of its values at its side."""
    width, height, right = 170.0, 40.0, 44.0
    present = [value for value in values if value is not None]
    if len(present) < 2:
        return Markup("")
    low, high = min(present), max(present)
    x = svg.scale(0, len(values) - 1, 4, width - right)
    y = svg.scale(low, high, height - 7, 7)
    points = [(x(index), None if value is None else y(value)) for index, value in enumerate(values)]
    shown = (lambda value: f"{value:.0%}") if form == "percent" else svg.short
    parts = [svg.line(4, y(end), width - right, y(end), "grid") for end in {low, high}]
    parts += [svg.path(run, "line") for run in svg.runs(points)]
    last_x, last_y = next(point for point in reversed(points) if point[1] is not None)
    parts.append(svg.tag("circle", cx=last_x, cy=float(last_y or 0), r=2.6, class_="dot"))
    parts += [svg.text(width - right + 6, y(end) + 4, shown(end)) for end in dict.fromkeys((low, high))]
    label = f"From {shown(present[0])} to {shown(present[-1])}, between {shown(low)} and {shown(high)}"
    return svg.chart(width, height, parts, label)
