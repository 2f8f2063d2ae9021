"""From what was captured to a report: numbers, checks, violations, and what to do next.

Everything here is a pure function of its inputs. The result of :func:`build_report` is ``report.json``: the HTML
page, the alarm and the pages in the Airflow UI show it and compute nothing of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from scones.images.statistics import QUANTILES, STATISTICS, categorical_feature, features_by_name, numerical_feature
from scones.monitoring import figures as figures
from scones.monitoring.capture_summary import CaptureSummary
from scones.monitoring.checks import Check, overall_status, run_checks, violations_of
from scones.monitoring.drift import DriftResult, compare, effective_count

REPORT_VERSION = 1


@dataclass(frozen=True)
class Traffic:
    """What CloudWatch knows of the endpoint in the window.

    Attributes:
        invocations: ``(time, number)`` per minute, metric ``Invocations``; None when CloudWatch could not be asked.
        latency: ``(time, mean microseconds)`` per period, metric ``ModelLatency``.
        latency_p95_ms, latency_mean_ms: over the whole window; None when there are no data.
        errors: number of 4XX and 5XX answers.
    """

    invocations: Sequence[tuple[datetime, float]] | None = None
    latency: Sequence[tuple[datetime, float]] = ()
    latency_mean_ms: float | None = None
    latency_p95_ms: float | None = None
    errors: float = 0


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report is made of, beside the captured records.

    Attributes:
        report_id: identifier of the report, also its folder.
        endpoint: ``{"name", "status", "config_name", "capture_enabled", "sampling_percentage"}``.
        classes: class names in the order of the endpoint's answer.
        threshold: ``{"threshold", "version", ...}``: config/threshold.json.
        since, until: the window of the report.
        baseline, constraints: documents of the training data set; None when there is none.
        evaluation: evaluation.json of the live model, for its confidences on the test images; None when unknown.
        traffic: what CloudWatch says.
        quality: result of :func:`scones.monitoring.ground_truth.model_quality`.
        lineage: model package, training job, data set of the live model.
        previous: the previous report's JSON.
        run: ``{"dag_id", "run_id"}`` of the DAG run that writes the report.
        created_at: when it is written.
    """

    report_id: str
    endpoint: Mapping[str, Any]
    classes: Sequence[str]
    threshold: Mapping[str, Any]
    since: datetime
    until: datetime
    created_at: datetime
    baseline: Mapping[str, Any] | None = None
    constraints: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    traffic: Traffic = field(default_factory=Traffic)
    quality: Mapping[str, Any] | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    previous: Mapping[str, Any] | None = None
    run: Mapping[str, str] = field(default_factory=dict)


def build_report(summary: CaptureSummary, inputs: ReportInputs) -> dict[str, Any]:
    """Make the report of a window.

    :param summary: what was read from the captures.
    :return: the JSON-able report; ``violations`` has Model Monitor's form.
    :raises scones.monitoring.drift.ConstraintsError: when the constraints cannot be used.
    """
    threshold = float(inputs.threshold["threshold"])
    class_counts = _class_counts(summary, inputs.classes)
    baseline = _with_confidence(inputs.baseline, inputs.evaluation)
    statistics = current_statistics(summary, class_counts)
    fingerprints = summary.column("fingerprint")
    effective = effective_count(fingerprints)
    drift = _drift(baseline, inputs.constraints, summary, class_counts, effective)
    usable = summary.records - summary.unusable_outputs
    invocations = None
    if inputs.traffic.invocations is not None:
        invocations = int(sum(number for _, number in inputs.traffic.invocations))
    settled = invocations_before(inputs.traffic.invocations, inputs.until - timedelta(minutes=5))
    report: dict[str, Any] = {
        "version": REPORT_VERSION,
        "report_id": inputs.report_id,
        "endpoint_name": inputs.endpoint["name"],
        "endpoint": dict(inputs.endpoint),
        "created_at": inputs.created_at.isoformat(),
        "run": dict(inputs.run),
        "window": {"since": inputs.since.isoformat(), "until": inputs.until.isoformat()},
        "classes": list(inputs.classes),
        "threshold": dict(inputs.threshold),
        "captured_records": summary.records,
        "counts": {
            "files": len(summary.files),
            "bytes": summary.bytes_read,
            "records": summary.records,
            "different_images": int(np.unique(fingerprints).size),
            "effective_records": round(effective, 1),
            "invocations": invocations,
            "invocations_settled": settled,
            "invocation_errors": int(inputs.traffic.errors),
            "malformed_lines": summary.malformed,
            "unusable_outputs": summary.unusable_outputs,
            "undecodable_images": summary.undecodable,
            "passed": usable - summary.rejected,
            "rejected": summary.rejected,
        },
        "problems": {
            "malformed_lines": summary.malformed_examples,
            "unusable_outputs": summary.output_examples,
            "undecodable_images": summary.undecodable_examples,
        },
        "content_types": dict(summary.content_types.most_common(10)),
        "rejection_rate": summary.rejected / usable if usable else None,
        "class_mix": figures.class_mix(class_counts, inputs.baseline),
        "expected_rejection_rate": figures.expected_rejection_rate(inputs.evaluation, threshold),
        "confidence": figures.confidence(summary.column("confidence"), inputs.evaluation),
        "over_time": figures.over_time(summary, threshold),
        "latency": {
            "mean_ms": inputs.traffic.latency_mean_ms,
            "p95_ms": inputs.traffic.latency_p95_ms,
            "points": [[time.timestamp(), value / 1000] for time, value in inputs.traffic.latency],
        },
        "statistics": statistics,
        "baseline_histograms": figures.histograms(summary, inputs.baseline),
        "drift": [result.as_dict() for result in drift],
        "quality": dict(inputs.quality) if inputs.quality else None,
        "lineage": dict(inputs.lineage),
        "baseline_available": inputs.baseline is not None,
    }
    checks = run_checks(report, drift, inputs.constraints or {})
    report["checks"] = [check.as_dict() for check in checks]
    report["violations"] = violations_of(checks)
    report["status"] = overall_status(checks)
    report["headline"] = _headline(report, checks)
    report["next_steps"] = _next_steps(checks)
    report["previous"] = _previous(report, inputs.previous)
    return report


def invocations_before(invocations: Sequence[tuple[datetime, float]] | None, time: datetime) -> int | None:
    """Invocations early enough for their capture to have been delivered (a couple of minutes on AWS)."""
    if invocations is None:
        return None
    return int(sum(number for minute, number in invocations if minute < time))


def current_statistics(summary: CaptureSummary, class_counts: Mapping[str, int]) -> dict[str, Any]:
    """The captured records in the form of Model Monitor's ``statistics.json``."""
    features = [numerical_feature(name, summary.column(name)) for name in (*STATISTICS, "confidence")]
    features.append(categorical_feature("size", dict(summary.sizes.most_common(20))))
    features.append(categorical_feature("label", class_counts))
    return {"version": 0, "dataset": {"item_count": summary.records}, "features": features}


def _class_counts(summary: CaptureSummary, classes: Sequence[str]) -> dict[str, int]:
    return {name: summary.predicted_counts.get(index, 0) for index, name in enumerate(classes)}


def _with_confidence(
    baseline: Mapping[str, Any] | None, evaluation: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Add the confidences on the test images to the baseline, as the evaluation's quantiles give them."""
    given = (evaluation or {}).get("confidence_quantiles") or []
    images = int((evaluation or {}).get("images") or 0)
    if baseline is None or len(given) < 5 or images < 1:
        return baseline
    quantiles = np.interp(np.linspace(0, 1, QUANTILES), np.linspace(0, 1, len(given)), np.asarray(given, dtype=float))
    feature = numerical_feature("confidence", quantiles)
    feature["numerical_statistics"]["common"]["num_present"] = images
    return {**baseline, "features": [*baseline["features"], feature]}


def _drift(
    baseline: Mapping[str, Any] | None,
    constraints: Mapping[str, Any] | None,
    summary: CaptureSummary,
    class_counts: Mapping[str, int],
    effective: float,
) -> list[DriftResult]:
    if baseline is None or not summary.records:
        return []
    numeric = {name: summary.column(name) for name in (*STATISTICS, "confidence")}
    categorical: dict[str, Mapping[str, int]] = {"size": summary.sizes, "label": class_counts}
    return compare(baseline, constraints or {}, numeric, categorical, effective)


def _headline(report: Mapping[str, Any], checks: Sequence[Check]) -> str:
    failing = [check for check in checks if check.status == "violation"]
    if report["status"] == "no_traffic":
        return "No traffic: the endpoint was not invoked in this window."
    if report["status"] == "capture_broken":
        return "Capture is broken: the endpoint answers, but nothing is captured."
    if failing:
        names = ", ".join(check.title.lower() for check in failing)
        return f"{len(failing)} of {len(checks)} checks failed: {names}."
    if report["status"] == "attention":
        names = ", ".join(check.title.lower() for check in checks if check.status == "attention")
        return f"Worth a look: {names}."
    return "Everything checked is within its limits."


def _next_steps(checks: Sequence[Check]) -> list[str]:
    steps: list[str] = []
    for status in ("violation", "attention", "unknown"):
        for check in checks:
            if check.status == status and check.action and check.action not in steps:
                steps.append(check.action)
    return steps or ["Nothing to do. The next report comes with the next run of monitor_endpoint."]


def _previous(report: Mapping[str, Any], previous: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if previous is None:
        return None
    rows = []
    for title, number, unit, lower_is_better in (
        ("Captured records", lambda r: r["captured_records"], "", None),
        ("Rejection rate", lambda r: r["rejection_rate"], "%", True),
        ("Mean confidence", lambda r: r["confidence"]["mean"], "", False),
        ("Latency, 95th percentile", lambda r: r["latency"]["p95_ms"], "ms", True),
        ("Violations", lambda r: len(r["violations"]), "", True),
        *(
            (f"Mean {name}", lambda r, n=name: _mean_of(r, n), "", None)
            for name in ("brightness", "contrast", "sharpness")
        ),
    ):
        rows.append(
            {
                "title": title,
                "unit": unit,
                "before": number(previous),
                "now": number(report),
                "lower_is_better": lower_is_better,
            }
        )
    return {
        "report_id": previous["report_id"],
        "status": previous["status"],
        "window": dict(previous["window"]),
        "rows": rows,
    }


def _mean_of(report: Mapping[str, Any], name: str) -> float | None:
    value: float | None = features_by_name(report["statistics"])[name]["numerical_statistics"]["mean"]
    return value


def index_entry(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers of a report that the list of reports and the trends show."""
    return {
        "report_id": report["report_id"],
        "created_at": report["created_at"],
        "window": report["window"],
        "run": report["run"],
        "status": report["status"],
        "headline": report["headline"],
        "captured_records": report["captured_records"],
        "rejection_rate": report["rejection_rate"],
        "mean_confidence": report["confidence"]["mean"],
        "latency_p95_ms": report["latency"]["p95_ms"],
        "violations": len(report["violations"]),
        "model_version": report["lineage"].get("model_package_version"),
        "training_job_name": report["lineage"].get("training_job_name"),
    }


def utc(epoch: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(epoch, tz=UTC)
