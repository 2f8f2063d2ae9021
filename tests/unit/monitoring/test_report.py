from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scones.evaluation.metrics import evaluate
from scones.images.statistics import NoveltyScale, baseline_statistics
from scones.monitoring.alarm import alarm_message
from scones.monitoring.build import ModelDocuments, ReportInputs, Traffic, build_report, index_entry
from scones.monitoring.capture_summary import CaptureSummary, Example, ReadSettings, summarise
from scones.monitoring.checks import needs_retraining
from scones.monitoring.document import Change, Report
from scones.monitoring.drift import KOLMOGOROV_SMIRNOV, suggest_constraints
from scones.monitoring.figures import expected_rejection_rate
from scones.monitoring.ground_truth import REJECTED, GroundTruth, ground_truth_line, model_quality
from scones.monitoring.index import DagRun, Window
from scones.monitoring.page import _comparison, render_page
from scones.report import charts, svg
from scones.report.formatting import number, percent, when
from scones.training.served import ServedModel
from tests.contract.monitoring_world import capture_line, confidences, png, vehicles

CLASSES = ["bicycle", "motorcycle"]
AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>"
BASELINE = baseline_statistics(vehicles(600, 100), np.arange(600) % 2, CLASSES)
SCALE = NoveltyScale.of(BASELINE)


def captured(images: np.ndarray, answers: np.ndarray | None = None, **options: Any) -> CaptureSummary:
    answers = confidences(len(images), 1) if answers is None else answers
    content = "".join(
        capture_line(png(image), answer.tolist(), AT + timedelta(seconds=30 * index), **options) + "\n"
        for index, (image, answer) in enumerate(zip(images, answers, strict=True))
    )
    return summarise([("key", 1, content.encode())], ReadSettings(classes=tuple(CLASSES), scale=SCALE))


ENDPOINT: Any = {"name": "courier", "config_name": "c-1", "capture_enabled": True, "sampling_percentage": 100}
SERVED = ServedModel("courier", version=3, training_job="job", classes=tuple(CLASSES))
MODEL = ModelDocuments(SERVED, {"threshold": 0.93, "version": 4}, BASELINE, suggest_constraints(BASELINE))


def inputs(**changes: Any) -> ReportInputs:
    """Inputs of a report; fields of the model and of the endpoint may be given beside the report's own."""
    model = {name: changes.pop(name) for name in list(changes) if hasattr(MODEL, name)}
    base = ReportInputs(
        report_id="report-0123456789ab",
        run=DagRun("monitor_endpoint", "run"),
        endpoint=ENDPOINT,
        window=Window(AT, AT + timedelta(hours=2)),
        created_at=AT + timedelta(hours=2),
        model=replace(MODEL, **model),
    )
    return replace(base, **changes)


def calls(count: int, minutes: int = 30) -> Traffic:
    return Traffic(invocations=[(AT + timedelta(minutes=minutes), float(count))])


def status_of(report: Report, name: str) -> str:
    return next(check["status"] for check in report["checks"] if check["name"] == name)


@pytest.fixture(scope="module")
def usual() -> CaptureSummary:
    return captured(vehicles(150, 1))


# ---- checks


def test_usual_traffic_is_fine_and_the_report_is_json(usual: CaptureSummary) -> None:
    report = json.loads(json.dumps(build_report(usual, inputs(traffic=calls(150)))))
    assert report["status"] == "ok"
    assert report["violations"] == []
    assert report["captured_records"] == 150
    assert report["counts"]["passed"] + report["counts"]["rejected"] == 150
    assert sum(point["records"] for point in report["over_time"]["points"]) == 150
    assert sum(report["confidence"]["histogram"]["counts"]) == 150
    assert sum(one["share"] for one in report["class_mix"]) == pytest.approx(1)


def test_drift_of_the_images_asks_for_retraining() -> None:
    report = build_report(captured((vehicles(150, 2) * 0.4).astype(np.uint8)), inputs(traffic=calls(150)))
    assert (report["status"], status_of(report, "image_drift")) == ("alarm", "violation")
    assert needs_retraining(report["violations"])
    assert "retrain" in report["next_steps"][0]


def test_a_one_sided_class_mix_is_a_violation() -> None:
    answers = np.tile([0.97, 0.03], (150, 1))
    report = build_report(captured(vehicles(150, 1), answers), inputs(traffic=calls(150)))
    assert status_of(report, "class_mix") == "violation"


def test_repeated_images_are_too_few_to_tell() -> None:
    report = build_report(captured(vehicles(5, 1).repeat(30, axis=0)), inputs(traffic=calls(150)))
    assert status_of(report, "image_drift") == "unknown"
    assert report["counts"]["different_images"] == 5


@pytest.mark.parametrize(
    ("records", "traffic", "enabled", "status"),
    [
        (0, Traffic(invocations=[]), True, "no_traffic"),
        (0, calls(10), True, "capture_broken"),
        (0, calls(10), False, "capture_broken"),
        (0, calls(10, minutes=118), True, "attention"),
        (20, calls(20), True, "ok"),
        (20, calls(60), True, "attention"),
        (20, Traffic(), True, "ok"),
    ],
)
def test_no_traffic_is_told_from_a_gap_and_a_broken_capture(
    records: int, traffic: Traffic, enabled: bool, status: str
) -> None:
    endpoint = {"name": "courier", "config_name": "c", "capture_enabled": enabled, "sampling_percentage": 100}
    report = build_report(captured(vehicles(records, 1)), inputs(traffic=traffic, endpoint=endpoint))
    assert report["status"] == status, report["checks"][0]


def test_sampling_is_no_gap() -> None:
    endpoint = {"name": "courier", "config_name": "c", "capture_enabled": True, "sampling_percentage": 20}
    report = build_report(captured(vehicles(40, 1)), inputs(traffic=calls(200), endpoint=endpoint))
    assert status_of(report, "capture") == "ok"


def test_rejections_are_judged_by_the_test_images(usual: CaptureSummary) -> None:
    sweep = [{"threshold": t / 100, "coverage": 1.0 if t < 93 else 0.95} for t in range(50, 100)]
    strict = {"images": 100, "threshold_sweep": sweep}
    assert expected_rejection_rate(strict, 0.93) == pytest.approx(0.05)
    assert expected_rejection_rate({}, 0.93) is None
    assert status_of(build_report(usual, inputs(evaluation=strict)), "rejections") == "violation"
    assert status_of(build_report(usual, inputs()), "rejections") == "ok"


def test_a_sure_model_that_answers_as_on_the_test_images_has_not_drifted() -> None:
    """Most confidences of a good model lie between 0.99 and 1: a baseline too coarse there called that drift."""
    images = vehicles(200, 3)
    best = 1 - np.geomspace(1e-6, 0.3, 200)
    answers = np.stack([best, 1 - best], axis=1)
    labels = np.zeros(200, dtype=int)
    measured = evaluate(labels, answers, CLASSES)
    report = build_report(captured(images, answers), inputs(evaluation=measured))
    distances = {(test["feature"], test["test"]): test["value"] for test in report["drift"]}
    assert distances["confidence", KOLMOGOROV_SMIRNOV] < 0.05
    assert status_of(report, "confidence_drift") == "ok"


def test_latency_and_quality_are_judged(usual: CaptureSummary) -> None:
    slow = replace(calls(150), latency_p95_ms=2500.0, latency_mean_ms=900.0)
    predictions = [(str(index), index % 2, 0.9) for index in range(100)]
    labels = {str(index): (index % 2 if index < 55 else 1 - index % 2) for index in range(100)}
    quality = model_quality(predictions, labels, CLASSES, 0.93)
    report = build_report(usual, inputs(traffic=slow, quality=quality))
    assert [entry["constraint_check_type"] for entry in report["violations"]] == [
        "service_level_check",
        "model_quality_check",
    ]
    few = model_quality(predictions[50:58], labels, CLASSES, 0.93)
    assert status_of(build_report(usual, inputs(quality=few)), "model_quality") == "attention"


def test_malformed_lines_beyond_the_limit_are_a_violation() -> None:
    summary = captured(vehicles(40, 1))
    summary.malformed = 5
    report = build_report(summary, inputs())
    assert status_of(report, "readable") == "violation"
    summary.malformed = 0
    summary.undecodable = 0
    assert status_of(build_report(summary, inputs()), "readable") == "ok"


def test_without_a_baseline_the_report_says_what_to_do(usual: CaptureSummary) -> None:
    report = build_report(usual, inputs(baseline=None, constraints={}))
    assert status_of(report, "image_drift") == "unknown"
    assert any("train_and_deploy" in step for step in report["next_steps"])
    assert "<svg" in render_page(report)


def test_a_change_too_small_to_be_shown_is_none_for_the_better_or_worse() -> None:
    confidence: Change = {"title": "a", "unit": "", "before": 0.90001, "now": 0.9, "lower_is_better": False}
    violations: Change = {"title": "b", "unit": "", "before": 2, "now": 1, "lower_is_better": True}
    shown = {row["title"]: (row["change"], row["kind"]) for row in _comparison([confidence, violations])}
    assert shown["a"] == ("no change", "")
    assert shown["b"][1] == "better"


def test_the_previous_report_is_compared(usual: CaptureSummary) -> None:
    first, chosen = inputs(), inputs(report_id="report-2")
    before = index_entry(build_report(usual, first), first)
    second = build_report(captured(vehicles(80, 3)), replace(chosen, previous=before))
    assert second["previous"] is not None
    rows = {row["title"]: (row["before"], row["now"]) for row in second["previous"]["rows"]}
    assert rows["Captured records"] == (150, 80)
    assert all(number is not None for number in rows["Mean brightness"])
    assert index_entry(second, chosen).captured_records == 80


# ---- ground truth


def truth_line(data: Any, identifier: str, **metadata: Any) -> str:
    return json.dumps(
        {"groundTruthData": {"data": data, "encoding": "CSV"}, "eventMetadata": {"eventId": identifier, **metadata}}
    )


def test_ground_truth_is_read_by_index_or_name_and_bad_lines_are_named() -> None:
    given = [("1", "a"), ("bicycle", "b"), (1, "c"), ("9", "d")]
    content = "\n".join([*(truth_line(*one) for one in given), "{", "", truth_line("1.0", "a")])
    truth = GroundTruth()
    truth.read(content.encode(), CLASSES)
    assert truth.labels == {"a": 1, "b": 0, "c": 1}
    assert len(truth.problems) == 2
    assert truth.problems[0].startswith("line 4: '9' is neither a class")


def test_labels_of_rejected_images_are_counted_apart() -> None:
    truth = GroundTruth()
    truth.read(ground_truth_line("a", "motorcycle", REJECTED) + truth_line("0", "b").encode(), CLASSES)
    assert (truth.labels, truth.rejected) == ({"b": 0}, {"a": 1})
    wrong = model_quality([("a", 0, 0.5)] * 60, truth.rejected, CLASSES, 0.93)
    report = build_report(captured(vehicles(3, 1)), inputs(rejected_quality=wrong))
    assert status_of(report, "model_quality") == "unknown"
    assert "Of 1 rejected images that people labelled, 0.0 % were guessed right" in render_page(report)


@pytest.mark.parametrize("data", ["9" * 400, 1e308, -1, "nan", "inf", "\ud800", True, 10**30])
def test_what_is_no_label_is_named(data: Any) -> None:
    truth = GroundTruth()
    truth.read(truth_line(data, "a").encode(), CLASSES)
    assert truth.labels == {}
    assert len(truth.problems) == 1


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 2000, b'{"groundTruthData":' * 2000]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_ground_truth_or_named(content: bytes) -> None:
    truth = GroundTruth()
    truth.read(content, CLASSES)
    assert all(problem.isprintable() for problem in truth.problems)


def test_quality_counts_what_was_joined() -> None:
    predictions = [("a", 0, 0.99), ("b", 1, 0.6), ("c", 1, 0.95), ("x", 0, 0.9)]
    quality = model_quality(predictions, {"a": 0, "b": 0, "c": 1, "z": 1}, CLASSES, 0.93)
    assert quality is not None
    assert quality["confusion"] == [[1, 1], [0, 1]]
    assert quality["accuracy"] == pytest.approx(2 / 3)
    assert quality["accuracy_of_passed"] == 1
    assert quality["dataset"]["unmatched_labels"] == 1
    assert model_quality(predictions, {"z": 1}, CLASSES, 0.93) is None


# ---- the page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.found


def test_page_stands_alone_and_shows_every_chart(usual: CaptureSummary) -> None:
    traffic = replace(calls(150), latency=[(AT, 1500.0), (AT + timedelta(hours=1), 2500.0)])
    page = render_page(build_report(usual, inputs(traffic=traffic)), usual.least_confident, usual.most_unlike)
    found = tags(page)
    names = [name for name, _ in found]
    assert names.count("svg") == 6 + 8
    assert names.count("img") == 24
    assert not {"script", "link", "iframe", "object", "form"} & set(names)
    assert all(
        str(attributes["src"]).startswith("data:image/png;base64,") for name, attributes in found if name == "img"
    )
    assert "url(" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert len(page.encode()) < 2_000_000


def test_hostile_text_in_any_place_stays_text() -> None:
    images = vehicles(40, 1)
    summary = captured(images, source=HOSTILE, event_id=HOSTILE)
    summary.malformed, summary.malformed_examples = 1, [f"{HOSTILE}, line 1: {HOSTILE}"]
    summary.content_types.update({HOSTILE: 3})
    report = build_report(
        summary,
        inputs(
            endpoint={"name": HOSTILE, "config_name": HOSTILE, "capture_enabled": True, "sampling_percentage": 100},
            served=ServedModel(
                HOSTILE,
                model_name=HOSTILE,
                training_job=HOSTILE,
                dataset_version=HOSTILE,
                classes=(HOSTILE, "motorcycle"),
            ),
            run=DagRun(HOSTILE, HOSTILE),
        ),
    )
    shown = [replace(one, source=HOSTILE) for one in summary.least_confident]
    page = render_page(report, shown, shown)
    found = tags(page)
    assert "script" not in {name for name, _ in found}
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)
    assert "&lt;script&gt;alert(1)" in page


def test_hostile_images_are_not_shown() -> None:
    example = Example(0.5, 1.0, 0, "e", "s", 1, b"<svg onload=alert(1)>")
    report = build_report(captured(vehicles(3, 1)), inputs())
    assert "<img" not in render_page(report, [example], [example])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_records_still_make_a_page(count: int) -> None:
    summary = captured(vehicles(count, 1))
    page = render_page(build_report(summary, inputs(traffic=calls(count))), summary.least_confident)
    assert page.count("<h1") == 1


def test_grey_images_and_many_classes_make_a_page() -> None:
    names = [f"class {index}" for index in range(12)]
    grey = np.full((40, 32, 32, 3), 90, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey[0]).save(buffer, "JPEG")
    answer = [0.01] * 11 + [0.89]
    content = "".join(capture_line(buffer.getvalue(), answer, AT) + "\n" for _ in grey)
    summary = summarise([("k", 1, content.encode())], ReadSettings(classes=tuple(names), scale=SCALE))
    report = build_report(summary, inputs(served=replace(SERVED, classes=tuple(names)), baseline=None))
    assert summary.undecodable == 0
    assert "class 11" in render_page(report, summary.least_confident, summary.most_unlike)


def test_svg_escapes_and_ticks_are_round() -> None:
    drawn = svg.text(0, 0, HOSTILE) + svg.bar(0, 0, 1, 1, "a", HOSTILE)
    assert "<script" not in drawn
    assert svg.nice_ticks(0, 103) == [0, 50, 100]
    assert svg.nice_ticks(5, 5)[0] == 5
    assert 2 <= len(svg.time_ticks(AT.timestamp(), AT.timestamp() + 3600)) <= 8
    assert charts.trend([None, 1.0]) == ""
    assert "<path" in charts.trend([1.0, None, 2.0, 3.0])


def test_numbers_are_written_as_people_do() -> None:
    assert (percent(0.1234), percent(None)) == ("12.3 %", "\u2013")
    assert (number(1234567), number(0.12345), number(None)) == ("1\u202f234\u202f567", "0.123", "\u2013")
    assert when("2026-03-01T09:05:00+01:00") == "1 Mar 2026, 08:05 UTC"


def test_alarm_is_short_ascii_and_says_what_to_do() -> None:
    endpoint = {"name": "courier" * 20 + "\u00e9\n", "config_name": "c", "capture_enabled": True}
    report = build_report(
        captured((vehicles(150, 2) * 0.4).astype(np.uint8)), inputs(traffic=calls(150), endpoint=endpoint)
    )
    subject, text = alarm_message(report, "https://airflow/x")
    assert len(subject) <= 100
    assert subject.isascii()
    assert subject.isprintable()
    assert "What to do:" in text
    assert text.endswith("Report: https://airflow/x")
    assert "brightness" in text
