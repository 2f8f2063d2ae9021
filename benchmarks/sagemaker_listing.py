"""Listing and describing with 1,000 training jobs and 10,000 model packages, against a hundredth of them.

Through HTTP and boto3, on a service whose state file was filled before it started. A scan instead of an index would
show as a ratio near the hundredfold.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement
from benchmarks.platforms import own_settings, started
from embedded import environment, services
from embedded.settings import EmbeddedSettings

SMALL, LARGE = (10, 100), (1_000, 10_000)
ROUNDS = 25
ACCOUNT = "1" * 12


def _fill(folder: Path, jobs: int, packages: int) -> None:
    from sagemaker_local.config import Config
    from sagemaker_local.context import Context
    from sagemaker_local.store import Resource

    ctx = Context(Config(data_dir=folder, account_id=ACCOUNT))
    status = {"ModelPackageStatus": "Completed", "ModelPackageStatusDetails": {"ValidationStatuses": []}}
    with ctx.store.transaction():
        ctx.store.remember("account_id", ACCOUNT)
        group = {"ModelPackageGroupName": "group", "ModelPackageGroupStatus": "Completed", "CreatedBy": {}}
        ctx.store.create(Resource("model-package-group", "group", ctx.arn("model-package-group", "group"), body=group))
        for number in range(1, packages + 1):
            name = f"group/{number}"
            approval = "Approved" if number % 50 == 0 else "PendingManualApproval"
            body = {"ModelPackageGroupName": "group", "ModelPackageVersion": number, **status}
            body["ModelApprovalStatus"] = approval
            arn = ctx.arn("model-package", name)
            ctx.store.create(Resource("model-package", name, arn, body, approval, parent="group", version=number))
        for number in range(jobs):
            name = f"job-{number}"
            body = _job(name, ctx.now())
            ctx.store.create(Resource("training-job", name, ctx.arn("training-job", name), body, "Completed"))
    ctx.close()


def _job(name: str, now: float) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://bucket/{name}/output/model.tar.gz"},
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "HyperParameters": {f"parameter-{index}": "value" for index in range(20)},
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "SecondaryStatusTransitions": [{"Status": "Completed", "StartTime": now, "EndTime": now}],
    }


@contextmanager
def _service(jobs: int, packages: int) -> Iterator[Any]:
    with own_settings(EmbeddedSettings()) as settings:
        _fill(settings.run_dir / "sagemaker", jobs, packages)
        with started(services.sagemaker_local(settings)):
            yield environment.client(settings, "sagemaker")


def _calls(sm: Any, jobs: int, packages: int) -> dict[str, Callable[[], Any]]:
    package = sm.list_model_packages(ModelPackageGroupName="group", MaxResults=1)["ModelPackageSummaryList"][0]
    arn = package["ModelPackageArn"].rpartition("/")[0] + f"/{packages // 2}"
    return {
        "list packages": lambda: sm.list_model_packages(ModelPackageGroupName="group"),
        "latest approved package": lambda: sm.list_model_packages(
            ModelPackageGroupName="group", ModelApprovalStatus="Approved", MaxResults=1
        ),
        "describe package": lambda: sm.describe_model_package(ModelPackageName=arn),
        "list jobs": lambda: sm.list_training_jobs(),
        "list jobs by status": lambda: sm.list_training_jobs(StatusEquals="Completed"),
        "describe job": lambda: sm.describe_training_job(TrainingJobName=f"job-{jobs // 2}"),
    }


def measure_listing() -> list[Measurement]:
    """The worst ratio of the calls' medians; rounds of both services take turns."""
    with _service(*SMALL) as few, _service(*LARGE) as many:
        pairs = {"few": _calls(few, *SMALL), "many": _calls(many, *LARGE)}
        times: dict[str, dict[str, list[float]]] = {size: {name: [] for name in calls} for size, calls in pairs.items()}
        for _ in range(ROUNDS):
            for name in pairs["few"]:
                for size, calls in pairs.items():
                    started = time.perf_counter()
                    calls[name]()
                    times[size][name].append((time.perf_counter() - started) * 1000)
    medians = {size: {name: statistics.median(taken) for name, taken in of.items()} for size, of in times.items()}
    ratio = max(medians["many"][name] / medians["few"][name] for name in medians["few"])
    beside = {f"{name}, {size}, ms": value for size, of in medians.items() for name, value in of.items()}
    return [Measurement("registry-listing-slowdown", ratio, "times", "<= 1.5", ratio <= 1.5, beside)]


BENCHMARKS: dict[str, Callable[[], list[Measurement]]] = {"registry-listing-slowdown": measure_listing}
