"""New labels ask for a training: when there are enough, once, and never by default."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from scones.aws import layout
from scones.batch.inputs import BatchInputError
from scones.batch.labels import accept_labels
from scones.batch.store import BatchStore
from scones.dataset.accepted import take_accepted_images
from scones.monitoring import tasks
from scones.monitoring.store import MonitoringStore
from scones.monitoring.tasks import LABELS_ASSET
from tests.support.fake_aws import FakeS3

CLASSES = ["bicycle", "motorcycle"]


class Place:
    """A bucket with labels, and the endpoint's report."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s3 = FakeS3()
        self.s3.objects["reports/courier/r/report.json"] = json.dumps({"classes": CLASSES}).encode()
        self.store = MonitoringStore("b", client=self.s3)
        monkeypatch.setattr(tasks, "_connect", lambda _: SimpleNamespace(store=self.store))

    def label(self, *names: str, label: str = "bicycle", classes: list[str] = CLASSES) -> None:
        accept_labels({f"incoming/{name}.png": label for name in names}, BatchStore("b", client=self.s3), classes)

    def asks(self) -> int:
        """How many new labels the asset is told of; 0 when it is not."""
        events: Any = defaultdict(lambda: SimpleNamespace(extra={}))
        written: Any = {"endpoint_name": "courier", "report_id": "r"}
        with contextlib.suppress(AirflowSkipException):
            tasks.report_labels.function({}, written, events)
        return int(events[LABELS_ASSET].extra.get("new_labels", 0))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SCONES_LABELS_TO_RETRAIN", "2")
    return Place(monkeypatch)


def test_labels_start_no_training_unless_a_number_is_set(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.label("1", "2", "3")
    monkeypatch.delenv("SCONES_LABELS_TO_RETRAIN")
    assert place.asks() == 0
    assert layout.TAKEN_LABELS not in place.s3.objects


def test_enough_labels_ask_once(place: Place) -> None:
    assert place.asks() == 0
    place.label("1")
    assert place.asks() == 0
    place.label("2")
    assert place.asks() == 2
    assert place.asks() == 0, "whatever became of the training, the same labels do not start another"
    place.label("3")
    assert place.asks() == 0
    place.label("1", label="motorcycle")
    assert place.asks() == 2, "a label that was changed is a new one"


def test_labels_that_a_training_took_by_itself_are_not_new(place: Place) -> None:
    place.label("1", "2")
    take_accepted_images(place.store, CLASSES)
    assert place.asks() == 0


def test_labels_of_other_classes_than_the_model_knows_do_not_count(place: Place) -> None:
    place.label("1", "2", label="tractor", classes=["tractor"])
    assert place.asks() == 0


def test_a_file_that_nobody_can_read_is_said_and_starts_nothing(place: Place) -> None:
    place.s3.objects[layout.ACCEPTED_LABELS] = b"\xff\xff\xff"
    with pytest.raises(BatchInputError, match="UTF-8"):
        place.asks()
