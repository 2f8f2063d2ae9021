"""A monitoring report as data: ``report.json``. Whoever shows, sends or publishes a report reads this. Pure."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from scones.monitoring.ground_truth import Quality
from scones.monitoring.index import Status

CheckStatus = Literal["ok", "attention", "violation", "unknown"]
CheckType = Literal[
    "capture_broken_check", "data_type_check", "baseline_drift_check", "service_level_check", "model_quality_check"
]


Unit = Literal["", "%", "ms"]


class VariantFacts(TypedDict):
    """A production variant of the endpoint."""

    name: str
    model_name: str | None


class EndpointFacts(TypedDict):
    """The endpoint as it was when the report was written; ``sampling_percentage`` in (0, 100]."""

    name: str
    status: str
    config_name: str | None
    created_at: str
    capture_enabled: bool
    capture_status: str | None
    sampling_percentage: float
    destination: str | None
    variants: list[VariantFacts]


class Counts(TypedDict):
    """Numbers of things in the window; ``invocations`` are CloudWatch's, None when it could not be asked."""

    files: int
    bytes: int
    records: int
    different_images: int
    effective_records: float
    invocations: int | None
    invocations_settled: int | None
    invocation_errors: int
    malformed_lines: int
    unusable_outputs: int
    undecodable_images: int
    passed: int
    rejected: int


# How often a class was predicted, and its share among the training images; "class" is a word of Python's.
ClassMix = TypedDict("ClassMix", {"class": str, "records": int, "share": float | None, "baseline_share": float | None})


class Histogram(TypedDict):
    """Counts between edges, one more edge than counts."""

    edges: list[float]
    counts: list[int]


class Confidence(TypedDict):
    """Confidences of the answers, in [0, 1]; ``test_coverage`` is (threshold, share of test images above)."""

    mean: float | None
    median: float | None
    histogram: Histogram
    test_coverage: list[list[float]]


class Point(TypedDict):
    """One step of time: epoch seconds, records, confidences in [0, 1]."""

    time: float
    records: int
    mean: float | None
    lowest_tenth: float | None
    rejection_rate: float | None


class OverTime(TypedDict):
    """The course of the window in equal steps."""

    step_seconds: float
    points: list[Point]


class Latency(TypedDict):
    """ModelLatency in milliseconds; ``points`` are (epoch seconds, mean)."""

    mean_ms: float | None
    p95_ms: float | None
    points: list[list[float]]


class Shares(TypedDict, total=False):
    """Shares of baseline and traffic in the same bins."""

    edges: list[float]
    baseline: list[float]
    current: list[float]


class Drift(TypedDict):
    """Outcome of one test on one feature.

    Attributes:
        feature: name of the feature.
        test: one of the test names of :mod:`scones.monitoring.drift`.
        value: the distance measured.
        threshold: the distance from which on the test alarms, at this number of records.
        records: effective number of records compared.
        decisive: whether an alarm of this test is a violation (``monitoring_config.drift.tests``).
        drifted: ``value >= threshold``; never with fewer than ``minimum_records`` records.
    """

    feature: str
    test: str
    value: float
    threshold: float
    records: float
    decisive: bool
    drifted: bool


class Violation(TypedDict, total=False):
    """An entry of constraint_violations.json, in Model Monitor's form, with the numbers beside it."""

    feature_name: str
    constraint_check_type: CheckType
    description: str
    value: float
    threshold: float


class CheckLine(TypedDict):
    """One line of the overview."""

    name: str
    title: str
    status: CheckStatus
    detail: str
    action: str


class Change(TypedDict):
    """A number of the report before this one and of this one."""

    title: str
    unit: Unit
    before: float | None
    now: float | None
    lower_is_better: bool | None


class Previous(TypedDict):
    """The report before this one."""

    report_id: str
    status: Status
    window: dict[str, str]
    rows: list[Change]


class Report(TypedDict):
    """Everything the page shows. Times are ISO 8601; shares in [0, 1]."""

    version: int
    report_id: str
    endpoint_name: str
    endpoint: EndpointFacts
    created_at: str
    run: dict[str, str]
    window: dict[str, str]
    classes: list[str]
    threshold: dict[str, Any]
    captured_records: int
    counts: Counts
    problems: dict[str, list[str]]
    content_types: dict[str, int]
    rejection_rate: float | None
    expected_rejection_rate: float | None
    class_mix: list[ClassMix]
    confidence: Confidence
    over_time: OverTime
    latency: Latency
    statistics: dict[str, Any]
    baseline_histograms: dict[str, Shares]
    drift: list[Drift]
    quality: Quality | None
    rejected_quality: Quality | None
    lineage: dict[str, Any]
    baseline_available: bool
    checks: list[CheckLine]
    violations: list[Violation]
    status: Status
    headline: str
    next_steps: list[str]
    previous: Previous | None


class WrittenReport(TypedDict):
    """What the task that wrote a report hands on; what only the report holds is read from it."""

    report_id: str
    endpoint_name: str
    html_uri: str
    json_uri: str
    captured_records: int
    violations: int
    status: Status
    headline: str
    rejection_rate: float | None
    needs_retraining: bool
