"""Images that arrive are scored by themselves, each once, on the whole platform and over the triggerer's death."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.running_platform import RunningPlatform, patiently

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DAG = "score_arrivals"
WAIT_S = 600
ODD = ("incoming/a b+c.png", "incoming/ü/каррьер%20.PNG")


def outcomes(platform: RunningPlatform) -> Counter[tuple[str, str]]:
    """How many rows each image has, with its outcome, over all batches of arrivals."""
    batches = [key.split("/")[1] for key in platform.keys("batches/") if key.endswith("/arrivals.json")]
    return Counter((row["key"], row["outcome"]) for batch in batches for row in platform.rows(batch))


def waiting(platform: RunningPlatform) -> int:
    sqs, url = platform.client("sqs"), platform.outputs["ArrivalsQueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(found["ApproximateNumberOfMessages"]) + int(found["ApproximateNumberOfMessagesNotVisible"])


def active_runs(platform: RunningPlatform) -> list[dict[str, Any]]:
    runs = patiently(lambda: platform.api.call("GET", f"/dags/{DAG}/dagRuns"))["dag_runs"]
    return [run for run in runs if run["state"] in {"queued", "running"}]


def settled(platform: RunningPlatform, images: int) -> Counter[tuple[str, str]]:
    """Wait until so many images have a row, nothing waits and nothing runs; return the rows' counts."""
    platform.until(lambda: len(outcomes(platform)), lambda rows: rows >= images, WAIT_S)
    platform.until(lambda: waiting(platform), lambda messages: messages == 0, WAIT_S)
    platform.until(lambda: active_runs(platform), lambda runs: not runs, WAIT_S)
    return outcomes(platform)


def test_what_arrives_is_scored_once_and_what_arrives_while_the_triggerer_is_dead_too(
    trained_platform: RunningPlatform,
) -> None:
    platform = trained_platform
    s3, bucket = platform.client("s3"), platform.outputs["BucketName"]
    platform.api.wait_dag(DAG)
    platform.api.pause(DAG, False)
    token = platform.api.call("GET", f"/dags/{DAG}/details")["file_token"]
    platform.api.call("PUT", f"/parseDagFile/{token}")  # as the button Reparse Dag does
    try:
        keys = platform.copy_test_images("incoming/first/", 8)
        image = s3.get_object(Bucket=bucket, Key=keys[0])["Body"].read()
        for key in (*ODD, *ODD, keys[0], keys[1]):  # two of them a third time, all with bytes that were there before
            body = image if key in ODD else s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        for key, body in (("broken.png", b"no image"), ("notes.txt", b"text"), ("folder/", b"")):
            s3.put_object(Bucket=bucket, Key=f"incoming/{key}", Body=body)
        answered = dict.fromkeys((*keys, *ODD), 1)

        found = settled(platform, 11)
        assert found.pop(("incoming/broken.png", "failed")) == 1
        assert {key: number for (key, outcome), number in found.items()} == answered
        assert {outcome for _, outcome in found} <= {"classified", "rejected"}

        platform.kill("airflow-triggerer")
        later = platform.copy_test_images("incoming/second/", 12)
        found = settled(platform, 23)
        assert {key: number for (key, _), number in found.items()} == answered | dict.fromkeys(
            [*later, "incoming/broken.png"], 1
        )
    finally:
        platform.api.pause(DAG, True)
