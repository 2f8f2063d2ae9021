"""The reject queue: what is asked, what is taken, and what comes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scones.aws import layout
from scones.batch.inputs import BatchInputError
from scones.batch.labels import read_accepted
from scones.monitoring.ground_truth import GroundTruth
from scones.ui import rejects
from scones.ui.rejects import (
    SKIP,
    NotInTheQueueError,
    decide,
    parse_history,
    queue_page,
    read_queue,
    take_back,
    token_of,
)
from scones.ui.store import PageStore
from tests.support.fake_aws import FakeS3
from tests.support.picture_files import drawn, encoded

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLASSES = ["bicycle", "motorcycle"]
ODD = "photos/a\rb\n<script>.png"
KEYS = ["photos/1.png", ODD, "traffic/drill/3.png"]
SUMMARY = {
    "classes": CLASSES,
    "model": {"endpoint_name": "courier"},
    "first_started_at": "2026-03-01T09:58:00Z",
    "last_ended_at": "2026-03-01T10:02:00Z",
}


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.fixture
def bucket() -> PageStore:
    s3 = FakeS3()
    rows = [f"{quoted(key)},,bicycle,0.5{index},id-{index},arn" for index, key in enumerate(KEYS)]
    header = "key,label,guess,confidence,inference_id,execution_arn"
    s3.objects[layout.rejected("b1")] = "\n".join([header, *rows]).encode()
    s3.objects[layout.summary("b1")] = json.dumps(SUMMARY).encode()
    s3.objects["photos/1.png"] = encoded(drawn())
    return PageStore("b", client=s3)


def waiting(bucket: PageStore) -> list[str]:
    return [one.row.key for one in read_queue(bucket).waiting]


def truth(bucket: PageStore) -> GroundTruth:
    found = GroundTruth()
    for item in bucket.objects(layout.ground_truth("courier")):
        found.read(bucket.read(item["Key"]) or b"", CLASSES)
    return found


def test_a_label_trains_is_compared_and_is_known_by_who_gave_it(bucket: PageStore) -> None:
    assert waiting(bucket) == KEYS
    decide(bucket, {token_of(KEYS[0]): "motorcycle", token_of(ODD): SKIP}, "ann", NOW)
    assert waiting(bucket) == [KEYS[2]]
    assert read_accepted(bucket.read(layout.ACCEPTED_LABELS)) == {KEYS[0]: "motorcycle"}
    assert truth(bucket).rejected == {"id-0": 1}
    assert truth(bucket).labels == {}
    hours = {item["Key"].rpartition("/")[0] for item in bucket.objects(layout.ground_truth("courier"))}
    assert hours == {"ground-truth/courier/2026/03/01/09", "ground-truth/courier/2026/03/01/10"}
    decisions = parse_history(bucket.read(layout.LABEL_HISTORY))
    assert [(one.key, one.label, one.by, one.at) for one in decisions] == [
        (KEYS[0], "motorcycle", "ann", NOW),
        (ODD, SKIP, "ann", NOW),
    ]


def test_what_is_taken_back_waits_again_and_leaves_nothing(bucket: PageStore) -> None:
    decide(bucket, {token_of(KEYS[0]): "motorcycle", token_of(ODD): SKIP}, "ann", NOW)
    for key in (KEYS[0], ODD):
        take_back(bucket, token_of(key), "bob", NOW)
    assert waiting(bucket) == KEYS
    assert read_accepted(bucket.read(layout.ACCEPTED_LABELS)) == {}
    assert truth(bucket).rejected == {}
    with pytest.raises(NotInTheQueueError):
        take_back(bucket, token_of(ODD), "bob", NOW)
    decide(bucket, {token_of(KEYS[0]): "bicycle"}, "ann", NOW)
    assert truth(bucket).rejected == {"id-0": 0}


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        ({token_of("config/threshold.json"): "bicycle"}, NotInTheQueueError),
        ({token_of(KEYS[0]): "bicycle", "": "bicycle"}, NotInTheQueueError),
        ({token_of(KEYS[0]): "zebra"}, BatchInputError),
        ({token_of(KEYS[0]): "bicycle", token_of(ODD): "1"}, BatchInputError),
    ],
)
def test_nothing_is_taken_when_one_choice_is_wrong(bucket: PageStore, choices: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        decide(bucket, choices, "ann", NOW)
    assert waiting(bucket) == KEYS


def test_labels_are_of_the_model_that_rejected_the_image(bucket: PageStore) -> None:
    bucket.write(layout.CURRENT_DATASET, b'{"dataset_version": "ds-refused"}', "application/json")
    bucket.write(layout.label_map("ds-refused"), b'{"0": "cat", "1": "dog"}', "application/json")
    assert 'value="motorcycle"' in queue_page(bucket, "/scones", 0)
    assert 'value="cat"' not in queue_page(bucket, "/scones", 0)


def test_the_page_escapes_hides_no_picture_and_marks_test_images(bucket: PageStore) -> None:
    page = queue_page(bucket, "/scones", 10**6)
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 1
    assert page.count("A test image: its label") == 1
    decide(bucket, {token_of(KEYS[0]): SKIP}, "<script>", NOW)
    page = queue_page(bucket, "/scones", 0)
    assert "&lt;script&gt;" in page
    assert "1 Mar 2026, 12:00 UTC" in page
    assert "1 of 3 decided" in page
    assert "photos/1.png" in rejects.picture_page(bucket, "/scones", token_of(KEYS[0]))
    with pytest.raises(NotInTheQueueError):
        rejects.picture_page(bucket, "/scones", token_of("config/threshold.json"))


def test_what_was_decided_last_comes_first_also_when_it_was_decided_before(
    bucket: PageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects, "RECENT", 1)
    decide(bucket, {token_of(KEYS[0]): "motorcycle"}, "ann", NOW)
    take_back(bucket, token_of(KEYS[0]), "ann", NOW)
    decide(bucket, {token_of(ODD): "bicycle"}, "ann", NOW)
    decide(bucket, {token_of(KEYS[0]): "bicycle"}, "ann", NOW)
    assert list(read_queue(bucket).last) == [ODD, KEYS[0]]
    assert f'value="{token_of(KEYS[0])}"' in queue_page(bucket, "/scones", 0)


def test_an_archived_or_forbidden_photograph_costs_its_picture_and_not_the_page(bucket: PageStore) -> None:
    for hidden in (bucket.client.archived, bucket.client.forbidden):
        hidden.add("photos/1.png")
        assert bucket.thumbnail("photos/1.png", 64) is None
        hidden.clear()
    bucket.client.archived.add("photos/1.png")
    assert "data:image/png;base64," not in queue_page(bucket, "/scones", 0)


@given(
    st.sampled_from([layout.rejected("b1"), layout.summary("b1"), layout.ACCEPTED_LABELS, layout.LABEL_HISTORY]),
    st.data(),
)
@settings(max_examples=120, deadline=None)
def test_a_damaged_document_costs_itself_and_never_the_page(key: str, data: st.DataObject) -> None:
    s3 = FakeS3()
    s3.objects[layout.rejected("b1")] = b"key,label,guess,confidence,inference_id\nphotos/1.png,,bicycle,0.5,id\n"
    s3.objects[layout.summary("b1")] = json.dumps(SUMMARY).encode()
    content = data.draw(
        st.binary(max_size=80)
        | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass"))
        | st.sampled_from(
            [
                b'{"key": "k", "label": "x", "at": "0001-01-01T00:00:00Z"}',
                b'{"key": "k", "label": "x", "at": "yesterday"}',
                b'{"classes": 5, "model": [], "first_started_at": 1e400}',
                b'{"first_started_at": "9999-12-31T23:59:59Z", "last_ended_at": "9999-12-31T23:59:59Z"}',
                b"[" * 5000,
                b"key,label\nphotos/1.png,bicycle\nphotos/1.png,motorcycle",
                b'\xef\xbb\xbfkey;label;guess;confidence\n"a\rb";;x;nan\n',
            ]
        )
    )
    s3.objects[key] = content
    assert "Scones reject queue" in queue_page(PageStore("b", client=s3), "/scones", 0)
