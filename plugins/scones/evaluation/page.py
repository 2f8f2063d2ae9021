"""The evaluation as one self-contained HTML page: no script, nothing loaded, light and dark, charts as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6778; --line: #d5dbe3; --card: #fff; --page: #f4f6f9;
  --a: #1f6feb; --b: #c2410c; --good: #15803d }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf2; --soft: #9aa7b8; --line: #344052; --card: #18202b; --page: #0f151d;
    --a: #6aa8ff; --b: #fb923c; --good: #4ade80 } }
* { box-sizing: border-box }
body { margin: 0; padding: 24px; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: auto }
h1 { margin: 0 0 4px; font-size: 26px }
h2 { margin: 0 0 8px; font-size: 17px }
p { margin: 4px 0 12px; color: var(--soft) }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)) }
.card, .figures div { background: var(--card); border: 1px solid var(--line); border-radius: 10px }
.card { padding: 16px; overflow-x: auto }
.figures { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); margin: 16px 0 }
.figures div { padding: 12px }
.figures b { display: block; font-size: 22px }
.figures span { color: var(--soft); font-size: 13px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 5px 8px; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left }
svg { width: 100%; max-height: 380px; display: block }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif }
svg .cell { fill: var(--ink) }
.axis { stroke: var(--line); stroke-width: 1 }
.ideal { stroke: var(--soft); stroke-dasharray: 4 4; fill: none }
.a { stroke: var(--a); fill: none; stroke-width: 2 }
.b { stroke: var(--b); fill: none; stroke-width: 2 }
.bar { fill: var(--a); opacity: .75 }
.mark { stroke: var(--good); stroke-width: 2; stroke-dasharray: 3 3 }
.key { display: inline-block; width: 12px; height: 3px; vertical-align: middle; margin: 0 4px 0 12px }
"""
_LEFT, _TOP, _WIDTH, _HEIGHT = 44, 12, 380, 250


def _e(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _percent(value: Any, digits: int = 1) -> str:
    return f"{value * 100:.{digits}f} %" if isinstance(value, int | float) else "not measured"


class _Plot:
    """Axes from (x0, 0) to (1, 1) with a grid; shapes are added in data coordinates."""

    def __init__(self, title: str, x_title: str, y_title: str, x_from: float = 0.0, y_from: float = 0.0) -> None:
        self.x_from, self.y_from = x_from, y_from
        self.parts = [
            f'<svg viewBox="0 0 {_LEFT + _WIDTH + 12} {_TOP + _HEIGHT + 42}" role="img" aria-label="{_e(title)}">'
        ]
        for step in range(6):
            x, y = x_from + (1 - x_from) * step / 5, y_from + (1 - y_from) * step / 5
            px, py = self.at(x, y)
            self.parts.append(f'<path class="axis" d="M{_LEFT} {py}H{_LEFT + _WIDTH}M{px} {_TOP}V{_TOP + _HEIGHT}"/>')
            self.parts.append(f'<text x="{_LEFT - 6}" y="{py + 4}" text-anchor="end">{y:.2f}</text>')
            self.parts.append(f'<text x="{px}" y="{_TOP + _HEIGHT + 16}" text-anchor="middle">{x:.2f}</text>')
        middle = _LEFT + _WIDTH / 2
        self.parts.append(f'<text x="{middle}" y="{_TOP + _HEIGHT + 34}" text-anchor="middle">{_e(x_title)}</text>')
        self.parts.append(
            f'<text x="11" y="{_TOP + _HEIGHT / 2}" text-anchor="middle" '
            f'transform="rotate(-90 11 {_TOP + _HEIGHT / 2})">{_e(y_title)}</text>'
        )

    def at(self, x: float, y: float) -> tuple[float, float]:
        across, up = (x - self.x_from) / (1 - self.x_from), (y - self.y_from) / (1 - self.y_from)
        return round(_LEFT + across * _WIDTH, 1), round(_TOP + _HEIGHT - min(max(up, 0.0), 1.0) * _HEIGHT, 1)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        if points:
            path = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points))
            self.parts.append(f'<polyline class="{style}" points="{path}"/>')

    def bar(self, x0: float, x1: float, height: float, label: str) -> None:
        (left, top), (right, _) = self.at(x0, height), self.at(x1, height)
        self.parts.append(
            f'<rect class="bar" x="{left + 1}" y="{top}" width="{max(right - left - 2, 1):.1f}" '
            f'height="{_TOP + _HEIGHT - top:.1f}"><title>{_e(label)}</title></rect>'
        )

    def mark(self, x: float, label: str) -> None:
        px, _ = self.at(x, 0)
        self.parts.append(f'<path class="mark" d="M{px} {_TOP}V{_TOP + _HEIGHT}"><title>{_e(label)}</title></path>')

    def svg(self) -> str:
        return "".join([*self.parts, "</svg>"])


def _confusion(metrics: Mapping[str, Any], classes: Sequence[str]) -> str:
    matrix = metrics["confusion_matrix"]
    counts = [[matrix[str(row)][str(column)] for column in range(len(classes))] for row in range(len(classes))]
    side = 64 if len(classes) <= 6 else max(14, 400 // len(classes))  # pixels of one cell
    middle = side / 2
    left = 12 + 7 * max(len(name) for name in classes)
    size = side * len(classes)
    parts = [f'<svg viewBox="0 0 {left + size + 10} {size + left}" role="img" aria-label="Confusion matrix">']
    for row, numbers in enumerate(counts):
        total = sum(numbers) or 1
        parts.append(f'<text x="{left - 6}" y="{row * side + middle + 4}" text-anchor="end">{_e(classes[row])}</text>')
        for column, number in enumerate(numbers):
            colour = "var(--good)" if row == column else "var(--b)"
            hint = f"{classes[row]} taken for {classes[column]}: {number}"
            x, y = left + column * side, row * side
            parts.append(
                f'<rect x="{x}" y="{y}" width="{side - 2}" height="{side - 2}" rx="3" fill="{colour}" '
                f'fill-opacity="{0.06 + 0.6 * number / total:.3f}"><title>{_e(hint)}</title></rect>'
            )
            if side >= 24:
                parts.append(
                    f'<text class="cell" x="{x + middle - 1}" y="{y + middle + 4}" text-anchor="middle">{number}</text>'
                )
    for column, name in enumerate(classes):
        centre = left + column * side + middle
        parts.append(f'<text transform="translate({centre + 4} {size + 8}) rotate(90)">{_e(name)}</text>')
    return "".join([*parts, "</svg>"])


def _roc(metrics: Mapping[str, Any]) -> str:
    plot = _Plot("ROC curves", "share of the others taken for the class", "share of the class found")
    plot.line([(0, 0), (1, 1)], "ideal")
    for name, curve in metrics["roc_one_vs_rest"].items():
        if curve["auc"] is not None:
            points = list(zip(curve["false_positive_rates"], curve["true_positive_rates"], strict=True))
            plot.parts.append(f"<g><title>{_e(name)}: area {curve['auc']:.4f}</title>")
            plot.line(points, "a")
            plot.parts.append("</g>")
    return plot.svg()


def _reliability(document: Mapping[str, Any]) -> str:
    plot = _Plot("Reliability", "confidence the model gives", "share that is right")
    for row in document["calibration"]["bins"]:
        hint = f"{row['images']} images, confidence {row['confidence']:.3f}, right {row['accuracy']:.3f}"
        plot.bar(row["from"], row["to"], row["accuracy"], hint)
    plot.line([(0, 0), (1, 1)], "ideal")
    return plot.svg()


def _sweep(document: Mapping[str, Any]) -> str:
    rows = document["threshold_sweep"]
    plot = _Plot("Threshold sweep", "threshold", "share", x_from=rows[0]["threshold"])
    plot.line([(row["threshold"], row["coverage"]) for row in rows], "b")
    plot.line([(row["threshold"], row["accuracy"]) for row in rows if row["accuracy"] is not None], "a")
    if document["recommended_threshold"] is not None:
        plot.mark(document["recommended_threshold"], f"recommended: {document['recommended_threshold']}")
    return plot.svg()


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = "".join(f"<th>{_e(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_e(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _champion(document: Mapping[str, Any]) -> str:
    champion = document.get("champion")
    if not champion:
        return "<p>No model was live when this one was evaluated.</p>"
    if not champion.get("comparable", True):
        return (
            f"<p>The live model ({_e(champion['training_job_name'])}) cannot be compared: {_e(champion['reason'])}.</p>"
        )
    rows = [
        ("accuracy", _percent(document["test_accuracy"]), _percent(champion["accuracy"])),
        ("log loss", f"{document['log_loss']:.4f}", f"{champion['log_loss']:.4f}"),
        (
            "expected calibration error",
            f"{document['expected_calibration_error']:.4f}",
            f"{champion['expected_calibration_error']:.4f}",
        ),
        ("images only this one has right", champion["only_challenger_right"], champion["only_champion_right"]),
    ]
    said = (
        f"Equally good models differ this much with probability {champion['p_value']:.3f} "
        f"(McNemar, {champion['images']} images)."
    )
    return _table(("", "this model", f"live: {champion['training_job_name']}"), rows) + f"<p>{_e(said)}</p>"


def render(document: Mapping[str, Any]) -> str:
    """The page for one evaluation document (`scones.evaluation.metrics.evaluate` plus names, champion and mistakes)."""
    classes = document["classes"]
    metrics = document.get("binary_classification_metrics") or document["multiclass_classification_metrics"]
    threshold = document["recommended_threshold"]
    figures = [
        ("accuracy", _percent(document["test_accuracy"])),
        ("proven at least", _percent(document["test_accuracy_lower_bound"])),
        ("log loss", f"{document['log_loss']:.4f}"),
        ("calibration error", f"{document['expected_calibration_error']:.4f}"),
        ("recommended threshold", "none" if threshold is None else f"{threshold:.2f}"),
        ("test images", document["images"]),
    ]
    per_class = [
        (name, _percent(row["precision"]), _percent(row["recall"]), f"{row['f1']:.4f}", row["support"])
        for name, row in metrics["per_class"].items()
    ]
    mistakes = [
        (
            item["key"].rsplit("/", 1)[-1],
            classes[item["label"]],
            classes[item["predicted"]],
            _percent(item["confidence"]),
        )
        for item in document.get("mistakes", [])[:20]
    ]
    title = f"Evaluation of {document.get('training_job_name', 'the model')}"
    drawn = (document.get("source") or {}).get("kind") == "sample"
    notice = "<p><b>Drawn sample images: these figures say nothing about real photographs.</b></p>" if drawn else ""
    cards = [
        ("Confusion", "Rows: what it is. Columns: what the model says.", _confusion(metrics, classes)),
        ("ROC", "One line per class against the others; the dashed line is chance.", _roc(metrics)),
        ("Reliability", "Bars on the dashed line: the confidence can be taken at its word.", _reliability(document)),
        (
            "Threshold",
            '<i class="key" style="background:var(--a)"></i>accuracy of the accepted'
            '<i class="key" style="background:var(--b)"></i>share accepted'
            '<i class="key" style="background:var(--good)"></i>recommended',
            _sweep(document) + f"<p>{_e(document['recommendation']['reason'])}</p>",
        ),
        ("Per class", "", _table(("class", "precision", "recall", "F1", "images"), per_class)),
        ("Against the live model", "On the same images.", _champion(document)),
    ]
    if mistakes:
        cards.append(("Most confident mistakes", "", _table(("file", "is", "taken for", "confidence"), mistakes)))
    shown = "".join(f'<section class="card"><h2>{name}</h2><p>{note}</p>{body}</section>' for name, note, body in cards)
    boxes = "".join(f"<div><b>{_e(value)}</b><span>{_e(name)}</span></div>" for name, value in figures)
    about = f"Dataset {document.get('dataset_version', '')}: {', '.join(classes)}. {document.get('created_at', '')}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{_e(title)}</title><style>{_STYLE}</style></head><body><main><h1>{_e(title)}</h1><p>{_e(about)}</p>"
        f'{notice}<div class="figures">{boxes}</div><div class="grid">{shown}</div></main></body></html>\n'
    )
