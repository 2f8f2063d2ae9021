"""Outcomes, rows, the figures of a batch, its limits, its report and its reject queue."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from scones.aws import layout
from scones.batch.costs import batch_cost
from scones.batch.inputs import BatchInputError
from scones.batch.items import COLUMNS, BatchFacts, Ending, Execution, Item, Row, classify, read_cause, result_row
from scones.batch.labels import accept_labelled_csv, check_labels, merge_accepted, read_accepted, read_labelled
from scones.batch.map_items import parent_problem, row_of_record
from scones.batch.report import Gallery, render, short_key, shown
from scones.batch.store import BatchStore
from scones.batch.summary import BatchLimitError, Summary, check_limits
from scones.evaluation.metrics import calibration
from scones.training.served import ServedModel
from tests.support.fake_aws import FakeS3

MODEL = ServedModel("courier", endpoint_config="config-1", version=3, classes=("bicycle", "motorcycle"))
FACTS = BatchFacts("b", MODEL)


def execution(status: str, **fields: Any) -> Execution:
    return Execution("arn", status, started_at=1000.0, stopped_at=1000.5, **fields)


def row(key: str = "a.png", label: int | None = None, **fields: Any) -> Row:
    return result_row(Ending(Item(key, label), 1, execution(**fields)), FACTS)


def answered(probabilities: list[float], key: str = "a.png", label: int | None = None) -> Row:
    return row(key, label, status="SUCCEEDED", output=json.dumps({"inferences": probabilities}))


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": "SUCCEEDED", "output": '{"inferences": [0.9, 0.1]}'}, "classified"),
        ({"status": "SUCCEEDED", "output": '{"body": "{\\"inferences\\": \\"[0.9, 0.1]\\"}"}'}, "classified"),
        ({"status": "SUCCEEDED", "output": '{"inferences": []}'}, "failed"),
        ({"status": "SUCCEEDED", "output": None}, "failed"),
        ({"status": "FAILED", "error": "THRESHOLD_CONFIDENCE_NOT_MET"}, "rejected"),
        ({"status": "FAILED", "error": "States.Timeout"}, "failed"),
        ({"status": "TIMED_OUT"}, "timed_out"),
        ({"status": "ABORTED", "error": "ExecutionDeadlineExceeded"}, "timed_out"),
        ({"status": "ABORTED"}, "aborted"),
    ],
)
def test_every_status_is_one_outcome(fields: dict[str, Any], outcome: str) -> None:
    assert classify(execution(**fields)) == outcome
    assert list(row(**fields)) == list(COLUMNS)


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_what_has_not_ended_has_no_outcome(status: str) -> None:
    with pytest.raises(ValueError, match=status):
        classify(execution(status))


def test_a_rejection_keeps_what_the_model_said() -> None:
    cause = json.dumps(
        {
            "errorType": "THRESHOLD_CONFIDENCE_NOT_MET",
            "errorMessage": json.dumps({"inferences": [0.4, 0.6], "threshold": 0.93, "threshold_version": 2}),
        }
    )
    found = row("a.png", 1, status="FAILED", error="THRESHOLD_CONFIDENCE_NOT_MET", cause=cause)
    assert (found["predicted_class"], found["confidence"], found["correct"]) == ("motorcycle", 0.6, True)
    assert (found["threshold"], found["threshold_version"], found["message"]) == (0.93, 2, None)
    assert (found["seconds"], found["endpoint_config"], found["model_version"]) == (0.5, "config-1", 3)


@pytest.mark.parametrize(
    ("cause", "found"),
    [
        ('{"errorType": "E", "errorMessage": "m", "stackTrace": []}', ("E", "m")),
        ("plain text", (None, "plain text")),
        ('"text"', (None, '"text"')),
        ("", (None, None)),
        (None, (None, None)),
    ],
)
def test_causes(cause: str | None, found: tuple[str | None, str | None]) -> None:
    assert read_cause(cause) == found


def summary_of(rows: list[Row]) -> Any:
    summary = Summary(["bicycle", "motorcycle"])
    for one in rows:
        summary.add(one)
    return summary.figures()


def failing(key: str, error: str, message: str) -> Row:
    return row(key, status="FAILED", error=error, cause=json.dumps({"errorMessage": message}))


def test_figures_sum_up_and_name_the_causes() -> None:
    rows = [answered([0.9, 0.1], f"{n}.png", 0) for n in range(6)] + [answered([0.2, 0.8], "w.png", 0)]
    rows += [failing(f"{n}.png", "NotAnImageError", f"'{n}.png' is no image") for n in range(2)]
    rows += [failing("x.png", "ImageNotFoundError", "gone"), row("y.png", status="TIMED_OUT")]
    figures = summary_of(rows)
    assert (
        figures["images"] == 11 == sum(figures[o] for o in ("classified", "rejected", "failed", "timed_out", "aborted"))
    )
    assert figures["accuracy"] == round(6 / 7, 4)
    assert figures["confusion_matrix"]["bicycle"] == {"bicycle": 6, "motorcycle": 1}
    assert figures["failed_share"] == round(4 / 11, 4)
    # The same cause with another key in its message is one cause.
    assert figures["most_frequent_causes"][0] == {
        "error": "NotAnImageError",
        "message": "'<key>' is no image",
        "images": 2,
    }
    assert len(figures["most_frequent_causes"]) == 3
    with pytest.raises(BatchLimitError, match=r"2 x NotAnImageError.*1 x ImageNotFoundError \(gone\).*1 x timed_out"):
        check_limits(figures, max_failed_share=0.3, max_rejected_share=1.0)
    check_limits(figures, max_failed_share=0.4, max_rejected_share=0.0)


def test_nothing_divided_by_nothing() -> None:
    figures = summary_of([])
    assert (figures["accuracy"], figures["failed_share"], figures["confusion_matrix"]) == (None, None, {})
    check_limits(figures, max_failed_share=0.0, max_rejected_share=0.0)


def test_calibration_agrees_with_the_evaluation_of_the_model() -> None:
    import numpy as np

    rng = np.random.default_rng(4)
    first = np.round(rng.uniform(0.01, 0.99, 400), 3)
    labels = (rng.uniform(size=400) > first).astype(int)
    figures = summary_of(
        [answered([p, 1 - p], f"{n}.png", int(y)) for n, (p, y) in enumerate(zip(first, labels, strict=True))]
    )
    expected = calibration(labels, np.stack([first, 1 - first], axis=1), bins=10)
    assert figures["calibration"]["expected_calibration_error"] == pytest.approx(
        expected["expected_calibration_error"], abs=2e-3
    )


def test_memory_does_not_grow_with_the_causes() -> None:
    summary = Summary()
    for n in range(5000):
        summary.add(failing("k.png", "E", f"request {n}"))
    assert len(summary.causes) <= 1001
    assert sum(summary.causes.values()) == 5000


def picture(size: tuple[int, int] = (4, 4), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, kind)
    return buffer.getvalue()


def test_pictures_are_drawn_anew() -> None:
    hidden = shown(answered([0.9, 0.1]), picture() + b"<script>alert(1)</script>")["picture"]
    assert hidden is not None
    assert hidden.startswith("data:image/png;base64,")
    assert hidden == shown(answered([0.9, 0.1]), picture())["picture"]


@pytest.mark.parametrize("data", [None, b"", b"no image", b"GIF89a", picture()[:40], b"<svg onload='x'/>"])
def test_what_is_no_image_has_no_picture(data: bytes | None) -> None:
    assert shown(answered([0.9, 0.1]), data)["picture"] is None


def summary_facts(**facts: Any) -> dict[str, Any]:
    limits = {"max_failed_share": 0.1, "max_rejected_share": 1.0}
    return {
        "batch_id": "b", "source": "<s>", "fan_out": "executions", "created_at": "2026-11-20T12:00:00+00:00",
        "threshold": 0.9, "threshold_version": 2, "model": {"endpoint_name": "e"}, "classes": ["bicycle"],
        "limits": limits, "warnings": ["2 images are <too> large"], "seconds": 2.0, "images_per_second": 30.5,
        "cost": batch_cost("executions", 60, 120.0, 2.0, 0.23, on_aws=False), **facts,
    }  # fmt: skip


def test_the_report_shows_the_least_certain_and_escapes_all() -> None:
    rows = []
    for n in range(60):
        cause = json.dumps({"errorMessage": json.dumps({"inferences": [0.5 + n / 200, 0.5 - n / 200]})})
        rows.append(row(f"u{n}.png", status="FAILED", error="THRESHOLD_CONFIDENCE_NOT_MET", cause=cause))
    rows.append(failing("<img src=x onerror=alert(1)>.png", "<b>E</b>", "<script>alert(1)</script>"))
    gallery = Gallery(10)
    for one in rows:
        gallery.add(one)
    assert [one["key"] for one in gallery.rejected] == [f"u{n}.png" for n in range(10)]
    summary: Any = {**summary_facts(), **summary_of(rows)}
    page = render(
        summary,
        [{**one, "picture": None} for one in gallery.rejected],
        [{**one, "picture": None} for one in gallery.failed],
    )
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "&lt;s&gt;" in page
    assert "2 images are &lt;too&gt; large" in page
    assert "no picture" in page
    assert "prefers-color-scheme: dark" in page
    assert 'class="banner attention"' in page
    # Only what happened has a colour.
    tile = '<div class="card tile {}"><h3 class="soft">{}</h3><div class="value">{}</div>'
    assert tile.format("violation", "Failed", 1) in page
    assert tile.format("", "Timed out", 0) in page


@pytest.mark.parametrize(("limit", "status"), [(0.5, "attention"), (0.4, "violation")])
def test_the_report_says_whether_a_limit_was_exceeded(limit: float, status: str) -> None:
    rows = [answered([0.9, 0.1], "a.png"), failing("b.png", "E", "why")]
    limits = {"max_failed_share": limit, "max_rejected_share": 1.0}
    page = render({**summary_facts(limits=limits), **summary_of(rows)}, [], [])  # type: ignore[typeddict-item]
    assert f'class="banner {status}"' in page


def test_the_report_says_what_the_batch_would_cost_and_what_is_not_known() -> None:
    page = render({**summary_facts(), **summary_of([])}, [], [])  # type: ignore[typeddict-item]
    assert "What it would cost on AWS" in page
    assert "<dt>Step Functions</dt><dd>0.00600 USD</dd>" in page
    unknown = batch_cost("executions", 1, 1.0, 1.0, None, on_aws=True)
    page = render({**summary_facts(cost=unknown), **summary_of([])}, [], [])  # type: ignore[typeddict-item]
    assert "What it cost" in page
    assert "Together, as far as known" in page


@pytest.mark.parametrize(
    ("fan_out", "thousand"), [("executions", 0.103), ("distributed_map", 0.188), ("express", 0.004)]
)
def test_a_thousand_images_cost_what_the_documentation_says(fan_out: str, thousand: float) -> None:
    """docs/aws.md, "Scoring images": executions of 0.4 s, beside the endpoint."""
    cost = batch_cost(fan_out, 1000, 400.0, 60.0, 0.115, on_aws=True)
    assert cost["endpoint"] == pytest.approx(0.115 / 60, abs=1e-6)
    assert cost["total"] == pytest.approx(thousand + 0.115 / 60, abs=1e-3)
    untimed = batch_cost(fan_out, 1000, None, None, 0.115, on_aws=True)
    assert (untimed["functions"], untimed["endpoint"]) == (None, None)


def test_long_keys_are_shown_by_both_ends_of_their_name() -> None:
    assert short_key("photos/2026/a.png") == "a.png"
    shown = short_key("photos/" + "x" * 500 + "-17.png")
    assert (len(shown), shown[:3], shown[-7:]) == (20, "xxx", "-17.png")


def test_labels() -> None:
    classes = ["bicycle", "motorcycle"]
    assert check_labels({"a": "1", "b": " bicycle ", "c": ""}, classes) == {"a": "motorcycle", "b": "bicycle"}
    with pytest.raises(BatchInputError, match="'car'"):
        check_labels({"a": "car"}, classes)
    content = merge_accepted(None, {'k,"1".png': "bicycle"})
    content = merge_accepted(content, {'k,"1".png': "motorcycle", "b.png": "bicycle"})
    assert read_accepted(content) == {'k,"1".png': "motorcycle", "b.png": "bicycle"}
    with pytest.raises(BatchInputError, match="label"):
        read_labelled(b"key,guess\na,b\n")


def test_a_filled_in_file_is_taken_as_the_documentation_says() -> None:
    s3 = FakeS3()
    for content in (b"key,label,guess\na.png,1,bicycle\nb.png,,bicycle\n", b"key,label\nb.png,bicycle\n"):
        assert accept_labelled_csv(content, BatchStore("b", client=s3), classes=["bicycle", "motorcycle"]) == 1
    assert read_accepted(s3.objects[layout.ACCEPTED_LABELS]) == {"a.png": "motorcycle", "b.png": "bicycle"}


def test_rows_of_a_distributed_map() -> None:
    parent = Ending(Item("chunk"), 1, Execution("parent", "SUCCEEDED"))
    record = {
        "outcome": "rejected",
        "inferences": [0.6, 0.4],
        "threshold": 0.9,
        "threshold_version": None,
        "error": "THRESHOLD_CONFIDENCE_NOT_MET",
        "cause": "{}",
        "execution_arn": "child",
        "invoked_production_variant": "v",
    }
    found = row_of_record(Item("a.png", 1), record, None, parent, FACTS)
    assert (found["outcome"], found["confidence"], found["correct"]) == ("rejected", 0.6, False)
    assert (found["execution_arn"], found["production_variant"]) == ("child", "v")
    for status, outcome in (("SUCCEEDED", "failed"), ("ABORTED", "aborted"), ("TIMED_OUT", "timed_out")):
        ended = Ending(Item("chunk"), 1, Execution("parent", status))
        assert row_of_record(Item("a.png"), None, None, ended, FACTS)["outcome"] == outcome
    assert parent_problem(Execution("p", "FAILED", error="States.ExceedToleratedFailureThreshold")) is None
    assert "no bucket" in str(
        parent_problem(Execution("p", "FAILED", error="States.ItemReaderFailed", cause="no bucket"))
    )
