"""From what was captured to a report: numbers, checks, violations, and what to do next.

Everything here is a pure function of its inputs. The result of :func:`build_report` is ``report.json``: the HTML
page, the alarm and the pages in the Airflow UI show it and compute nothing of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from scones.images.statistics import QUANTILES, STATISTICS, categorical_feature, features_by_name, numerical_feature
from scones.monitoring import figures
from scones.monitoring.capture_summary import DEFAULT_THRESHOLD, CaptureSummary
from scones.monitoring.checks import headline, next_steps, overall_status, run_checks, violations_of
from scones.monitoring.document import Change, Counts, Drift, EndpointFacts, Latency, Previous, Report, Unit
from scones.monitoring.drift import compare, effective_count
from scones.monitoring.ground_truth import Quality
from scones.monitoring.index import START, DagRun, IndexEntry, Place, Window
from scones.training.served import ServedModel

REPORT_VERSION = 1
#: Statistics whose means are compared from report to report.
COMPARED = ("brightness", "contrast", "sharpness")
#: An invocation older than this has been captured, or never will be (a couple of minutes on AWS).
SETTLED = timedelta(minutes=5)


@dataclass(frozen=True)
class Traffic:
    """What CloudWatch knows of the endpoint in the window.

    Attributes:
        invocations: ``(time, number)`` per minute, metric ``Invocations``; None when CloudWatch could not be asked.
        latency: ``(time, mean microseconds)`` per period, metric ``ModelLatency``.
        latency_p95_ms, latency_mean_ms: over the whole window; None when there are no data.
        errors: number of 4XX and 5XX answers.
        reported: invocations of the window's first minute that the report before has counted: CloudWatch counts
            whole minutes.
    """

    invocations: Sequence[tuple[datetime, float]] | None = None
    latency: Sequence[tuple[datetime, float]] = ()
    latency_mean_ms: float | None = None
    latency_p95_ms: float | None = None
    errors: float = 0
    reported: int = 0

    def invocations_before(self, time: datetime | None = None) -> int | None:
        """Invocations, all or before a time; None when CloudWatch could not be asked."""
        if self.invocations is None:
            return None
        counted = int(sum(number for minute, number in self.invocations if time is None or minute < time))
        return max(0, counted - self.reported)


@dataclass(frozen=True)
class ModelDocuments:
    """What is known of the live model and its training images; what is not there keeps its default.

    Attributes:
        served: the model and where it came from.
        threshold: ``{"threshold", "version", ...}``: config/threshold.json.
        baseline, constraints: documents of the dataset it was trained on.
        evaluation: evaluation.json, for the confidences on the test images.
    """

    served: ServedModel
    threshold: Mapping[str, Any] = field(default_factory=lambda: {"threshold": DEFAULT_THRESHOLD, "version": 0})
    baseline: Mapping[str, Any] | None = None
    constraints: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the endpoint's answer; empty when unknown."""
        return self.served.classes

    @property
    def least_confidence(self) -> float:
        """Confidence from which an answer passes."""
        return float(self.threshold["threshold"])


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report is made of, beside the captured records.

    Attributes:
        report_id: identifier of the report, also its folder.
        run: the DAG run that writes the report.
        window: what the report covers.
        created_at: when it is written.
        traffic: what CloudWatch says.
        quality: how the answers compare with the ground truth.
        rejected_quality: the same of answers that were rejected and labelled for it; never a measure of all.
        previous: the last report before this one that had records.
    """

    report_id: str
    run: DagRun
    endpoint: EndpointFacts
    window: Window
    created_at: datetime
    model: ModelDocuments
    traffic: Traffic = field(default_factory=Traffic)
    quality: Quality | None = None
    rejected_quality: Quality | None = None
    previous: IndexEntry | None = None


def build_report(summary: CaptureSummary, inputs: ReportInputs) -> Report:
    """Make the report of a window.

    Args:
        summary: what was read from the captures.

    Raises:
        scones.monitoring.drift.ConstraintsError: the constraints cannot be used.
    """
    model = inputs.model
    number = len(model.classes) or max(summary.predicted_counts, default=-1) + 1
    class_counts = {model.served.class_name(index): summary.predicted_counts.get(index, 0) for index in range(number)}
    counts = _counts(summary, inputs)
    drift = _drift(model, summary, class_counts, counts["effective_records"])
    usable = counts["passed"] + counts["rejected"]
    report: Report = {
        "version": REPORT_VERSION,
        "report_id": inputs.report_id,
        "endpoint_name": inputs.endpoint["name"],
        "endpoint": inputs.endpoint,
        "created_at": inputs.created_at.isoformat(),
        "run": {"dag_id": inputs.run.dag_id, "run_id": inputs.run.run_id},
        "window": inputs.window.as_text(),
        "classes": list(class_counts),
        "threshold": dict(model.threshold),
        "captured_records": summary.records,
        "counts": counts,
        "problems": _problems(summary),
        "content_types": dict(summary.content_types.most_common(10)),
        "rejection_rate": summary.rejected / usable if usable else None,
        "class_mix": figures.class_mix(class_counts, model.baseline),
        "expected_rejection_rate": figures.expected_rejection_rate(model.evaluation, model.least_confidence),
        "confidence": figures.confidence(summary.column("confidence"), model.evaluation),
        "over_time": figures.over_time(summary, model.least_confidence),
        "latency": _latency(inputs.traffic),
        "statistics": current_statistics(summary, class_counts),
        "baseline_histograms": figures.histograms(summary, model.baseline),
        "drift": drift,
        "quality": inputs.quality,
        "rejected_quality": inputs.rejected_quality,
        "lineage": model.served.as_dict(),
        "baseline_available": model.baseline is not None,
        "checks": [],
        "violations": [],
        "status": "ok",
        "headline": "",
        "next_steps": [],
        "previous": None,
    }
    checks = run_checks(report, drift, model.constraints)
    report["checks"] = [check.line() for check in checks]
    report["violations"] = violations_of(checks)
    report["status"] = overall_status(report)
    report["headline"] = headline(report)
    report["next_steps"] = next_steps(checks)
    report["previous"] = _previous(index_entry(report, inputs), inputs.previous)
    return report


def _counts(summary: CaptureSummary, inputs: ReportInputs) -> Counts:
    fingerprints = summary.column("fingerprint")
    return {
        "files": len(summary.files),
        "bytes": summary.bytes_read,
        "records": summary.records,
        "different_images": int(np.unique(fingerprints).size),
        "effective_records": round(effective_count(fingerprints), 1),
        "invocations": inputs.traffic.invocations_before(),
        "invocations_settled": inputs.traffic.invocations_before(inputs.window.until - SETTLED),
        "invocation_errors": int(inputs.traffic.errors),
        "malformed_lines": summary.malformed,
        "unusable_outputs": summary.unusable_outputs,
        "undecodable_images": summary.undecodable,
        "passed": summary.records - summary.unusable_outputs - summary.rejected,
        "rejected": summary.rejected,
    }


def _problems(summary: CaptureSummary) -> dict[str, list[str]]:
    return {
        "malformed_lines": summary.malformed_examples,
        "unusable_outputs": summary.output_examples,
        "undecodable_images": summary.undecodable_examples,
    }


def _latency(traffic: Traffic) -> Latency:
    points = [[time.timestamp(), value / 1000] for time, value in traffic.latency]
    return {"mean_ms": traffic.latency_mean_ms, "p95_ms": traffic.latency_p95_ms, "points": points}


def current_statistics(summary: CaptureSummary, class_counts: Mapping[str, int]) -> dict[str, Any]:
    """The captured records in the form of Model Monitor's ``statistics.json``."""
    features = [numerical_feature(name, summary.column(name)) for name in (*STATISTICS, "confidence")]
    features.append(categorical_feature("size", dict(summary.sizes.most_common(20))))
    features.append(categorical_feature("label", class_counts))
    return {"version": 0, "dataset": {"item_count": summary.records}, "features": features}


def with_confidence(baseline: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the confidences on the test images to the baseline, as the evaluation's quantiles give them."""
    given, images = evaluation.get("confidence_quantiles") or [], int(evaluation.get("images") or 0)
    if len(given) < 5 or images < 1:
        return baseline
    quantiles = np.interp(np.linspace(0, 1, QUANTILES), np.linspace(0, 1, len(given)), np.asarray(given, dtype=float))
    feature = numerical_feature("confidence", quantiles)
    feature["numerical_statistics"]["common"]["num_present"] = images
    return {**baseline, "features": [*baseline["features"], feature]}


def _drift(
    model: ModelDocuments, summary: CaptureSummary, class_counts: Mapping[str, int], effective: float
) -> list[Drift]:
    if model.baseline is None or not summary.records:
        return []
    baseline = with_confidence(model.baseline, model.evaluation)
    numeric = {name: summary.column(name) for name in (*STATISTICS, "confidence")}
    categorical: dict[str, Mapping[str, int]] = {"size": summary.sizes, "label": class_counts}
    return compare(baseline, model.constraints, numeric, categorical, effective)


def _previous(now: IndexEntry, before: IndexEntry | None) -> Previous | None:
    if before is None:
        return None

    def row(title: str, number: Callable[[IndexEntry], float | None], unit: Unit = "", **better: bool) -> Change:
        lower = better.get("lower_is_better")
        return {"title": title, "unit": unit, "before": number(before), "now": number(now), "lower_is_better": lower}

    return Previous(
        report_id=before.report_id,
        status=before.status,
        window=before.window.as_text(),
        rows=[
            row("Captured records", lambda one: one.captured_records),
            row("Rejection rate", lambda one: one.rejection_rate, "%", lower_is_better=True),
            row("Mean confidence", lambda one: one.mean_confidence, lower_is_better=False),
            row("Latency, 95th percentile", lambda one: one.latency_p95_ms, "ms", lower_is_better=True),
            row("Violations", lambda one: one.violations, lower_is_better=True),
            *(row(f"Mean {name}", lambda one, of=name: one.means.get(of)) for name in COMPARED),  # type: ignore[misc]
        ],
    )


def index_entry(report: Report, inputs: ReportInputs, place_before: Place = START) -> IndexEntry:
    """The few numbers of a report that the list of reports and the trends show."""
    known = features_by_name(report["statistics"])
    return IndexEntry(
        report_id=inputs.report_id,
        created_at=inputs.created_at,
        window=inputs.window,
        run=inputs.run,
        status=report["status"],
        headline=report["headline"],
        captured_records=report["captured_records"],
        rejection_rate=report["rejection_rate"],
        mean_confidence=report["confidence"]["mean"],
        latency_p95_ms=report["latency"]["p95_ms"],
        violations=len(report["violations"]),
        model_version=inputs.model.served.version,
        training_job_name=inputs.model.served.training_job or None,
        means={name: known[name]["numerical_statistics"]["mean"] for name in COMPARED},
        place_before=place_before,
    )
