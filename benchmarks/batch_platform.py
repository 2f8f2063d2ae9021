"""The platform of the batch benchmarks: a real Airflow, real Step Functions, real Lambdas and a real endpoint."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from benchmarks.platforms import own_settings, started
from embedded import environment, services
from embedded.airflow_api import TERMINAL_RUN_STATES, AirflowApi
from embedded.processes import Service
from embedded.settings import PROJECT_ROOT, EmbeddedSettings, load

DAGS = [
    PROJECT_ROOT / "dags" / "train_and_deploy.py",
    PROJECT_ROOT / "dags" / "batch_inference.py",
    PROJECT_ROOT / "benchmarks" / "dags" / "stock_operator_per_image.py",
]
UPLOADERS = 8


@dataclass
class BatchPlatform:
    """What is up, and ways to use it."""

    settings: EmbeddedSettings
    api: AirflowApi
    processes: dict[str, Service]
    outputs: dict[str, str]

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    @property
    def connection(self) -> str:
        return environment.aws_connection(self.settings)

    def run(self, dag_id: str, conf: dict[str, Any], must_succeed: bool = True) -> tuple[str, list[dict[str, Any]]]:
        """Run a DAG to its end; returns the run id and its task instances.

        Raises:
            RuntimeError: the run failed, and must not.
        """
        run_id = f"bench-{uuid.uuid4().hex[:10]}"
        self.api.wait_dag(dag_id)
        self.api.trigger(dag_id, run_id, conf)
        while (state := self.api.run_state(dag_id, run_id)) not in TERMINAL_RUN_STATES:
            time.sleep(0.5)
        instances = self.api.task_instances(dag_id, run_id)
        if must_succeed and state != "success":
            states = {f"{one['task_id']}[{one['map_index']}]": one["state"] for one in instances}
            raise RuntimeError(f"{dag_id} {run_id} ended {state}: {states}")
        return run_id, instances

    def memory_mb(self, name: str) -> float:
        """Resident memory of a process and its children."""
        return self._of_family(name, lambda one: float(one.memory_info().rss)) / 1e6

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time each process of the platform has used so far, with its children (Lambdas are MiniStack's)."""

        def used(one: psutil.Process) -> float:
            times = one.cpu_times()
            return times.user + times.system + times.children_user + times.children_system

        return {name: self._of_family(name, used) for name in self.processes}

    def _of_family(self, name: str, measured: Callable[[psutil.Process], float]) -> float:
        """The sum over a process and its children, of which any may end meanwhile."""
        process = psutil.Process(self.processes[name].process.pid)  # type: ignore[union-attr]
        total = 0.0
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += measured(one)
        return total

    def copy_images(self, folder: str, number: int) -> list[str]:
        """Copy the dataset's test images to ``folder``, over and over, until there are ``number``; returns the keys."""
        s3 = environment.client(self.settings, "s3")
        current = json.loads(s3.get_object(Bucket=self.bucket, Key="datasets/current.json")["Body"].read())
        prefix = f"datasets/{current['dataset_version']}/test/"
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        sources = [entry["Key"] for page in pages for entry in page["Contents"]]
        images = [s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in sources]
        keys = [f"{folder}{index:06d}.png" for index in range(number)]

        def put(index: int) -> None:
            s3.put_object(Bucket=self.bucket, Key=keys[index], Body=images[index % len(images)])

        with ThreadPoolExecutor(UPLOADERS) as pool:
            list(pool.map(put, range(number)))
        return keys


def seconds_of(instances: list[dict[str, Any]], *task_ids: str) -> float:
    """Return the time from the first start to the last end of the tasks' instances."""
    chosen = [one for one in instances if one["task_id"] in task_ids]
    starts = [datetime.fromisoformat(one["start_date"].replace("Z", "+00:00")) for one in chosen]
    ends = [datetime.fromisoformat(one["end_date"].replace("Z", "+00:00")) for one in chosen]
    return (max(ends) - min(starts)).total_seconds()


@contextmanager
def batch_platform() -> Iterator[BatchPlatform]:
    """Bring everything up with a trained, deployed model (of the drawn sample, or CIFAR100_ARCHIVE); end it after."""
    with own_settings(load()) as settings:
        dags = settings.run_dir / "dags"
        dags.mkdir()
        for file in DAGS:
            shutil.copy(file, dags)
        since = datetime.now(UTC)
        aws = [services.ministack(settings), services.sagemaker_local(settings)]
        with started(*aws):
            services.deploy(settings)
            services.migrate(settings)
            services.write_passwords(settings)
            airflow = [
                replace(service, environment={**service.environment, "AIRFLOW__CORE__DAGS_FOLDER": str(dags)})
                for service in services.airflow(settings)
            ]
            with started(*airflow):
                api = AirflowApi(settings.airflow_url, settings.user, settings.password)
                api.wait_healthy(since)
                api.ensure_pools(services.pools())
                platform = BatchPlatform(settings, api, {service.name: service for service in aws + airflow}, {})
                cloudformation = environment.client(settings, "cloudformation")
                stack = cloudformation.describe_stacks(StackName=settings.stack_name)["Stacks"][0]
                platform.outputs.update({item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]})
                # Any model will do: what is measured is the way of the images to it and back.
                platform.run("train_and_deploy", {"epochs": 3, "minimum_accuracy": 0.5})
                yield platform
