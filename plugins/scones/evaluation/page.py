"""The evaluation as one self-contained page: no script, nothing loaded, light and dark, charts as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from scones.report import svg
from scones.report.formatting import environment, when

_WIDTH, _HEIGHT = 440.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 14.0, 12.0, 40.0
_MISTAKES = 20
# Of the sweep's steps of 0.01, those that the table shows beside the recommended one.
_SHOWN_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)
Point = tuple[float, float]


class _Plot:
    """Axes from (``low``, 0) to (1, 1) with a grid; shapes are added in data coordinates."""

    def __init__(self, across: str, up: str, low: float = 0.0) -> None:
        self.x = svg.scale(low, 1.0, _LEFT, _WIDTH - _RIGHT)
        self.y = svg.scale(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
        self.label = f"{up.capitalize()} by {across}"
        self.parts: list[Markup] = []
        for step in range(6):
            x, y = low + (1 - low) * step / 5, step / 5
            self.parts += (
                svg.line(_LEFT, self.y(y), _WIDTH - _RIGHT, self.y(y), "grid"),
                svg.line(self.x(x), _TOP, self.x(x), self.y(0), "grid"),
                svg.text(_LEFT - 6, self.y(y) + 4, f"{y:.1f}", "end"),
                svg.text(self.x(x), _HEIGHT - _BOTTOM + 15, f"{x:.2f}", "middle"),
            )
        self.parts.append(svg.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, across, "middle"))

    def line(self, points: Sequence[Point], style: str = "line", title: str = "") -> None:
        path = svg.path([(self.x(x), self.y(y)) for x, y in points], style)
        self.parts.append(svg.tag("g", svg.join([svg.tag("title", title), path])) if title else path)

    def bar(self, low: float, high: float, height: float, title: str) -> None:
        left, right, top = self.x(low), self.x(high), self.y(height)
        self.parts.append(svg.bar(left + 1, top, right - left - 2, self.y(0) - top, "bar-current", title))

    def chart(self) -> Markup:
        return svg.chart(_WIDTH, _HEIGHT, self.parts, self.label)


def _roc(metrics: Mapping[str, Any]) -> Markup:
    plot = _Plot("share of the others taken for the class", "share of the class found")
    plot.line([(0, 0), (1, 1)], "threshold")
    for index, (name, curve) in enumerate(metrics["roc_one_vs_rest"].items()):
        if curve["auc"] is not None:
            points = list(zip(curve["false_positive_rates"], curve["true_positive_rates"], strict=True))
            plot.line(points, "axis-line" if index == 1 else "line", f"{name}: area {curve['auc']:.4f}")
    return plot.chart()


def _reliability(document: Mapping[str, Any]) -> Markup:
    plot = _Plot("confidence the model gives", "share that is right")
    for row in document["calibration"]["bins"]:
        title = f"{row['images']} images, confidence {row['confidence']:.3f}, right {row['accuracy']:.3f}"
        plot.bar(row["from"], row["to"], row["accuracy"], title)
    plot.line([(0, 0), (1, 1)], "threshold")
    return plot.chart()


def _sweep(document: Mapping[str, Any]) -> Markup:
    rows, recommended = document["threshold_sweep"], document["recommended_threshold"]
    plot = _Plot("threshold", "share", low=rows[0]["threshold"])
    plot.line([(row["threshold"], row["coverage"]) for row in rows], "axis-line", "share accepted")
    accuracy = [(row["threshold"], row["accuracy"]) for row in rows if row["accuracy"] is not None]
    plot.line(accuracy, title="accuracy of the accepted")
    if recommended is not None:
        plot.line([(recommended, 0), (recommended, 1)], "threshold", f"recommended: {recommended}")
    return plot.chart()


def _confusion(metrics: Mapping[str, Any], count: int) -> list[list[int]]:
    matrix = metrics["confusion_matrix"]
    return [[matrix[str(row)][str(column)] for column in range(count)] for row in range(count)]


def render(document: Mapping[str, Any]) -> str:
    """The page for one evaluation document (`scones.evaluation.metrics.evaluate` plus names, champion and mistakes)."""
    classes = document["classes"]
    metrics = document.get("binary_classification_metrics") or document["multiclass_classification_metrics"]
    return (
        environment(Path(__file__).parent)
        .get_template("evaluation.html.j2")
        .render(
            evaluation=document,
            title=f"Evaluation of {document.get('training_job_name', 'the model')}",
            about=f"Dataset {document.get('dataset_version', '')}: {', '.join(classes)}. "
            f"{when(document.get('created_at'))}",
            drawn=(document.get("source") or {}).get("kind") == "sample",
            confusion=_confusion(metrics, len(classes)),
            per_class=metrics["per_class"],
            charts={"roc": _roc(metrics), "reliability": _reliability(document), "sweep": _sweep(document)},
            thresholds=[
                row
                for row in document["threshold_sweep"]
                if row["threshold"] in (*_SHOWN_THRESHOLDS, document["recommended_threshold"])
            ],
            champion=document.get("champion"),
            mistakes=document.get("mistakes", [])[:_MISTAKES],
        )
    )
