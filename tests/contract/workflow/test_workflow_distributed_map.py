"""The Distributed Map with the real functions: every image leaves exactly one record, whatever happens to it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.contract.workflow.conftest import CONFIDENT, UNSURE, Execution, Runtime, Workflow

MACHINE = "DistributedMapStateMachineArn"
MODEL_DOWN = (424, "ModelError", {"Message": "container gone", "OriginalStatusCode": 500})


def batch(workflow: Workflow, batch_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "bucket": workflow.bucket,
        "batch_id": batch_id,
        "threshold": 0.93,
        "threshold_version": 1,
        "max_concurrency": 4,
        "tolerated_failure_percentage": 100,
    } | changes


def records(workflow: Workflow, batch_id: str) -> dict[str, dict[str, Any]]:
    """The batch's records by image key, checking that each lies where its key says."""
    s3 = workflow.client("s3")
    found: dict[str, dict[str, Any]] = {}
    prefix = f"batches/{batch_id}/items/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=workflow.bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            record = json.loads(s3.get_object(Bucket=workflow.bucket, Key=entry["Key"])["Body"].read())
            digest = hashlib.sha256(record["s3_key"].encode()).hexdigest()
            assert entry["Key"] == f"{prefix}{digest}.json"
            found[record["s3_key"]] = record
    return found


@pytest.fixture
def mixed(workflow: Workflow, runtime: Runtime, image: bytes) -> dict[str, tuple[str, str | None]]:
    """Images of every kind under mixed/, with the outcome and error each must have."""
    expected: dict[str, tuple[str, str | None]] = {}
    for number in range(6):
        expected[f"mixed/good {number} + é.png"] = ("classified", None)
    for number in range(3):
        key = f"mixed/unsure{number}.png"
        runtime.answers[key] = UNSURE
        expected[key] = ("rejected", "THRESHOLD_CONFIDENCE_NOT_MET")
    expected["mixed/large.png"] = ("classified", None)
    expected["mixed/text.png"] = ("failed", "NotAnImageError")
    runtime.faults["mixed/recovers.png"] = [MODEL_DOWN]
    expected["mixed/recovers.png"] = ("classified", None)
    for key in expected:
        workflow.put(key, {"mixed/text.png": b"hello", "mixed/large.png": image.ljust(1 << 20, b"\0")}.get(key, image))
    return expected


def outcomes(found: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str | None]]:
    return {key: (record["outcome"], record["error"]) for key, record in found.items()}


def test_every_image_under_a_prefix_leaves_its_record_twice_in_a_row(
    workflow: Workflow, runtime: Runtime, mixed: dict[str, tuple[str, str | None]]
) -> None:
    data = batch(workflow, "first", prefix="mixed/")
    ended = workflow.run(data, MACHINE)
    assert ended.outcome == ("SUCCEEDED", None)
    assert ended.output == data
    found = records(workflow, "first")
    assert outcomes(found) == mixed
    for record in found.values():
        assert record["execution_arn"].split(":")[5] == "execution"
        assert (record["threshold"], record["threshold_version"]) == (0.93, 1)
    good, unsure = found["mixed/good 0 + é.png"], found["mixed/unsure0.png"]
    assert (good["inferences"], good["confidence"], good["predicted_class_index"]) == (CONFIDENT, 0.98, 0)
    assert (unsure["inferences"], unsure["confidence"], unsure["predicted_class_index"]) == (UNSURE, 0.6, 0)
    assert json.loads(unsure["cause"])["errorType"] == "THRESHOLD_CONFIDENCE_NOT_MET"
    assert runtime.requests["mixed/unsure0.png"] == 1
    assert runtime.requests["mixed/recovers.png"] == 2

    again = workflow.run(data, MACHINE)
    assert again.outcome == ("SUCCEEDED", None)
    assert outcomes(records(workflow, "first")) == mixed


def test_the_keys_of_a_manifest_and_no_others_are_read(workflow: Workflow, runtime: Runtime, image: bytes) -> None:
    keys = ["listed/a b+c.png", "listed/日本.png", "listed/" + "x" * 900 + ".png", "listed/vanished.png"]
    for key in keys[:-1]:
        workflow.put(key, image)
    workflow.put("listed/not-in-the-manifest.png", image)
    manifest = "".join(json.dumps({"s3_key": key, "label": "bicycle"}) + "\n" for key in keys)
    workflow.put("batches/listed/keys.jsonl", manifest.encode())
    ended = workflow.run(batch(workflow, "listed", keys_manifest_key="batches/listed/keys.jsonl"), MACHINE)
    assert ended.outcome == ("SUCCEEDED", None)
    assert outcomes(records(workflow, "listed")) == {
        keys[0]: ("classified", None),
        keys[1]: ("classified", None),
        keys[2]: ("classified", None),
        keys[3]: ("failed", "ImageNotFoundError"),
    }


def failures_of(workflow: Workflow, ended: Execution) -> dict[str, int]:
    states = workflow.client("stepfunctions")
    (run,) = states.list_map_runs(executionArn=ended.description["executionArn"])["mapRuns"]
    counts: dict[str, int] = states.describe_map_run(mapRunArn=run["mapRunArn"])["itemCounts"]
    return {name: counts[name] for name in ("succeeded", "failed")}


@pytest.mark.parametrize(("tolerated", "status"), [(8, "FAILED"), (9, "SUCCEEDED")])
def test_failures_count_towards_the_tolerated_share_and_rejections_do_not(
    workflow: Workflow, runtime: Runtime, mixed: dict[str, tuple[str, str | None]], tolerated: int, status: str
) -> None:
    batch_id = f"tolerated-{tolerated}"
    data = batch(workflow, batch_id, prefix="mixed/", tolerated_failure_percentage=tolerated)
    ended = workflow.run(data, MACHINE)
    assert ended.description["status"] == status
    if status == "FAILED":
        assert ended.description["error"] == "States.ExceedToleratedFailureThreshold"
    assert failures_of(workflow, ended) == {"succeeded": 11, "failed": 1}
    assert outcomes(records(workflow, batch_id)) == mixed


def test_the_items_of_a_null_threshold_read_the_configured_one(
    workflow: Workflow, runtime: Runtime, image: bytes
) -> None:
    workflow.put("null/a.png", image)
    workflow.run(batch(workflow, "null", prefix="null/", threshold=None, threshold_version=None), MACHINE)
    (record,) = records(workflow, "null").values()
    assert (record["threshold"], record["threshold_version"]) == (0.93, 1)


def test_an_empty_prefix_succeeds_without_a_record(workflow: Workflow, runtime: Runtime) -> None:
    assert workflow.run(batch(workflow, "empty", prefix="nothing/here/"), MACHINE).outcome == ("SUCCEEDED", None)
    assert records(workflow, "empty") == {}


def test_without_prefix_or_manifest_it_says_so(workflow: Workflow, runtime: Runtime) -> None:
    ended = workflow.run(batch(workflow, "neither"), MACHINE)
    assert ended.outcome == ("FAILED", "MissingPrefixError")
    assert "keys_manifest_key" in ended.description["cause"]


def test_a_manifest_that_is_not_there_says_so(workflow: Workflow, runtime: Runtime) -> None:
    ended = workflow.run(batch(workflow, "lost", keys_manifest_key="batches/lost/keys.jsonl"), MACHINE)
    assert ended.outcome == ("FAILED", "States.ItemReaderFailed")
