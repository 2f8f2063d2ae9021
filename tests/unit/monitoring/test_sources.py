"""Documents of the live model: what somebody else wrote or damaged is left out by name, and no report fails by it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from scones.aws import layout
from scones.images.statistics import baseline_statistics
from scones.monitoring.drift import compare, suggest_constraints
from scones.monitoring.sources import documents_of, read_settings
from scones.monitoring.store import MonitoringStore
from scones.training.served import ServedModel
from tests.support.fake_aws import FakeS3

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
BASELINE = baseline_statistics(IMAGES, [0, 1] * 20, ["bicycle", "motorcycle"])
SERVED = ServedModel("courier", classes=("bicycle", "motorcycle"), dataset_version="ds-1", training_job="job-1")
GOOD: dict[str, Any] = {
    layout.THRESHOLD: {"threshold": 0.9, "version": 2},
    layout.baseline("ds-1", "statistics"): BASELINE,
    layout.baseline("ds-1", "constraints"): suggest_constraints(BASELINE),
    layout.evaluation("job-1", "evaluation.json"): {"images": 9, "confidence_quantiles": [0.1, 0.5, 0.7, 0.9, 1.0]},
}


def read(**changed: Any) -> Any:
    s3 = FakeS3()
    s3.objects = {key: json.dumps(document).encode() for key, document in {**GOOD, **changed}.items()}
    return documents_of(MonitoringStore("b", client=s3), SERVED)


def without(name: str) -> dict[str, Any]:
    return {**BASELINE, "features": [one for one in BASELINE["features"] if one["name"] != name]}


def test_good_documents_are_taken() -> None:
    model = read()
    assert (model.threshold, model.baseline) == (GOOD[layout.THRESHOLD], BASELINE)
    settings = read_settings(model, None, None)
    assert (settings.geometry.height, settings.geometry.width) == (32, 32)
    assert model.evaluation["images"] == 9


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"features": 3},
        {"features": ["brightness"]},
        {"features": [{"name": []}]},
        without("brightness"),
        without("size"),
        without("label"),
        json.loads(json.dumps(BASELINE).replace("32x32", "large")),
        json.loads(json.dumps(BASELINE).replace('"num_present": 40', '"num_present": 0')),
        {**BASELINE, "features": [{**one, "quantiles": []} for one in BASELINE["features"]]},
        {**BASELINE, "features": [{**one, "quantiles": ["a", None]} for one in BASELINE["features"]]},
    ],
)
def test_statistics_of_another_shape_leave_a_report_without_a_baseline(
    document: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = read(**{layout.baseline("ds-1", "statistics"): document})
    assert model.baseline is None
    assert "baseline/statistics.json can't be used, the report goes on without it" in caplog.text
    assert model.threshold == GOOD[layout.THRESHOLD]


@pytest.mark.parametrize(
    ("key", "document"),
    [
        (layout.THRESHOLD, {"threshold": "high"}),
        (layout.THRESHOLD, {"threshold": 7}),
        (layout.THRESHOLD, {"limit": 0.9}),
        (layout.evaluation("job-1", "evaluation.json"), {"images": "many", "confidence_quantiles": []}),
        (layout.evaluation("job-1", "evaluation.json"), {"images": 9, "confidence_quantiles": [{}] * 9}),
    ],
)
def test_any_other_document_that_cannot_be_used_keeps_its_default(
    key: str, document: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = read(**{key: document})
    assert f"{key} can't be used" in caplog.text
    assert model.least_confidence == (0.9 if key != layout.THRESHOLD else 0.93)
    assert model.baseline is not None
    compare(model.baseline, model.constraints, {}, {}, 1)
