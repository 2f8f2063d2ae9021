"""TrainingOperator and TransformOperator: one paid job per piece of work, whatever happens to the task."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from scones.evaluation.operator import TransformOperator
from scones.jobs.trigger import TrainingJobTrigger
from scones.training.job import training_job_name
from tests.support.fake_aws import FakeRegistryHook, FakeS3, FakeSageMaker, client_error
from tests.support.training import DATASET, STACK, StockHook, another_run, context, deferred, operator

RUN_KEY = "train_and_deploy/manual__1/train_model"
FIRST, SECOND = training_job_name(RUN_KEY, 1), training_job_name(RUN_KEY, 2)


def complete(sagemaker: FakeSageMaker, bucket: FakeS3, name: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    sagemaker.things["training_job", name] |= {
        "TrainingJobStatus": "Completed",
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://b/training/{name}/output/model.tar.gz"},
        "TrainingStartTime": start,
        "TrainingEndTime": start + timedelta(seconds=12),
        "FinalMetricDataList": [{"MetricName": "validation:accuracy", "Value": 0.9}],
    }
    bucket.objects[f"training/{name}/output/model.tar.gz"] = b"model"


def event(
    trigger: TrainingJobTrigger, status: str = "success", state: str = "Completed", message: str = ""
) -> dict[str, Any]:
    return {**trigger._event(status, state, message)}


def test_a_run_starts_one_job_waits_deferred_and_returns_what_later_tasks_need(
    sagemaker: FakeSageMaker, bucket: FakeS3
) -> None:
    task, where = operator(sagemaker), context()
    trigger = deferred(task, where).trigger
    assert isinstance(trigger, TrainingJobTrigger)
    kwargs = trigger.serialize()[1]
    assert (
        kwargs["name"],
        kwargs["region_name"],
        kwargs["verify"],
        kwargs["botocore_config"],
        kwargs["aws_conn_id"],
    ) == (
        FIRST,
        "us-east-1",
        False,
        {"read_timeout": 7},
        "aws_default",
    )
    complete(sagemaker, bucket, FIRST)
    result = operator(sagemaker).execute_complete(context(), event(trigger))
    assert result["job_name"] == FIRST
    assert result["metrics"] == {"validation:accuracy": 0.9}
    assert (result["training_seconds"], result["billable_seconds"], result["reused"]) == (12, 12, False)
    assert where["ti"].pushed["link_training-jobs"].endswith(f"/scones/resources/training-jobs/{FIRST}")


def test_a_retry_after_a_crash_re_attaches_and_pays_once(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    deferred(operator(sagemaker), context())
    again = deferred(operator(sagemaker), context())
    assert again.trigger.name == FIRST
    assert len(sagemaker.called("create_training_job")) == 1


def test_a_retry_after_the_job_has_ended_takes_its_result(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    deferred(operator(sagemaker), context())
    complete(sagemaker, bucket, FIRST)
    result = operator(sagemaker, force_retrain="True").execute(context())
    assert (result["job_name"], result["reused"]) == (FIRST, False)
    assert len(sagemaker.called("create_training_job")) == 1


def test_a_retry_after_a_failed_job_starts_the_next(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    deferred(operator(sagemaker), context())
    sagemaker.things["training_job", FIRST]["TrainingJobStatus"] = "Failed"
    assert deferred(operator(sagemaker), context()).trigger.name == SECOND


def test_a_cleared_task_with_other_settings_does_not_take_the_old_job(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    deferred(operator(sagemaker), context())
    other = operator(sagemaker, hyperparameters={"epochs": "4"})
    assert deferred(other, context()).trigger.name == SECOND


def test_an_answer_lost_on_its_way_is_not_a_failure(
    sagemaker: FakeSageMaker, bucket: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sagemaker._create

    def create_then_complain(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        real(kind, arguments)
        raise client_error("ResourceInUse", "Training job names must be unique")

    monkeypatch.setattr(sagemaker, "_create", create_then_complain)
    assert deferred(operator(sagemaker), context()).trigger.name == FIRST


def train_once(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    trigger = deferred(operator(sagemaker), context()).trigger
    complete(sagemaker, bucket, FIRST)
    operator(sagemaker).execute_complete(context(), event(trigger))


def test_unchanged_work_is_not_paid_for_again(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    train_once(sagemaker, bucket)
    result = operator(sagemaker, instance_type="ml.p3.2xlarge").execute(another_run())
    assert (result["job_name"], result["reused"]) == (FIRST, True)
    assert len(sagemaker.called("create_training_job")) == 1


@pytest.mark.parametrize("why", ["forced", "changed", "artifact gone", "job gone"])
def test_work_is_done_again_when_it_must_be(sagemaker: FakeSageMaker, bucket: FakeS3, why: str) -> None:
    train_once(sagemaker, bucket)
    changes: dict[str, Any] = {}
    if why == "forced":
        changes = {"force_retrain": "True"}
    elif why == "changed":
        changes = {"hyperparameters": {"epochs": "4"}}
    elif why == "artifact gone":
        del bucket.objects[f"training/{FIRST}/output/model.tar.gz"]
    else:
        del sagemaker.things["training_job", FIRST]
    deferred(operator(sagemaker, **changes), another_run())
    assert len(sagemaker.called("create_training_job")) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hyperparameters": {"mini_batch_size": "801"}}, "more than the 800 training images"),
        ({"max_runtime_s": "soon"}, "max_runtime_s is 'soon'"),
        ({"force_retrain": "perhaps"}, "Expected true or false"),
    ],
)
def test_wrong_settings_fail_at_once_and_cost_nothing(
    sagemaker: FakeSageMaker, bucket: FakeS3, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AirflowFailException, match=words):
        operator(sagemaker, **changes).execute(context())
    assert sagemaker.called("create_training_job") == []


@pytest.mark.parametrize(
    ("status", "job", "error", "words"),
    [
        (
            "failed",
            {"TrainingJobStatus": "Failed", "FailureReason": "ClientError: labels"},
            AirflowFailException,
            "labels",
        ),
        (
            "failed",
            {"TrainingJobStatus": "Failed", "FailureReason": "InternalServerError"},
            AirflowException,
            "Internal",
        ),
        ("failed", {"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, AirflowFailException, "was stopped"),
        ("timeout", {}, AirflowException, "at the deadline and was stopped"),
        ("error", {}, AirflowException, "can no longer be seen"),
    ],
)
def test_every_bad_end_fails_the_task_with_its_reason(
    sagemaker: FakeSageMaker, bucket: FakeS3, status: str, job: dict[str, Any], error: type[Exception], words: str
) -> None:
    trigger = deferred(operator(sagemaker), context()).trigger
    sagemaker.things["training_job", FIRST] |= job
    with pytest.raises(error, match=words) as caught:
        operator(sagemaker).execute_complete(context(), event(trigger, status, "InProgress"))
    assert type(caught.value) is error
    assert bucket.objects == {}


def test_a_kill_in_the_worker_stops_the_job(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    task = operator(sagemaker)
    task.on_kill()  # before anything was started
    assert sagemaker.called("stop_training_job") == []
    deferred(task, context())
    task.on_kill()
    assert sagemaker.called("stop_training_job") == [{"TrainingJobName": FIRST}]


def test_without_deferring_the_same_waiting_code_runs_in_the_worker(
    sagemaker: FakeSageMaker, bucket: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(self: TrainingJobTrigger) -> Any:
        complete(sagemaker, bucket, self.name)
        yield type("Event", (), {"payload": event(self)})

    monkeypatch.setattr(TrainingJobTrigger, "run", run)
    assert operator(sagemaker, deferrable=False).execute(context())["job_name"] == FIRST


@pytest.mark.parametrize(
    ("given", "used"), [("", "stack/image-classification:1"), ("mine/image:2", "mine/image:2")], ids=["stack", "form"]
)
def test_the_forms_image_wins_over_the_stacks(sagemaker: FakeSageMaker, bucket: FakeS3, given: str, used: str) -> None:
    stack = STACK | {"TrainingImage": "stack/image-classification:1"}
    deferred(operator(sagemaker, stack=stack, training_image=given), context())
    assert sagemaker.things["training_job", FIRST]["AlgorithmSpecification"]["TrainingImage"] == used


def test_spot_machines_are_waited_for_as_long_as_the_run_says(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    before = time.time()
    trigger = deferred(operator(sagemaker, max_runtime_s="600", spot_wait_s="1800"), context()).trigger
    request = sagemaker.things["training_job", FIRST]
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 2400}
    assert trigger.deadline >= before + 2400
    on_demand = operator(sagemaker, max_runtime_s="600")._spec().extra
    assert "EnableManagedSpotTraining" not in on_demand


def test_a_job_runs_in_the_stacks_network(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    stack = STACK | {"SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "sg-1"}
    deferred(operator(sagemaker, stack=stack), context())
    network = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert sagemaker.things["training_job", FIRST]["VpcConfig"] == network


def test_a_stack_of_an_older_template_says_what_to_do(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    with pytest.raises(AirflowFailException, match="make deploy"):
        operator(sagemaker, training_image="").execute(context())
    assert not sagemaker.things


MODEL = {"model_name": "scones-abc", "answers_uri": "s3://b/evaluations/job/transform/"}


def transformer(sagemaker: FakeSageMaker) -> TransformOperator:
    task = TransformOperator(task_id="transform_test_images", model=MODEL, dataset=DATASET)
    task.__dict__["hook"] = StockHook(sagemaker)
    task._resources_hook = lambda: FakeRegistryHook(sagemaker)  # type: ignore[method-assign]
    return task


def test_a_transform_asks_for_json_lines_and_is_adopted_or_reused(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    where = context("transform_test_images")
    trigger = deferred(transformer(sagemaker), where).trigger
    request = sagemaker.called("create_transform_job")[0]
    assert request["TransformOutput"]["Accept"] == "application/jsonlines"
    assert request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://b/test/"
    deferred(transformer(sagemaker), where)  # a retry
    assert len(sagemaker.called("create_transform_job")) == 1
    sagemaker.things["transform_job", trigger.name]["TransformJobStatus"] = "Completed"
    assert transformer(sagemaker).execute_complete(where, event(trigger))["reused"] is False
    bucket.objects["evaluations/job/transform/a.png.out"] = b"{}"
    assert transformer(sagemaker).execute(where)["reused"] is True
    bucket.objects.clear()  # the answers were cleaned up: they have to be made again
    assert deferred(transformer(sagemaker), where).trigger.name != trigger.name


def test_a_failed_transform_says_why_and_a_killed_one_is_stopped(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    task = transformer(sagemaker)
    trigger = deferred(task, context()).trigger
    task.on_kill()
    assert sagemaker.called("stop_transform_job") == [{"TransformJobName": trigger.name}]
    with pytest.raises(AirflowException, match="ended as Failed: the model did not answer"):
        task.execute_complete(context(), event(trigger, "failed", "Failed", "the model did not answer"))
