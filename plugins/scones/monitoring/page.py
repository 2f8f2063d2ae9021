"""Renders a report as one HTML page that needs nothing else: no script, no request, no font from anywhere.

Captured data is hostile. Everything is escaped (Jinja2's autoescape, and :mod:`scones.report.svg` for charts),
images are drawn anew from their pixels, and the page's own Content-Security-Policy allows neither scripts nor
requests, should anything slip through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from scones.images.statistics import STATISTICS
from scones.images.thumbnails import thumbnail_uri
from scones.monitoring.capture_summary import Example
from scones.monitoring.document import Change, Report
from scones.monitoring.drift import service_settings
from scones.report import charts
from scones.report.formatting import DASH, environment, number, percent

_FEATURE_WORDS = {"label": "class mix", "size": "image size"}


def render_page(report: Report, least_confident: Sequence[Example] = (), most_unlike: Sequence[Example] = ()) -> str:
    """Render ``report.html``.

    Args:
        report: what :func:`scones.monitoring.build.build_report` returned.
        least_confident, most_unlike: records whose images are shown.

    Returns:
        a complete HTML document, well under 2 MB.
    """
    classes = report["classes"]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            tiles=_tiles(report),
            charts=_charts(report),
            features=_features(report),
            least_confident=_gallery(least_confident, classes),
            most_unlike=_gallery(most_unlike, classes),
            comparison=_comparison(report["previous"]["rows"] if report["previous"] else []),
            lineage=_lineage(report),
        )
    )


def _charts(report: Report) -> dict[str, Markup | None]:
    threshold = float(report["threshold"]["threshold"])
    records = report["captured_records"]
    has_answers = records and report["confidence"]["mean"] is not None
    timed = records and report["over_time"]["points"]
    limit = service_settings({})["maximum_latency_p95_ms"]
    return {
        "histogram": charts.confidence_histogram(report["confidence"], threshold) if has_answers else None,
        "confidence": charts.confidence_over_time(report["over_time"], threshold) if has_answers else None,
        "volume": charts.volume_over_time(report["over_time"]) if timed else None,
        "classes": charts.class_mix(report["class_mix"]) if has_answers else None,
        "latency": charts.latency_over_time(report["latency"]["points"], limit)
        if report["latency"]["points"]
        else None,
        "drift": charts.drift_distances(report["drift"], _FEATURE_WORDS) if report["drift"] else None,
    }


def _tiles(report: Report) -> list[dict[str, str]]:
    counts, latency, quality = report["counts"], report["latency"], report["quality"]
    p95 = latency["p95_ms"] if latency["p95_ms"] is not None else latency["mean_ms"]
    kind = "no metric yet" if p95 is None else "95th percentile" if latency["p95_ms"] is not None else "mean"
    asked, confidence = counts["invocations"], report["confidence"]
    failed = sum(check["status"] == "violation" for check in report["checks"])
    below = f"{number(counts['rejected'])} below {report['threshold']['threshold']:g}"
    tiles = (
        (
            "Captured records",
            number(report["captured_records"]),
            f"of {number(asked)} invocations" if asked else "invocations not known",
        ),
        ("Rejection rate", percent(report["rejection_rate"]), below),
        ("Mean confidence", number(confidence["mean"]), f"median {number(confidence['median'])}"),
        ("Latency", DASH if p95 is None else f"{p95:.1f} ms", kind),
        (
            "Accuracy",
            percent(quality["accuracy"]) if quality else DASH,
            f"on {quality['dataset']['item_count']} labels" if quality else "no ground truth yet",
        ),
        ("Violations", number(len(report["violations"])), f"in {failed} of {len(report['checks'])} checks"),
    )
    return [{"title": title, "value": value, "note": note} for title, value, note in tiles]


def _features(report: Report) -> list[dict[str, Any]]:
    """A small chart for each image statistic, with the verdict of its decisive tests."""
    found = []
    for name, meaning in STATISTICS.items():
        shares = report["baseline_histograms"].get(name)
        if shares is None:
            continue
        results = [result for result in report["drift"] if result["feature"] == name and result["decisive"]]
        worst = max(results, key=lambda result: result["value"] / result["threshold"], default=None)
        found.append(
            {
                "name": name,
                "meaning": meaning,
                "chart": charts.feature_histogram(shares, name),
                "status": "unknown" if worst is None else "violation" if worst["drifted"] else "ok",
                "worst": worst,
            }
        )
    return found


def _gallery(examples: Sequence[Example], classes: Sequence[str]) -> list[dict[str, Any]]:
    shown = []
    for example in examples:
        uri = thumbnail_uri(example.image)
        if uri is None:
            continue
        shown.append(
            {
                # A data: URI that thumbnail_uri made, never one from the capture.
                "uri": uri,
                "class": classes[example.predicted],
                "confidence": example.confidence,
                "novelty": example.novelty,
                "source": example.source or example.event_id,
                "name": (example.source or example.event_id).rstrip("/").rpartition("/")[2],
            }
        )
    return shown


def _comparison(rows: Sequence[Change]) -> list[dict[str, str]]:
    """The numbers of two reports side by side, and what the difference means."""
    shown = []
    for row in rows:
        share, before, now = row["unit"] == "%", row["before"], row["now"]
        unit = " ms" if row["unit"] == "ms" else ""
        change, kind = "", ""
        if before is not None and now is not None:
            difference = now - before
            change = f"{difference * 100:+.1f} points" if share else f"{difference:+g}"
            if before and not share:
                change = f"{difference / abs(before):+.1%}"
            if not any(digit in change for digit in "123456789"):
                change = "no change"  # that could be seen: "-0.0%" in red would alarm for nothing
            elif row["lower_is_better"] is not None:
                kind = "better" if (difference < 0) == row["lower_is_better"] else "worse"
        values = [DASH if one is None else (percent(one) if share else number(one)) + unit for one in (before, now)]
        shown.append({"title": row["title"], "before": values[0], "now": values[1], "change": change, "kind": kind})
    return shown


def _lineage(report: Report) -> list[tuple[str, str]]:
    model, endpoint, threshold = report["lineage"], report["endpoint"], report["threshold"]
    rows = [
        ("Endpoint", endpoint["name"]),
        ("Endpoint configuration", endpoint["config_name"]),
        ("Model", model["model_name"]),
        ("Model package", f"version {model['version']}" if model["version"] else None),
        ("Model package ARN", model["package_arn"]),
        ("Training job", model["training_job"]),
        ("Data set", model["dataset_version"]),
        ("Code", model["git_revision"]),
        ("Threshold", f"{threshold['threshold']:g}, version {threshold.get('version', 0)}"),
        ("Sampling", f"{endpoint['sampling_percentage']:g} %"),
        ("DAG run", " ".join(filter(None, [report["run"].get("dag_id"), report["run"].get("run_id")]))),
    ]
    return [(title, str(value)) for title, value in rows if value]
