"""CreateTrainingJob: what is built is legal, what is wrong is found before it costs anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from scones.aws.lineage import Lineage, tags, training_job_of_artifact
from scones.training.costs import cost_line, endpoint_monthly_cost, job_cost, storage_monthly_cost
from scones.training.data import StagedDataset, TrainingResult
from scones.training.job import (
    InvalidTrainingJobError,
    TrainingSpec,
    build_training_request,
    failure_text,
    fingerprint,
    hyperparameters,
    is_final_failure,
    same_work,
    training_job_name,
    training_result,
    validate,
)
from scones.training.model_package import PackageSpec, model_package_request
from tests.support.training import DATASET, legal

SPEC = TrainingSpec(
    dataset=cast(StagedDataset, DATASET),
    bucket="b",
    role_arn="arn:aws:iam::111122223333:role/r",
    image_uri="repo/image-classification:1",
    hyperparameters={"epochs": "10", "mini_batch_size": 32, "learning_rate": 0.01, "num_layers": 20},
)


@pytest.mark.parametrize("kind", ["recordio", "png"])
def test_the_request_is_legal_for_both_kinds_of_input(kind: str) -> None:
    request = build_training_request(replace(SPEC, input_kind=kind), "job-1", tags({"run_id": "manual__1"}))
    assert legal("CreateTrainingJob", request) == ""
    names = [channel["ChannelName"] for channel in request["InputDataConfig"]]
    expected = ["train", "validation"] + (["train_lst", "validation_lst"] if kind == "png" else [])
    assert names == expected
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://b/training"


def test_hyperparameters_are_strings_and_the_dataset_decides_its_own_facts() -> None:
    spec = replace(SPEC, hyperparameters={"num_training_samples": 7, "epochs": 3, "lr_scheduler_step": "10,20"})
    params = build_training_request(spec, "job-1", [])["HyperParameters"]
    assert params == {
        "epochs": "3",
        "lr_scheduler_step": "10,20",
        "num_classes": "2",
        "num_training_samples": "800",
        "image_shape": "3,32,32",
    }


def test_a_pretrained_network_gets_the_shape_that_aws_wants_there_alone() -> None:
    chosen = {"use_pretrained_model": "1", "num_layers": "18"}
    local = replace(SPEC, hyperparameters={**chosen, "use_pretrained_model": "True"})
    remote = replace(local, on_aws=True)
    facts = {"num_classes": "2", "num_training_samples": "800"}
    assert hyperparameters(local) == {**chosen, **facts, "image_shape": "3,32,32"}
    assert hyperparameters(remote) == {**chosen, **facts, "image_shape": "3,224,224", "resize": "224"}
    assert hyperparameters(replace(remote, hyperparameters={"use_pretrained_model": "0"}))["image_shape"] == "3,32,32"
    without = replace(local, hyperparameters={**chosen, "use_pretrained_model": "False"})
    assert len({fingerprint(spec) for spec in (local, remote, without)}) == 3
    assert validate(remote) == []


def test_extra_attributes_are_merged_member_by_member() -> None:
    extra = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxWaitTimeInSeconds": 7200},
        "Tags": [{"Key": "team", "Value": "logistics"}],
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["s-1"]},
    }
    request = build_training_request(replace(SPEC, extra=extra), "job-1", tags({}))
    assert legal("CreateTrainingJob", request) == ""
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert [tag["Key"] for tag in request["Tags"]] == ["scones:project", "team"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hyperparameters": {"mini_batch_size": 900}}, "more than the 800 training images"),
        ({"hyperparameters": {"mini_batch_size": "many"}}, "must be a whole number"),
        ({"hyperparameters": {"learning_rate": 2}}, "between 0 and 1"),
        ({"hyperparameters": {"epochs": "1.5"}}, "must be a whole number"),
        ({"hyperparameters": {"optimizer": "magic"}}, "choose one of nag, sgd, adam"),
        ({"hyperparameters": {"num_layers": 21}}, "choose one of 18, 20"),
        ({"hyperparameters": {"num_layers": 20, "use_pretrained_model": 1}}, "pretrained networks have 18, 34"),
        ({"hyperparameters": {"lr_scheduler_step": "10;20"}}, "write whole numbers with commas"),
        ({"hyperparameters": {"learningrate": 1}}, "unknown to the image-classification algorithm"),
        ({"dataset": {**DATASET, "image_shape": "32,32"}}, "channels,height,width"),
        ({"dataset": {**DATASET, "recordio_train_uri": None}}, "channel 'train' has no S3 address"),
        ({"dataset": {**DATASET, "counts": {"train": 800, "validation": 0}}}, "no validation images"),
        ({"input_kind": "tfrecord"}, "choose one of recordio, png"),
        ({"instance_type": "ml.m5.large"}, "trains on GPU instances only"),
        ({"instance_count": 0}, "instance_count is 0"),
        ({"role_arn": "role"}, "not an ARN"),
        ({"extra": {"EnableManagedSpotTraining": True}}, "MaxWaitTimeInSeconds of at least 3600"),
    ],
)
def test_what_would_fail_after_minutes_is_refused_before(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidTrainingJobError) as error:
        build_training_request(replace(SPEC, **change), "job-1", [])
    assert words in str(error.value)


def test_all_problems_are_told_at_once() -> None:
    spec = replace(SPEC, instance_type="ml.m5.large", hyperparameters={"epochs": 0, "mini_batch_size": 5000})
    assert len(validate(spec)) == 3


def test_a_custom_image_may_train_on_cpu() -> None:
    assert validate(replace(SPEC, image_uri="repo/my-own:1", instance_type="ml.m5.large")) == []


def test_names_are_deterministic_legal_and_differ_by_run_and_attempt() -> None:
    key = "train_and_deploy/scheduled__2026-01-01T04:00:00+00:00/train_model"
    names = {training_job_name(key, 1), training_job_name(key, 2), training_job_name(key + "x", 1)}
    assert len(names) == 3
    assert training_job_name(key, 1) in names
    for name in names:
        assert len(name) <= 63
        assert legal("CreateTrainingJob", build_training_request(SPEC, name, [])) == ""


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"instance_type": "ml.p3.2xlarge", "max_runtime_s": 60}, True),
        ({"hyperparameters": {"epochs": 11}}, False),
        ({"image_uri": "repo/image-classification:2"}, False),
        ({"input_kind": "png"}, False),
        ({"dataset": {**DATASET, "dataset_version": "ds-ffffffffffff"}}, False),
        ({"extra": {"Environment": {"A": "1"}}}, False),
        ({"extra": {"VpcConfig": {"Subnets": ["s"]}}}, True),
    ],
)
def test_the_fingerprint_follows_what_decides_the_model(change: dict[str, Any], same: bool) -> None:
    assert (fingerprint(SPEC) == fingerprint(replace(SPEC, **change))) is same


def description(**changes: Any) -> dict[str, Any]:
    request = build_training_request(SPEC, "job-1", [])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        **request,
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:111122223333:training-job/job-1",
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/training/job-1/output/model.tar.gz"},
        "TrainingStartTime": start,
        "TrainingEndTime": start + timedelta(seconds=100),
        "FinalMetricDataList": [{"MetricName": "validation:accuracy", "Value": 0.9149999976158142}],
        **changes,
    }


def test_same_work_compares_image_hyperparameters_and_inputs() -> None:
    request = build_training_request(SPEC, "job-2", [])
    assert same_work(description(), request)
    assert not same_work(description(HyperParameters={"epochs": "1"}), request)
    assert not same_work(description(InputDataConfig=[]), request)


def test_the_result_names_seconds_metrics_and_artifact() -> None:
    result = training_result(description(BillableTimeInSeconds=90), fingerprint="f", reused=False)
    assert result["training_seconds"] == 100
    assert result["billable_seconds"] == 90
    assert result["metrics"] == {"validation:accuracy": 0.915}
    assert result["model_artifacts"].endswith("/job-1/output/model.tar.gz")
    assert training_job_of_artifact(result["model_artifacts"]) == "job-1"


@pytest.mark.parametrize(
    ("changes", "words", "final"),
    [
        (
            {"TrainingJobStatus": "Failed", "FailureReason": "ClientError: bad label"},
            "failed: ClientError: bad label",
            True,
        ),
        ({"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: boom"}, "AlgorithmError: boom", True),
        ({"TrainingJobStatus": "Failed", "FailureReason": "InternalServerError: sorry"}, "InternalServerError", False),
        ({"TrainingJobStatus": "Failed", "FailureReason": "ResourceLimitExceeded: 0 of p3"}, "Ask AWS", True),
        ({"TrainingJobStatus": "Failed"}, "gave no reason", False),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, "was stopped before it ended", True),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}, "raise max_runtime_s", True),
    ],
)
def test_failures_are_readable_and_only_some_are_worth_a_retry(
    changes: dict[str, Any], words: str, final: bool
) -> None:
    assert words in failure_text(description(**changes))
    assert is_final_failure(description(**changes)) is final


def test_costs_are_list_prices_or_unknown() -> None:
    assert job_cost("ml.p3.2xlarge", 3600) == 3.825
    assert job_cost("ml.unheard.of", 3600) is None
    assert endpoint_monthly_cost("ml.m5.large", 2) == pytest.approx(2 * 0.115 * 730, abs=0.01)
    assert endpoint_monthly_cost("ml.unheard.of", 2) is None
    assert storage_monthly_cost(1024**3) == 0.023

    def line(instance_type: str, on_aws: bool) -> str:
        done = {"instance_type": instance_type, "instance_count": 1, "training_seconds": 60, "billable_seconds": 50}
        return cost_line(cast(TrainingResult, done), on_aws=on_aws)

    assert line("ml.g4dn.xlarge", on_aws=True).startswith("Cost: 60 s of work, 50 billable seconds on 1 x ml.g4dn")
    assert "0.0102 USD" in line("ml.g4dn.xlarge", on_aws=True)
    assert "no list price" in line("ml.unheard.of", on_aws=True)
    assert line("ml.g4dn.xlarge", on_aws=False).startswith("This would cost on AWS: ")


def test_lineage_fits_the_limits_of_metadata_and_tags() -> None:
    lineage = Lineage("ds-1", "job-1", "image", "abc", "dag", "manual__2026-01-01T00:00:00+00:00")
    metadata = lineage.as_metadata(classes="a" * 300, test_accuracy=0.9, note="one, two;\tthree (é)")
    assert metadata["note"] == "one- two--three -é-"
    illegal = model_package_request(
        PackageSpec("i", "s3://b/training/j/output/model.tar.gz", "s3://b/e", "s3://b/d/", {"note": "a,b"}, "Approved")
    )
    assert "customerMetadataProperties" in legal("CreateModelPackage", illegal)
    assert legal("CreateModelPackage", illegal | {"CustomerMetadataProperties": metadata}) == ""
    assert metadata["dataset_version"] == "ds-1"
    assert max(map(len, metadata.values())) <= 256
    assert {"Key": "scones:run_id", "Value": "x-y"} in tags({"run_id": "x~y", "empty": ""})
    with pytest.raises(ValueError, match="not the artifact of a training job"):
        training_job_of_artifact("s3://b/model.tar.gz")
