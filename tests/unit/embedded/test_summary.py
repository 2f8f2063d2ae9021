"""The table and the document of a run, from what Airflow's API answers."""

from __future__ import annotations

from embedded.summary import document, outcome, stages


def _instance(task_id: str, start: str | None, end: str | None, state: str | None = "success", map_index: int = -1):
    day = "2026-01-01T00:"
    return {
        "task_id": task_id,
        "map_index": map_index,
        "state": state,
        "start_date": start and f"{day}{start}Z",
        "end_date": end and f"{day}{end}Z",
    }


def test_rows_come_in_the_order_in_which_tasks_began_and_mapped_tasks_share_one():
    rows = stages(
        "d",
        [
            _instance("last", None, None, None),
            _instance("chunk", "00:05", "00:09", map_index=0),
            _instance("first", "00:01", "00:03.500000"),
            _instance("chunk", "00:06", "00:20", "failed", map_index=1),
        ],
        {},
    )
    assert [(row.task_id, row.state, row.seconds) for row in rows] == [
        ("first", "success", 2.5),
        ("chunk x2", "failed", 15.0),
        ("last", "none", None),
    ]


def test_outcomes_are_one_line_each():
    staged = {"counts": {"train": 800, "validation": 200, "test": 100}, "source": {"kind": "archive"}}
    assert outcome("stage_images", staged) == "800 train, 200 validation, 100 test images from the given archive"
    assert outcome("train_model", {"job_name": "j", "metrics": {"validation:accuracy": 0.91234}}).endswith("0.912")
    assert outcome("anything_else", {"x": 1}) == ""
    assert outcome("train_model", None) == ""


def test_the_document_has_every_promised_figure():
    result = document(
        {
            "stage_images": {"counts": {"train": 8, "validation": 2, "test": 1}, "source": {"kind": "sample"}},
            "train_model": {"job_name": "j", "training_seconds": 4, "metrics": {"validation:accuracy": 0.9}},
            "evaluate_model": {"test_accuracy": 0.88},
            "deploy_endpoint": {"endpoint_name": "e", "endpoint_status": "InService"},
        },
        {"summarize_batch": {"images": 1, "classified": 1, "rejected": 0, "failed": 0, "seconds": 2, "accuracy": 1.0}},
        {"write_report": {"captured_records": 12}},
        {"report_html": "/x/report.html"},
        10.04,
    )
    assert (result["dataset"]["train"], result["dataset"]["source"]) == (8, "sample")
    assert result["training"]["validation_accuracy"] == 0.9
    assert result["evaluation"]["test_accuracy"] == 0.88
    assert result["endpoint"] == {"name": "e", "status": "InService"}
    assert result["batch"]["accuracy"] == 1.0
    assert result["report"]["captured_records"] == 12
    assert result["report"]["html"] == "/x/report.html"
    assert result["seconds"] == 10.0
