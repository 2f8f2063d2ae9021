"""Experiments, trials and components: who belongs to whom, what a job leaves, what Search finds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

import pytest

from sagemaker_local import app
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceNotFound, ValidationException
from sagemaker_local.experiments import jobs
from sagemaker_local.metrics import MetricReader
from sagemaker_local.protocol import operation_of, serialise_answer
from sagemaker_local.store import Resource

TABLE = app.operations(app.areas())


@pytest.fixture
def ctx(tmp_path: Any) -> Iterator[Context]:
    moments = iter(range(1_700_000_000, 1_800_000_000))
    made = Context(Config(data_dir=tmp_path, account_id="1" * 12), clock=lambda: float(next(moments)))
    yield made
    made.close()


def call(ctx: Context, name: str, **request: Any) -> dict[str, Any]:
    """An operation's answer as it goes over the wire."""
    return serialise_answer(operation_of(f"SageMaker.{name}"), TABLE[name](ctx, request))  # type: ignore[arg-type]


@pytest.fixture
def world(ctx: Context) -> Context:
    """Experiment e with trials a and b; components 1 and 2 in a, 2 in b."""
    call(ctx, "CreateExperiment", ExperimentName="e", Description="d", Tags=[{"Key": "team", "Value": "x"}])
    for trial in "ab":
        call(ctx, "CreateTrial", TrialName=trial, ExperimentName="e")
    for component in "12":
        parameters = {"rate": {"NumberValue": float(component)}}
        call(ctx, "CreateTrialComponent", TrialComponentName=component, Parameters=parameters)
    for trial, component in ("a1", "a2", "b2"):
        call(ctx, "AssociateTrialComponent", TrialName=trial, TrialComponentName=component)
    return ctx


def names(answer: dict[str, Any]) -> list[str]:
    [rows] = [value for value in answer.values() if isinstance(value, list)]
    return [row["DisplayName"] for row in rows]


def test_lists_go_by_what_belongs_together(world):
    assert names(call(world, "ListTrials", ExperimentName="e")) == ["b", "a"]
    assert names(call(world, "ListTrials", TrialComponentName="1")) == ["a"]
    assert names(call(world, "ListTrialComponents", TrialName="a", SortOrder="Ascending")) == ["1", "2"]
    assert names(call(world, "ListTrialComponents", ExperimentName="e", SortBy="Name")) == ["2", "1"]
    assert names(call(world, "ListTrialComponents", SourceArn="arn:x")) == []
    first = call(world, "ListTrialComponents", ExperimentName="e", MaxResults=1)
    rest = call(world, "ListTrialComponents", ExperimentName="e", MaxResults=1, NextToken=first["NextToken"])
    assert names(first) + names(rest) == ["2", "1"]
    created = call(world, "DescribeTrial", TrialName="a")["CreationTime"]
    assert names(call(world, "ListTrials", CreatedAfter=created)) == ["b"]


def test_what_is_in_use_is_not_deleted(world):
    for name, request in (
        ("DeleteExperiment", {"ExperimentName": "e"}),
        ("DeleteTrial", {"TrialName": "a"}),
        ("DeleteTrialComponent", {"TrialComponentName": "2"}),
    ):
        with pytest.raises(ValidationException, match="cannot be deleted"):
            call(world, name, **request)
    for trial, component in ("a1", "a2", "b2"):
        call(world, "DisassociateTrialComponent", TrialName=trial, TrialComponentName=component)
    with pytest.raises(ResourceNotFound):
        call(world, "DisassociateTrialComponent", TrialName="a", TrialComponentName="1")
    call(world, "DeleteTrialComponent", TrialComponentName="2")
    for trial in "ab":
        call(world, "DeleteTrial", TrialName=trial)
    call(world, "DeleteExperiment", ExperimentName="e")
    assert names(call(world, "ListExperiments")) == []


def test_updates_add_replace_and_remove_by_key(world):
    call(
        world,
        "UpdateTrialComponent",
        TrialComponentName="1",
        DisplayName="one",
        Status={"PrimaryStatus": "Completed"},
        Parameters={"depth": {"NumberValue": 3.0}},
        ParametersToRemove=["rate"],
    )
    found = call(world, "DescribeTrialComponent", TrialComponentName="1")
    assert (found["DisplayName"], found["Parameters"]) == ("one", {"depth": {"NumberValue": 3.0}})
    call(world, "UpdateExperiment", ExperimentName="e", Description="other")
    assert call(world, "DescribeExperiment", ExperimentName="e")["Description"] == "other"


def test_names_are_used_once_and_must_be_there(world):
    with pytest.raises(ValidationException, match="already exists"):
        call(world, "CreateTrial", TrialName="a", ExperimentName="e")
    for name, request in (
        ("CreateTrial", {"TrialName": "c", "ExperimentName": "nothing"}),
        ("DescribeTrialComponent", {"TrialComponentName": "nothing"}),
        ("ListTrials", {"ExperimentName": "nothing"}),
    ):
        with pytest.raises(ResourceNotFound):
            call(world, name, **request)


def job(ctx: Context, config: dict[str, str], status: str = "InProgress", **internal: Any) -> Resource:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bkt/train"}}
    body = {
        "ExperimentConfig": config,
        "HyperParameters": {"epochs": "3", "optimizer": "sgd"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": source}],
        "ModelArtifacts": {"S3ModelArtifacts": "s3://bkt/model.tar.gz"},
        "AlgorithmSpecification": {"TrainingImage": "image"},
    }
    return Resource("training-job", "j", ctx.arn("training-job", "j"), body, status, internal, created=1_700_000_000.0)


def test_a_job_fills_its_component_and_search_finds_it(world):
    jobs.follow(world, "Training", job(world, {"ExperimentName": "e", "TrialName": "b"}))
    reader = MetricReader([{"Name": "loss", "Regex": "loss=([0-9.]+)"}])
    for value in (3, 1, 2):
        reader.observe(f"loss={value}", 1_700_000_000.0 + value)
    done = job(world, {"ExperimentName": "e", "TrialName": "b"}, "Completed", metrics=reader.summaries())
    jobs.follow(world, "Training", done)
    found = call(world, "DescribeTrialComponent", TrialComponentName="j-aws-training-job")
    assert found["Status"]["PrimaryStatus"] == "Completed"
    assert found["Source"] == {"SourceArn": done.arn, "SourceType": "SageMakerTrainingJob"}
    assert found["Parameters"]["epochs"] == {"NumberValue": 3.0}
    assert found["Parameters"]["optimizer"] == {"StringValue": "sgd"}
    assert found["Parameters"]["SageMaker.InstanceType"] == {"StringValue": "ml.m5.large"}
    assert found["OutputArtifacts"]["SageMaker.ModelArtifact"]["Value"] == "s3://bkt/model.tar.gz"
    [metric] = found["Metrics"]
    assert (metric["Last"], metric["Min"], metric["Max"], metric["Count"], metric["Avg"]) == (2.0, 1.0, 3.0, 3, 2.0)
    assert metric["StdDev"] == pytest.approx(statistics.pstdev([3, 1, 2]))
    assert names(call(world, "ListTrialComponents", TrialName="b")) == ["j-aws-training-job", "2"]
    assert names(call(world, "ListTrialComponents", SourceArn=done.arn)) == ["j-aws-training-job"]

    expression = {"Filters": [{"Name": "Parents.TrialName", "Operator": "Equals", "Value": "b"}]}
    answer = call(world, "Search", Resource="ExperimentTrialComponent", SearchExpression=expression)
    found_names = [result["TrialComponent"]["TrialComponentName"] for result in answer["Results"]]
    assert found_names == ["j-aws-training-job", "2"]
    assert answer["Results"][1]["TrialComponent"]["Parents"][0]["ExperimentName"] == "e"
    tagged = {"Filters": [{"Name": "Tags.team", "Value": "x"}]}
    [experiment] = call(world, "Search", Resource="Experiment", SearchExpression=tagged)["Results"]
    assert experiment["Experiment"]["ExperimentName"] == "e"
    [trial] = call(
        world, "Search", Resource="ExperimentTrial", SearchExpression={"Filters": [{"Name": "TrialName", "Value": "a"}]}
    )["Results"]
    assert len(trial["Trial"]["TrialComponentSummaries"]) == 2


def put(ctx: Context, component: str, *points: tuple[str, float, float]) -> dict[str, Any]:
    """BatchPutMetrics of (name, value, seconds)."""
    data = [{"MetricName": name, "Value": value, "Timestamp": at} for name, value, at in points]
    return TABLE["BatchPutMetrics"](ctx, {"TrialComponentName": component, "MetricData": data})  # type: ignore[return-value]


def test_logged_metrics_are_summed_up_the_newest_by_its_time(world):
    assert put(world, "1", ("loss", 4.0, 10.0), ("loss", 1.0, 30.0), ("accuracy", 0.5, 30.0)) == {}
    assert put(world, "1", ("loss", 2.5, 20.0)) == {}
    found = call(world, "DescribeTrialComponent", TrialComponentName="1")
    loss, accuracy = found["Metrics"]
    assert {one["SourceArn"] for one in (loss, accuracy)} == {found["TrialComponentArn"]}
    told = ("Count", "Min", "Max", "Avg", "Last", "TimeStamp")
    assert [loss[name] for name in told] == [3, 1.0, 4.0, 2.5, 1.0, 30.0]
    assert loss["StdDev"] == pytest.approx(statistics.pstdev([4, 1, 2.5]))
    assert (accuracy["Count"], accuracy["Last"]) == (1, 0.5)


def test_a_loss_that_runs_away_has_a_summary_in_json(world):
    for value in (1e200, 1.7e308, -1.7e308, 1.0, 1e308):
        assert put(world, "1", ("loss", value, 10.0)) == {}
    [loss] = call(world, "DescribeTrialComponent", TrialComponentName="1")["Metrics"]
    json.dumps(loss, allow_nan=False)
    assert (loss["Count"], loss["Max"], loss["Min"]) == (5, 1.7e308, -1.7e308)
    assert loss["StdDev"] > 0


def test_extremes_of_both_signs_have_a_mean_between_them(world):
    put(world, "1", ("loss", -1.7e308, 1.0), ("loss", 1.7e308, 2.0))
    [loss] = call(world, "DescribeTrialComponent", TrialComponentName="1")["Metrics"]
    assert (loss["Avg"], loss["Last"]) == (0.0, 1.7e308)
    assert loss["StdDev"] > 1e308


def test_what_is_logged_beside_a_jobs_metrics_stays_when_the_job_goes_on(world):
    jobs.follow(world, "Training", job(world, {}))
    put(world, "j-aws-training-job", ("mine", 1.0, 1.0))
    reader = MetricReader([{"Name": "loss", "Regex": "loss=([0-9.]+)"}])
    reader.observe("loss=3", 1_700_000_000.0)
    jobs.follow(world, "Training", job(world, {}, "Completed", metrics=reader.summaries()))
    found = call(world, "DescribeTrialComponent", TrialComponentName="j-aws-training-job")
    assert sorted(one["MetricName"] for one in found["Metrics"]) == ["loss", "mine"]


def test_metrics_of_no_component_are_refused_each(world):
    errors = [{"Code": "VALIDATION_ERROR", "MetricIndex": index} for index in (0, 1)]
    assert put(world, "nothing", ("a", 1.0, 1.0), ("b", 1.0, 1.0)) == {"Errors": errors}


def test_a_job_that_names_its_experiment_only_is_in_the_default_trial(world):
    jobs.follow(world, "Training", job(world, {"ExperimentName": "e", "TrialComponentDisplayName": "mine"}))
    assert names(call(world, "ListTrialComponents", TrialName="Default-Run-Group-e")) == ["mine"]


def test_a_job_without_a_config_has_a_component_that_can_join_a_trial_later(world):
    jobs.follow(world, "Training", job(world, {}))
    [component] = [one for one in names(call(world, "ListTrialComponents")) if one.endswith("-aws-training-job")]
    call(world, "AssociateTrialComponent", TrialName="b", TrialComponentName=component)
    assert component in names(call(world, "ListTrialComponents", TrialName="b"))


def test_a_config_that_names_what_is_not_there_is_refused(world):
    call(world, "CreateExperiment", ExperimentName="other")
    for config, error in (
        ({"ExperimentName": "nothing"}, ResourceNotFound),
        ({"TrialName": "nothing"}, ResourceNotFound),
        ({"ExperimentName": "other", "TrialName": "a"}, ValidationException),
    ):
        with pytest.raises(error):
            jobs.check_config(world, {"ExperimentConfig": config})
    jobs.check_config(world, {"ExperimentConfig": {"ExperimentName": "e", "TrialName": "a"}})
