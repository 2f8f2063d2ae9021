"""Tuning: the request made of a training job's, the best of its training jobs, and a run that tunes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from scones.jobs.trigger import TuningJobTrigger
from scones.training.costs import cost_line
from scones.training.tuning import best, build_tuning_request, parameter_ranges, rounds, tuning_failure
from tests.support.fake_aws import FakeS3, FakeSageMaker
from tests.support.training import DATASET, another_run, context, deferred, legal, operator

START = datetime(2026, 1, 1, tzinfo=UTC)
TRIAL = "scones-train-and-deploy-manual-1"


def child(name: str, accuracy: float | None, status: str = "Completed", **members: Any) -> dict[str, Any]:
    metrics = [] if accuracy is None else [{"MetricName": "validation:accuracy", "Value": accuracy}]
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:{name}",
        "TrainingJobStatus": status,
        "CreationTime": START,
        "FinalMetricDataList": metrics,
        "TrainingTimeInSeconds": 100,
        "BillableTimeInSeconds": 80,
        "TrainingStartTime": START,
        "TrainingEndTime": START + timedelta(seconds=100),
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://b/training/{name}/output/model.tar.gz"},
        "AlgorithmSpecification": {"TrainingImage": "repo/image-classification:1"},
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1},
        "HyperParameters": {"learning_rate": "0.02"},
        **members,
    }


def tuning_request(sagemaker: FakeSageMaker, **changes: Any) -> dict[str, Any]:
    deferred(operator(sagemaker, tuning_jobs="5", **changes), context())
    [request] = sagemaker.called("create_hyper_parameter_tuning_job")
    return request


def test_the_request_is_the_training_job_with_ranges_in_place_of_what_is_tuned(
    sagemaker: FakeSageMaker, bucket: FakeS3
) -> None:
    chosen = {"epochs": "3", "learning_rate": "0.01", "mini_batch_size": "32", "use_pretrained_model": "True"}
    request = tuning_request(sagemaker, hyperparameters=chosen, spot_wait_s="1800")
    assert legal("CreateHyperParameterTuningJob", request) == ""
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 2}
    assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "validation:accuracy"}
    fixed = definition["StaticHyperParameters"]
    assert (fixed["epochs"], fixed["use_pretrained_model"], fixed["num_classes"]) == ("3", "1", "2")
    ranges = [one["Name"] for kind in config["ParameterRanges"].values() for one in kind]
    assert sorted(ranges) == ["learning_rate", "mini_batch_size", "optimizer", "weight_decay"]
    assert not set(ranges) & set(fixed)
    assert definition["EnableManagedSpotTraining"] is True
    assert definition["StoppingCondition"]["MaxWaitTimeInSeconds"] == 5400
    assert {"Key": "scones:dataset_version", "Value": DATASET["dataset_version"]} in request["Tags"]


@pytest.mark.parametrize(("images", "bounds"), [(800, ("8", "512")), (100, ("8", "100")), (5, ("5", "5"))])
def test_a_mini_batch_is_never_larger_than_the_dataset(images: int, bounds: tuple[str, str]) -> None:
    [sizes] = parameter_ranges(images)["IntegerParameterRanges"]
    assert (sizes["MinValue"], sizes["MaxValue"]) == bounds


def test_one_job_is_not_asked_for_two_at_once() -> None:
    training: dict[str, Any] = {"HyperParameters": {}, "Tags": []}
    limits = build_tuning_request(training, 1, "t", 800)["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert limits == {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
    assert [rounds(jobs) for jobs in (1, 2, 3, 8)] == [1, 1, 2, 4]


def test_the_best_ran_to_its_end() -> None:
    jobs = [child("a", 0.9), child("b", 0.95, "Stopped"), child("c", None), child("d", 0.92), child("e", 0.92)]
    found = best(jobs)
    assert found is not None
    assert found["TrainingJobName"] == "d"
    assert best(jobs[1:3]) is None


def end(sagemaker: FakeSageMaker, name: str, jobs: list[dict[str, Any]], status: str = "Completed") -> dict[str, Any]:
    """The tuning job ends with these training jobs; return the trigger's event."""
    sagemaker.things["hyper_parameter_tuning_job", name]["HyperParameterTuningJobStatus"] = status
    for one in jobs:
        sagemaker.things["training_job", one["TrainingJobName"]] = one
    trigger = TuningJobTrigger(kind="tuning", name=name, deadline=0, carry={"fingerprint": "mark"})
    return trigger._event("success" if status == "Completed" else "failed", status, "")


def test_a_run_goes_on_with_the_best_and_counts_what_all_cost(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    where = context()
    trigger = deferred(operator(sagemaker, tuning_jobs="2"), where).trigger
    assert isinstance(trigger, TuningJobTrigger)
    assert where["ti"].pushed["link_tuning-jobs"].endswith(f"/resources/tuning-jobs/{trigger.name}")
    done = end(sagemaker, trigger.name, [child("a", 0.9), child("b", 0.95)])
    result = operator(sagemaker, tuning_jobs="2").execute_complete(where, {**done, "carry": trigger.carry})
    assert (result["job_name"], result["metrics"], result["reused"]) == ("b", {"validation:accuracy": 0.95}, False)
    assert (result["training_seconds"], result["billable_seconds"]) == (200, 160)
    assert (result["tuning_job"], result["tuned_jobs"]) == (trigger.name, 2)
    assert "200 s of work in 2 training jobs" in cost_line(result, on_aws=False)
    components = sagemaker.things["trial", TRIAL]["components"]
    assert components == ["a-aws-training-job", "b-aws-training-job"]
    assert where["ti"].pushed["link_training-jobs"].endswith("/resources/training-jobs/b")


def test_a_retry_re_attaches_and_the_same_work_is_not_tuned_again(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    first = deferred(operator(sagemaker, tuning_jobs="2"), context()).trigger
    again = deferred(operator(sagemaker, tuning_jobs="2"), context()).trigger
    assert (again.name, again.carry) == (first.name, first.carry)
    assert len(sagemaker.called("create_hyper_parameter_tuning_job")) == 1
    end(sagemaker, first.name, [child("a", 0.9)])
    bucket.objects["training/a/output/model.tar.gz"] = b"model"
    assert operator(sagemaker, tuning_jobs="2").execute(context())["job_name"] == "a"  # the retry came after the end
    reused = operator(sagemaker, tuning_jobs="2").execute(another_run())
    assert (reused["job_name"], reused["reused"]) == ("a", True)
    assert sagemaker.things["trial", "scones-train-and-deploy-manual-2"]["components"] == ["a-aws-training-job"]
    assert len(sagemaker.called("create_hyper_parameter_tuning_job")) == 1
    for others in ({"tuning_jobs": "3"}, {"tuning_jobs": "2", "hyperparameters": {"epochs": "9"}}):
        assert deferred(operator(sagemaker, **others), context()).trigger.name != first.name


def test_a_kill_in_the_worker_stops_the_tuning_job(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    task = operator(sagemaker, tuning_jobs="2")
    name = deferred(task, context()).trigger.name
    task.on_kill()
    stopped = sagemaker.called("stop_hyper_parameter_tuning_job")
    assert stopped == [{"HyperParameterTuningJobName": name}]


BROKEN = child("a", None, "Failed", FailureReason="ClientError: labels")


@pytest.mark.parametrize(
    ("status", "jobs", "error", "words"),
    [
        ("Failed", [BROKEN], AirflowFailException, "found no model.*a failed: ClientError: labels"),
        ("Failed", [{**BROKEN, "FailureReason": "InternalServerError"}], AirflowException, "InternalServerError"),
        ("Stopped", [child("a", 0.9)], AirflowFailException, "was stopped before it ended"),
        ("Completed", [child("a", None)], AirflowFailException, "none of its 1 training jobs"),
    ],
)
def test_without_a_model_the_task_fails_with_the_reason(
    sagemaker: FakeSageMaker, bucket: FakeS3, status: str, jobs: Any, error: type[Exception], words: str
) -> None:
    trigger = deferred(operator(sagemaker, tuning_jobs="2"), context()).trigger
    done = end(sagemaker, trigger.name, jobs, status)
    with pytest.raises(error, match=words) as caught:
        operator(sagemaker, tuning_jobs="2").execute_complete(context(), done)
    assert type(caught.value) is error
    assert bucket.objects == {}


def test_the_failure_of_a_tuning_job_is_one_text() -> None:
    tuning = {
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobStatus": "Failed",
        "FailureReason": "All training jobs failed.",
    }
    text, _ = tuning_failure(tuning, [BROKEN])
    assert text == "Tuning job t found no model: All training jobs failed. Training job a failed: ClientError: labels"


def test_a_single_training_is_in_the_trial_from_the_start(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    deferred(operator(sagemaker), context())
    [request] = sagemaker.called("create_training_job")
    assert request["ExperimentConfig"] == {"ExperimentName": "scones-courier", "TrialName": TRIAL}
    assert legal("CreateTrainingJob", request) == ""
    assert sagemaker.things["trial", TRIAL]["ExperimentName"] == "scones-courier"
    assert len(sagemaker.called("create_experiment")) == 1
