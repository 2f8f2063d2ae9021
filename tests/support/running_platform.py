"""The embedded platform as a test uses it: its REST API, its S3 and its Step Functions."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import boto3
import requests

from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi, AirflowApiError
from embedded.run_folder import read_state
from embedded.settings import EmbeddedSettings, load
from scones.ui.rejects import token_of
from tests.support.checkout import Checkout

T = TypeVar("T")
UPLOADERS = 8


@dataclass
class RunningPlatform:
    """One that is up, with a deployed model."""

    checkout: Checkout

    def __post_init__(self) -> None:
        self.settings = load(self.checkout.environment)
        self.api = AirflowApi(self.settings.airflow_url, self.settings.user, self.settings.password)

    @property
    def outputs(self) -> dict[str, str]:
        """What the stack put out."""
        stack = self.client("cloudformation").describe_stacks(StackName=self.settings.stack_name)["Stacks"][0]
        return {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}

    def client(self, service: str) -> Any:
        session = boto3.Session("test", "test", region_name=self.settings.region)
        return session.client(service, endpoint_url=self.settings.aws_url)

    def start(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Trigger a DAG through the REST API; returns the run id."""
        run_id = f"test-{uuid.uuid4().hex[:10]}"
        self.api.wait_dag(dag_id)
        self.api.trigger(dag_id, run_id, conf)
        return run_id

    def wait(self, dag_id: str, run_id: str, timeout_s: float = 300) -> str:
        """Return the state in which the run ends."""
        return self.until(
            lambda: patiently(lambda: self.api.run_state(dag_id, run_id)),
            lambda state: state in TERMINAL_RUN_STATES,
            timeout_s,
        )

    def run(self, dag_id: str, conf: dict[str, Any], timeout_s: float = 300) -> dict[str, Any]:
        """Run a batch DAG to its green end; returns its summary.json."""
        run_id = self.start(dag_id, conf)
        state = self.wait(dag_id, run_id, timeout_s)
        assert state == "success", self.explain(dag_id, run_id)
        return self.summary(dag_id, run_id)

    def summary(self, dag_id: str, run_id: str) -> dict[str, Any]:
        uri = self.api.xcom(dag_id, run_id, "summarize_batch")["summary_uri"]
        return dict(json.loads(self.read(uri.split("/", 3)[3])))

    def explain(self, dag_id: str, run_id: str) -> str:
        """What a failed run said last."""
        lines = []
        for one in self.api.task_instances(dag_id, run_id):
            lines.append(f"{one['task_id']}[{one['map_index']}] {one['state']}, try {one['try_number']}")
            if one["state"] in {"failed", "up_for_retry"}:
                lines += self.api.log_tail(dag_id, run_id, one["task_id"], one["try_number"], one["map_index"])
        return "\n".join(lines)

    @staticmethod
    def until(probe: Callable[[], T], holds: Callable[[T], bool], timeout_s: float = 60) -> T:
        """Probe until what comes back holds; returns it."""
        deadline = time.monotonic() + timeout_s
        while not holds(found := probe()):
            assert time.monotonic() < deadline, f"after {timeout_s:g} s still {found!r}"
            time.sleep(0.1)
        return found

    def task_state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        for one in self.api.task_instances(dag_id, run_id):
            if one["task_id"] == task_id:
                return None if one["state"] is None else str(one["state"])
        return None

    def mark_failed(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        """As the button in the UI does."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/{map_index}"
        self.api.call("PATCH", path, json={"new_state": "failed"})

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """As the button in the UI does, with what comes after it."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "only_failed": False,
            "include_downstream": True,
            "reset_dag_runs": True,
        }
        self.api.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def kill(self, name: str) -> None:
        """kill -9 of one of the platform's processes; its supervisor starts it again."""
        state = read_state(self.settings.run_dir)
        assert state is not None
        os.kill(state["processes"][name], signal.SIGKILL)

    def read(self, key: str) -> str:
        body = self.client("s3").get_object(Bucket=self.outputs["BucketName"], Key=key)["Body"].read()
        return str(body.decode("utf-8"))

    def keys(self, prefix: str) -> list[str]:
        pages = self.client("s3").get_paginator("list_objects_v2")
        pages = pages.paginate(Bucket=self.outputs["BucketName"], Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def copy_test_images(self, folder: str, number: int) -> list[str]:
        """Copy test images of the dataset, over and over, to ``folder``; returns the keys."""
        s3, bucket = self.client("s3"), self.outputs["BucketName"]
        version = json.loads(self.read("datasets/current.json"))["dataset_version"]
        sources = [key for key in self.keys(f"datasets/{version}/test/") if key.endswith(".png")]
        images = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in sources[:number]]
        keys = [f"{folder}{index:05d}.png" for index in range(number)]
        with ThreadPoolExecutor(UPLOADERS) as pool:
            list(
                pool.map(
                    lambda index: s3.put_object(Bucket=bucket, Key=keys[index], Body=images[index % len(images)]),
                    range(number),
                )
            )
        return keys

    def rows(self, batch_id: str) -> list[dict[str, Any]]:
        """All rows of results, as they are in S3."""
        parts = [key for key in self.keys(f"batches/{batch_id}/results/") if key.endswith(".jsonl")]
        return [json.loads(line) for key in parts for line in self.read(key).splitlines()]

    def executions(self, batch_id: str, status: str | None = None) -> list[dict[str, Any]]:
        """Executions of the standard workflow that the batch started."""
        filters = {"statusFilter": status} if status else {}
        pages = self.client("stepfunctions").get_paginator("list_executions")
        pages = pages.paginate(stateMachineArn=self.outputs["StateMachineArn"], **filters)
        return [one for page in pages for one in page["executions"] if one["name"].startswith(batch_id)]


def give_labels(settings: EmbeddedSettings, labels: Mapping[str, str]) -> requests.Response:
    """Send the form of the reject queue, key -> class name, as a person who is logged in; return the answer."""
    login = {"username": settings.user, "password": settings.password}
    with requests.Session() as session:
        session.trust_env = False
        token = session.post(f"{settings.airflow_url}/auth/token", json=login, timeout=30).json()["access_token"]
        return session.post(
            f"{settings.airflow_url}/scones/rejects",
            data={token_of(key): label for key, label in labels.items()},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )


def patiently(call: Callable[[], T], timeout_s: float = 60) -> T:
    """Call the API server; one that is being started again is waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except (requests.ConnectionError, requests.Timeout, AirflowApiError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def seconds_between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
