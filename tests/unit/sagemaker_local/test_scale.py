"""1,000 training jobs and 10,000 model packages: listing and describing stay as fast as with a few."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from sagemaker_local import registry
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.store import Resource
from sagemaker_local.training import operations

ACCOUNT = "1" * 12


@pytest.fixture
def ctx(tmp_path: Any) -> Any:
    made = Context(Config(data_dir=tmp_path, account_id=ACCOUNT))
    yield made
    made.close()


def fill(ctx: Context, jobs: int, packages: int, group: str) -> None:
    with ctx.store.transaction():
        ctx.store.create(Resource("model-package-group", group, ctx.arn("model-package-group", group)))
        for number in range(packages):
            name = f"{group}/{number + 1}"
            body = {
                "ModelPackageGroupName": group,
                "ModelPackageVersion": number + 1,
                "ModelPackageStatus": "Completed",
            }
            status = "Approved" if number % 10 == 0 else "Rejected"
            arn = ctx.arn("model-package", name)
            ctx.store.create(Resource("model-package", name, arn, body, status, {}, group, number + 1))
        for number in range(jobs):
            name = f"{group}-job-{number}"
            body = {"TrainingJobName": name, "TrainingJobStatus": "Completed", "HyperParameters": {"k": "v" * 500}}
            ctx.store.create(Resource("training-job", name, ctx.arn("training-job", name), body, "Completed"))


def median_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(15):
        started = time.thread_time()
        call()
        times.append((time.thread_time() - started) * 1000)
    return statistics.median(times)


def test_listing_and_describing_do_not_slow_down(ctx):
    def measure(group: str, last: int) -> dict[str, float]:
        arn = ctx.arn("model-package", f"{group}/{last}")
        approved = {"ModelPackageGroupName": group, "ModelApprovalStatus": "Approved"}
        return {
            "list packages": median_ms(
                lambda: registry.list_model_packages(ctx, {"ModelPackageGroupName": group, "MaxResults": 100})
            ),
            "list approved": median_ms(lambda: registry.list_model_packages(ctx, {**approved, "MaxResults": 1})),
            "describe package": median_ms(lambda: registry.describe_model_package(ctx, {"ModelPackageName": arn})),
            "list jobs": median_ms(lambda: operations.list_training_jobs(ctx, {"MaxResults": 100})),
            "jobs by status": median_ms(
                lambda: operations.list_training_jobs(ctx, {"StatusEquals": "Completed", "MaxResults": 100})
            ),
            "describe job": median_ms(
                lambda: operations.describe_training_job(ctx, {"TrainingJobName": f"{group}-job-7"})
            ),
            "next version": median_ms(lambda: ctx.store.last_version("model-package", group)),
        }

    fill(ctx, 100, 100, "few")
    few = measure("few", 100)
    fill(ctx, 1000, 10_000, "many")
    many = measure("many", 10_000)
    for what, before in few.items():
        # CPU time of this thread; a scan of a hundred times the rows would cost far more than twice as much.
        assert many[what] < 2 * before + 1.0, (what, before, many[what])
    print({what: (round(few[what], 2), round(many[what], 2)) for what in few})  # noqa: T201


def test_every_one_of_ten_thousand_packages_is_on_exactly_one_page(ctx):
    fill(ctx, 0, 10_000, "all")
    seen: list[int] = []
    token: dict[str, str] = {}
    while True:
        answer = registry.list_model_packages(ctx, {"ModelPackageGroupName": "all", "MaxResults": 100, **token})
        seen += [item["ModelPackageVersion"] for item in answer["ModelPackageSummaryList"]]
        if not answer["NextToken"]:
            break
        token = {"NextToken": answer["NextToken"]}
    assert sorted(seen) == list(range(1, 10_001))
    assert len(seen) == 10_000
