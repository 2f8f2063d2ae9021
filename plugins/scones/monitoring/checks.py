"""The checks of a report: what is fine, what is not, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scones.images.statistics import STATISTICS
from scones.monitoring.document import CheckLine, CheckStatus, CheckType, Drift, Report, Violation
from scones.monitoring.drift import RETRAINING_CHECKS, TEST_TITLES, drift_settings, service_settings
from scones.monitoring.index import Status

#: With fewer records a rate says nothing.
_MINIMUM_FOR_A_RATE = 30


@dataclass(frozen=True)
class Check:
    """One line of the overview.

    Attributes:
        name: stable identifier.
        title: what is checked.
        status: ``ok``; ``attention`` (worth a look); ``violation``; ``unknown`` (could not be checked).
        detail: the numbers behind it.
        action: what to do when it is not ok.
        violations: entries for constraint_violations.json, in Model Monitor's form.
    """

    name: str
    title: str
    status: CheckStatus
    detail: str
    action: str = ""
    violations: tuple[Violation, ...] = ()

    def line(self) -> CheckLine:
        """JSON-able form, without the violations, which the report lists once for all checks."""
        return {
            "name": self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "action": self.action,
        }


def violation(feature: str, kind: CheckType, description: str, value: float, threshold: float) -> Violation:
    """An entry of ``constraint_violations.json``."""
    return {
        "feature_name": feature,
        "constraint_check_type": kind,
        "description": description,
        "value": value,
        "threshold": threshold,
    }


def run_checks(report: Report, drift: Sequence[Drift], constraints: Mapping[str, Any]) -> list[Check]:
    """Run every check on the numbers of a report."""
    service = service_settings(constraints)
    return [
        _capture(report, service),
        _readable(report, service),
        *_drift_checks(report, drift, constraints),
        _rejections(report, service),
        _latency(report, service),
        _quality(report, service),
    ]


def violations_of(checks: Sequence[Check]) -> list[Violation]:
    """All violations, in the order of the checks."""
    return [entry for check in checks for entry in check.violations]


def overall_status(report: Report) -> Status:
    """What a report with these checks and violations says in one word."""
    if not report["counts"]["records"] and report["counts"]["invocations"] == 0:
        return "no_traffic"
    if any(entry["constraint_check_type"] == "capture_broken_check" for entry in report["violations"]):
        return "capture_broken"
    found = {check["status"] for check in report["checks"]}
    return "alarm" if "violation" in found else "attention" if "attention" in found else "ok"


def headline(report: Report) -> str:
    """What a report says in one sentence; what could not be decided is never called fine."""

    def named(status: CheckStatus) -> list[str]:
        return [check["title"].lower() for check in report["checks"] if check["status"] == status]

    failing, undecided, count = named("violation"), named("unknown"), len(report["checks"])
    if report["status"] == "no_traffic":
        return "No traffic: the endpoint was not invoked in this window."
    if report["status"] == "capture_broken":
        return "Capture is broken: the endpoint answers, but nothing is captured."
    if failing:
        return f"{len(failing)} of {count} checks failed: {', '.join(failing)}."
    if report["status"] == "attention":
        return f"Worth a look: {', '.join(named('attention'))}."
    if undecided:
        return f"{len(named('ok'))} of {count} checks are within their limits; not decided: {', '.join(undecided)}."
    return "Everything checked is within its limits."


def next_steps(checks: Sequence[Check]) -> list[str]:
    """What to do, the gravest first, each once."""
    order: tuple[CheckStatus, ...] = ("violation", "attention", "unknown")
    steps = [check.action for status in order for check in checks if check.status == status and check.action]
    return list(dict.fromkeys(steps)) or ["Nothing to do. The next report comes with the next run of monitor_endpoint."]


def needs_retraining(violations: Sequence[Violation]) -> bool:
    """Whether any violation says that the model no longer fits what it is shown."""
    return any(entry["constraint_check_type"] in RETRAINING_CHECKS for entry in violations)


def _capture(report: Report, service: Mapping[str, Any]) -> Check:
    """Tell no traffic from a broken capture: CloudWatch counts invocations, S3 holds records."""
    title = "Data capture"
    counts, endpoint = report["counts"], report["endpoint"]
    records, invocations = counts["records"], counts["invocations"]
    sampling = (endpoint.get("sampling_percentage") or 100) / 100
    if invocations is None:
        status: CheckStatus = "ok" if records else "unknown"
        detail = f"{records} records; CloudWatch could not be asked how many invocations there were"
        return Check("capture", title, status, detail, "Allow cloudwatch:GetMetricData to tell a gap from no traffic.")
    if not records and not invocations:
        return Check(
            "capture", title, "unknown", "No invocations and no records", "Send traffic: run the batch_inference DAG."
        )
    if endpoint.get("capture_enabled") is False and not records:
        detail = f"Data capture is switched off; CloudWatch counts {invocations} invocations"
        entry = violation("capture", "capture_broken_check", detail, value=0, threshold=invocations)
        action = "Deploy an endpoint configuration with EnableCapture: train_and_deploy does."
        return Check("capture", title, "violation", detail, action, (entry,))
    settled = counts["invocations_settled"] or 0
    if not records and settled:
        detail = f"CloudWatch counts {settled} invocations older than five minutes, S3 holds not one record"
        entry = violation("capture", "capture_broken_check", detail, value=0, threshold=settled)
        action = (
            "Check that the endpoint's role may write to the capture prefix and that DestinationS3Uri is right; "
            "DescribeEndpoint shows CaptureStatus."
        )
        return Check("capture", title, "violation", detail, action, (entry,))
    if not records:
        detail = f"{invocations} invocations in the last minutes, none delivered yet"
        return Check("capture", title, "attention", detail, "Run monitor_endpoint again in five minutes.")
    expected = sampling * invocations
    share = records / expected if expected else 1.0
    detail = f"{records} records for {invocations} invocations"
    if not invocations:
        detail = f"{records} records; CloudWatch has no invocations for this window (yet)"
    if sampling < 1:
        detail += f", of which {sampling:.0%} are sampled"
    if invocations >= _MINIMUM_FOR_A_RATE and share < service["minimum_capture_share"]:
        action = "Records may be on their way (minutes on AWS). If the next report shows a gap too, check the role."
        return Check("capture", title, "attention", f"{detail}: {1 - share:.0%} missing", action)
    return Check("capture", title, "ok", detail)


def _readable(report: Report, service: Mapping[str, Any]) -> Check:
    counts, title = report["counts"], "Readable records"
    lines, records = counts["records"] + counts["malformed_lines"], counts["records"]
    if not lines:
        return Check("readable", title, "unknown", "Nothing to read")
    limit = service["maximum_malformed_share"]
    parts = [
        ("malformed_lines", counts["malformed_lines"], "malformed lines", lines, limit),
        ("unusable_outputs", counts["unusable_outputs"], "answers without probabilities", records, limit),
        (
            "undecodable_images",
            counts["undecodable_images"],
            "inputs that are no image",
            records,
            service["maximum_undecodable_share"],
        ),
    ]
    entries = []
    for name, number, words, total, maximum in parts:
        share = number / total if total else 0.0
        if share > maximum:
            description = f"{number} {words} of {total} ({share:.1%}), more than {maximum:.1%}"
            entries.append(violation(name, "data_type_check", description, value=share, threshold=maximum))
    found = [f"{number} {words}" for _, number, words, _, _ in parts if number]
    if not found:
        return Check("readable", title, "ok", "Every line, answer and image could be read")
    action = "Look at 'Problems with the captures': the first of each kind are quoted with file and line."
    return Check("readable", title, "violation" if entries else "attention", "; ".join(found), action, tuple(entries))


def _drift_checks(report: Report, drift: Sequence[Drift], constraints: Mapping[str, Any]) -> list[Check]:
    groups = (
        ("image_drift", "Images like the training images", {*STATISTICS, "size"}),
        ("class_mix", "Class mix", {"label"}),
        ("confidence_drift", "Confidence as on the test images", {"confidence"}),
    )
    minimum = drift_settings(constraints)["minimum_records"]
    effective = report["counts"]["effective_records"]
    checks = []
    for name, title, features in groups:
        results = [result for result in drift if result["feature"] in features]
        decisive = [result for result in results if result["decisive"]]
        drifted = [result for result in decisive if result["drifted"]]
        if not decisive:
            if name == "confidence_drift" and report["baseline_available"] and report["counts"]["records"]:
                why, action = "The evaluation of the live model is not known", ""
            elif not report["baseline_available"]:
                why, action = "No baseline", "Run train_and_deploy once: staging writes the baseline."
            else:
                why, action = "No records to compare", ""
            # One value only (a single image size) has nothing to compare, and that is fine.
            checks.append(Check(name, title, "unknown", why, action))
        elif effective < minimum:
            why = f"{effective:.0f} different images are too few to tell drift from chance; {minimum} are needed"
            checks.append(Check(name, title, "unknown", why))
        elif drifted:
            checks.append(_drifted(name, title, drifted))
        else:
            nearest = max(decisive, key=lambda result: result["value"] / result["threshold"])
            name_of, limit = _words(nearest["feature"]), nearest["threshold"]
            detail = f"Nearest to its limit: {name_of}, {nearest['value']:.2f} of {limit:.2f}"
            checks.append(Check(name, title, "ok", detail))
    return checks


def _drifted(name: str, title: str, drifted: Sequence[Drift]) -> Check:
    entries = tuple(
        violation(
            result["feature"],
            "baseline_drift_check",
            f"{TEST_TITLES[result['test']]} of {_words(result['feature'])} from the baseline is {result['value']:.3f}, "
            f"from {result['threshold']:.3f} on it is drift ({result['records']:.0f} different images)",
            value=result["value"],
            threshold=result["threshold"],
        )
        for result in drifted
    )
    detail = "; ".join(f"{_words(r['feature'])} {r['value']:.2f} (limit {r['threshold']:.2f})" for r in drifted)
    if name == "image_drift":
        action = (
            "Look at the most drifted images below. If such images are here to stay, label some (reject queue) and "
            "retrain; if not, repair the camera or the step before the endpoint."
        )
    elif name == "class_mix":
        action = "Check whether the vehicles changed or the model leans to one class; retrain with labelled images."
    else:
        action = "The model is less (or more) sure than on its test images: look at the least confident images."
    return Check(name, title, "violation", detail, action, entries)


def _words(feature: str) -> str:
    return {"label": "predicted class", "size": "image size"}.get(feature, feature)


def _rejections(report: Report, service: Mapping[str, Any]) -> Check:
    title, rate, counts = "Rejection rate", report["rejection_rate"], report["counts"]
    maximum, expected = service["maximum_rejection_rate"], report["expected_rejection_rate"]
    if expected is not None:
        # A threshold rejects a share of good answers too; the test images tell which share.
        maximum = min(1.0, expected + service["maximum_rejection_increase"])
    threshold = report["threshold"]["threshold"]
    usable = counts["passed"] + counts["rejected"]
    if rate is None:
        return Check("rejections", title, "unknown", "No answers")
    detail = f"{rate:.1%} of {usable} answers are below the threshold {threshold:g}; the limit is {maximum:.0%}"
    if expected is not None:
        detail += f", as {expected:.0%} of the test images are"
    if rate <= maximum:
        return Check("rejections", title, "ok", detail)
    action = "Accept labels in the reject queue and retrain, or lower the threshold on the evaluation's sweep."
    if usable < _MINIMUM_FOR_A_RATE:
        return Check("rejections", title, "attention", f"{detail}, but that is few answers", action)
    entry = violation("rejection_rate", "service_level_check", detail, value=rate, threshold=maximum)
    return Check("rejections", title, "violation", detail, action, (entry,))


def _latency(report: Report, service: Mapping[str, Any]) -> Check:
    title, latency, maximum = "Model latency", report["latency"], service["maximum_latency_p95_ms"]
    value = latency["p95_ms"] if latency["p95_ms"] is not None else latency["mean_ms"]
    if value is None:
        return Check("latency", title, "unknown", "CloudWatch has no ModelLatency for this window")
    kind = "95th percentile" if latency["p95_ms"] is not None else "mean"
    detail = f"{kind} {value:.1f} ms (limit {maximum:g} ms)"
    if value <= maximum:
        return Check("latency", title, "ok", detail)
    entry = violation("model_latency", "service_level_check", detail, value=value, threshold=maximum)
    action = "Look at the instance's CPU in CloudWatch; choose a larger instance type or add an instance."
    return Check("latency", title, "violation", detail, action, (entry,))


def _quality(report: Report, service: Mapping[str, Any]) -> Check:
    title, quality, minimum = "Accuracy on ground truth", report["quality"], service["minimum_accuracy"]
    if quality is None:
        return Check("model_quality", title, "unknown", "No ground truth has arrived for these predictions")
    count = quality["dataset"]["item_count"]
    detail = f"{quality['accuracy']:.1%} of {count} labelled predictions are right (minimum {minimum:.0%})"
    if quality["accuracy"] >= minimum:
        return Check("model_quality", title, "ok", detail)
    action = "Retrain with the labelled images; if accuracy fell with a deployment, run rollback_endpoint."
    if quality["accuracy_upper_bound"] >= minimum:
        return Check("model_quality", title, "attention", f"{detail}; too few to be sure", action)
    entry = violation("accuracy", "model_quality_check", detail, value=quality["accuracy"], threshold=minimum)
    return Check("model_quality", title, "violation", detail, action, (entry,))
