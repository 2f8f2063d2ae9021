"""Tuning: ranges, the choice of the next values, and a tuning job from its first training job to its last."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_local import app
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceNotFound, ServiceUnavailable, ValidationException
from sagemaker_local.jobs import Control
from sagemaker_local.protocol import operation_of, serialise_answer
from sagemaker_local.search import search as find
from sagemaker_local.store import Resource
from sagemaker_local.training.runner import TRAINING
from sagemaker_local.tuning import operations, runner
from sagemaker_local.tuning.ranges import Choice, NumberRange, grid, parse_ranges
from sagemaker_local.tuning.search import next_values
from sagemaker_local.tuning.state import TUNING
from sagemaker_local.tuning.trial import Trial, should_stop

RATE = {"Name": "rate", "MinValue": "0.0001", "MaxValue": "1", "ScalingType": "Logarithmic"}
DEPTH = {"Name": "depth", "MinValue": "1", "MaxValue": "9"}
KIND = {"Name": "kind", "Values": ["sgd", "adam"]}
ALL = {"ContinuousParameterRanges": [RATE], "IntegerParameterRanges": [DEPTH], "CategoricalParameterRanges": [KIND]}


@given(st.floats(0, 1), st.sampled_from(["Linear", "Logarithmic", "ReverseLogarithmic"]), st.booleans())
def test_every_place_is_a_value_in_the_range_and_back(draw, scaling, whole):
    least, most = (0.01, 0.99) if scaling == "ReverseLogarithmic" else (1.0, 50.0)
    one = NumberRange("x", least, most, scaling, whole and scaling != "ReverseLogarithmic")
    text = one.text(draw)
    assert least <= float(text) <= most
    [place] = one.place(text)
    assert -1e-9 <= place <= 1 + 1e-9
    if not one.whole:
        assert place == pytest.approx(draw, abs=1e-6)


def test_auto_scaling_is_logarithmic_over_many_magnitudes():
    [wide] = parse_ranges({"ContinuousParameterRanges": [{**RATE, "ScalingType": "Auto"}]})
    [narrow] = parse_ranges({"IntegerParameterRanges": [DEPTH]})
    assert isinstance(wide, NumberRange)
    assert isinstance(narrow, NumberRange)
    assert (wide.scaling, narrow.scaling) == ("Logarithmic", "Linear")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"IntegerParameterRanges": [{**DEPTH, "MinValue": "x"}]},
        {"IntegerParameterRanges": [{**DEPTH, "MinValue": "9" * 5000}]},
        {"IntegerParameterRanges": [{**DEPTH, "MinValue": "10"}]},
        {"ContinuousParameterRanges": [{**RATE, "MaxValue": "nan"}]},
        {"ContinuousParameterRanges": [{**RATE, "MaxValue": "1e999"}]},
        {"ContinuousParameterRanges": [{**RATE, "MinValue": "0"}]},
        {"ContinuousParameterRanges": [{**RATE, "ScalingType": "ReverseLogarithmic"}]},
        {"ContinuousParameterRanges": [RATE, RATE]},
    ],
)
def test_a_range_that_is_none_is_refused(document):
    with pytest.raises(ValueError, match=r"range|Value|scaling"):
        parse_ranges(document)


def test_a_grid_is_every_combination_of_words():
    letters = {"Name": "letter", "Values": ["a", "b"]}
    found = grid(parse_ranges({"CategoricalParameterRanges": [KIND, letters]}))
    assert [(one["kind"], one["letter"]) for one in found] == [("sgd", "a"), ("sgd", "b"), ("adam", "a"), ("adam", "b")]
    with pytest.raises(ValueError, match="categorical"):
        grid(parse_ranges(ALL))
    with pytest.raises(ValueError, match="1000000000 combinations"):
        grid([Choice(str(number), tuple("0123456789")) for number in range(9)])


def quality(values: dict[str, str]) -> float:
    """Best at rate 0.01, depth 5, adam."""
    far = (math.log10(float(values["rate"])) + 2) ** 2 + ((int(values["depth"]) - 5) / 4) ** 2
    return -far - (values["kind"] == "sgd")


def search(strategy: str, seed: int, count: int) -> list[float]:
    ranges = parse_ranges(ALL)
    trials: list[Trial] = []
    for _ in range(count):
        values = next_values(strategy, ranges, trials, seed)
        trials.append(Trial(values, quality(values)))
    return [trial.score for trial in trials if trial.score is not None]


def test_bayesian_search_finds_more_than_random_does():
    """Over ten seeds, 20 trials each; the best possible is 0."""
    best = {strategy: [max(search(strategy, seed, 20)) for seed in range(10)] for strategy in ("Random", "Bayesian")}
    assert sorted(best["Bayesian"])[5] > sorted(best["Random"])[5]
    assert sorted(best["Bayesian"])[5] > -0.05
    assert search("Bayesian", 3, 6) == search("Bayesian", 3, 6)


def test_running_trials_and_equal_scores_do_not_stop_the_search():
    ranges = parse_ranges(ALL)
    values = [next_values("Random", ranges, [Trial({})] * number, 1) for number in range(6)]
    trials = [*(Trial(one, 1.0) for one in values[:5]), Trial(values[5], None, running=True)]
    found = next_values("Bayesian", ranges, trials, 1)
    assert found not in values


def test_a_trial_below_the_median_of_the_others_is_stopped():
    others = [Trial({}, 1.0, (0.5, 0.6, 0.9)), Trial({}, 1.0, (0.4, 0.7)), Trial({}, 1.0, (0.6, 0.6))]
    assert should_stop(Trial({}, None, (0.1, 0.2), running=True), others)
    assert not should_stop(Trial({}, None, (0.1, 0.9), running=True), others)
    assert not should_stop(Trial({}, None, (0.1,), running=True), others)
    assert not should_stop(Trial({}, None, (0.1, 0.2), running=True), others[:2])


# --- whole jobs

DEFINITION = {
    "AlgorithmSpecification": {"TrainingImage": "x/image-classification:1", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::" + "1" * 12 + ":role/r",
    "OutputDataConfig": {"S3OutputPath": "s3://bkt/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    "StaticHyperParameters": {"epochs": "1"},
}
CONFIG = {
    "Strategy": "Random",
    "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:accuracy"},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2},
    "ParameterRanges": ALL,
}


@pytest.fixture
def ctx(tmp_path: Any) -> Iterator[Context]:
    moments = iter(range(1_700_000_000, 1_800_000_000))
    made = Context(Config(data_dir=tmp_path, account_id="1" * 12), clock=lambda: float(next(moments)))
    made.events.publish = lambda *_: None  # type: ignore[method-assign]
    yield made
    made.close()


class Trained:
    """Training jobs that end as they are told to, at once; remembers how many ran."""

    def __init__(self, ctx: Context, monkeypatch: pytest.MonkeyPatch, outcome: str = "Completed") -> None:
        self.requests: list[dict[str, Any]] = []
        self.outcome = outcome
        monkeypatch.setattr(runner.training, "submit", self.submit)
        self._ctx = ctx

    def submit(self, ctx: Context, request: dict[str, Any], tags: Any, *, tuning: Resource, tuned: Any) -> None:
        self.requests.append(request)
        name = request["TrainingJobName"]
        body: dict[str, Any] = {"TrainingJobName": name, "TrainingJobStatus": self.outcome}
        if self.outcome == "Completed":
            body["FinalMetricDataList"] = [{"MetricName": "validation:accuracy", "Value": quality(tuned)}]
        row = Resource(TRAINING.kind, name, ctx.arn(TRAINING.kind, name), body, self.outcome, {"tuned": tuned})
        row.parent = tuning.name
        ctx.store.create(row)


def tuned(ctx: Context, **config: Any) -> dict[str, Any]:
    """The description of a tuning job that has run."""
    body = {"HyperParameterTuningJobConfig": {**CONFIG, **config}, "TrainingJobDefinition": DEFINITION}
    TUNING.create(ctx, {"HyperParameterTuningJobName": "t", **body}, {"team": "x"})
    runner.TuningRun(ctx, "t", Control()).run()
    return described(ctx)


def described(ctx: Context) -> dict[str, Any]:
    answer = operations.describe_hyper_parameter_tuning_job(ctx, {"HyperParameterTuningJobName": "t"})
    return serialise_answer(operation_of("SageMaker.DescribeHyperParameterTuningJob"), answer)


def test_a_tuning_job_ends_with_its_best_training_job(ctx, monkeypatch):
    trained = Trained(ctx, monkeypatch)
    found = tuned(ctx)
    assert found["HyperParameterTuningJobStatus"] == "Completed"
    assert found["TrainingJobStatusCounters"]["Completed"] == 6
    assert found["ObjectiveStatusCounters"] == {"Succeeded": 6, "Pending": 0, "Failed": 0}
    scores = {request["TrainingJobName"]: quality(request["HyperParameters"]) for request in trained.requests}
    best = max(scores, key=lambda name: scores[name])
    assert found["BestTrainingJob"]["TrainingJobName"] == best
    assert found["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == scores[best]
    assert set(found["BestTrainingJob"]["TunedHyperParameters"]) == {"rate", "depth", "kind"}
    assert trained.requests[0]["HyperParameters"]["epochs"] == "1"
    assert trained.requests[0]["HyperParameters"]["_tuning_objective_metric"] == "validation:accuracy"
    listed = operations.list_training_jobs_for_hyper_parameter_tuning_job(
        ctx,
        {
            "HyperParameterTuningJobName": "t",
            "SortBy": "FinalObjectiveMetricValue",
            "SortOrder": "Descending",
            "MaxResults": 1,
        },
    )
    assert [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]] == [best]
    assert listed["NextToken"]
    ours = {
        "Filters": [{"Name": "Tags.team", "Value": "x"}, {"Name": "BestTrainingJob.TrainingJobName", "Value": best}]
    }
    answer = find(ctx, {"Resource": "HyperParameterTuningJob", "SearchExpression": ours})
    [result] = serialise_answer(operation_of("SageMaker.Search"), answer)["Results"]
    assert result["HyperParameterTuningJob"]["HyperParameterTuningJobName"] == "t"


def test_minimising_and_its_criteria_end_it_early(ctx, monkeypatch):
    trained = Trained(ctx, monkeypatch)
    objective = {"Type": "Minimize", "MetricName": "validation:accuracy"}
    tuned(
        ctx,
        HyperParameterTuningJobObjective=objective,
        TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 0.0},
    )
    assert len(trained.requests) == 1, "every quality is below 0"


def test_jobs_that_bring_nothing_better_end_it(ctx, monkeypatch):
    trained = Trained(ctx, monkeypatch)
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    limits = {"MaxNumberOfTrainingJobs": 50, "MaxParallelTrainingJobs": 1}
    found = tuned(ctx, TuningJobCompletionCriteria=criteria, ResourceLimits=limits)
    scores = [quality(request["HyperParameters"]) for request in trained.requests]
    assert len(scores) - 1 - scores.index(max(scores)) == 3
    assert found["HyperParameterTuningJobStatus"] == "Completed"


def test_a_grid_is_tried_once_each(ctx, monkeypatch):
    trained = Trained(ctx, monkeypatch)
    trained.outcome = "Failed"
    ranges = {"CategoricalParameterRanges": [KIND, {"Name": "letter", "Values": ["a", "b"]}]}
    limits = {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 1}
    found = tuned(ctx, Strategy="Grid", ParameterRanges=ranges, ResourceLimits=limits)
    assert len({tuple(sorted(request["HyperParameters"].items())) for request in trained.requests}) == 4
    assert found["HyperParameterTuningJobStatus"] == "Failed"
    assert found["FailureReason"].startswith("All training jobs failed")
    assert "BestTrainingJob" not in found


def test_a_stopped_job_starts_nothing_more(ctx, monkeypatch):
    trained = Trained(ctx, monkeypatch)
    body = {"HyperParameterTuningJobConfig": CONFIG, "TrainingJobDefinition": DEFINITION}
    TUNING.create(ctx, {"HyperParameterTuningJobName": "t", **body}, {})

    def stopping(row: Resource) -> None:
        row.status = row.body["HyperParameterTuningJobStatus"] = "Stopping"

    ctx.store.update(TUNING.kind, "t", stopping)
    runner.TuningRun(ctx, "t", Control()).run()
    assert trained.requests == []
    assert described(ctx)["HyperParameterTuningJobStatus"] == "Stopped"
    operations.delete_hyper_parameter_tuning_job(ctx, {"HyperParameterTuningJobName": "t"})
    with pytest.raises(ResourceNotFound):
        described(ctx)


def test_a_training_job_that_is_refused_fails_the_tuning_job(ctx, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise ServiceUnavailable("no room")

    monkeypatch.setattr(runner.training, "submit", refuse)
    found = tuned(ctx)
    assert (found["HyperParameterTuningJobStatus"], found["FailureReason"]) == ("Failed", "ClientError: no room")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Strategy": "Hyperband"}, "Hyperband"),
        ({"Strategy": "Grid"}, "categorical"),
        ({"ParameterRanges": {}}, "at least one"),
        ({"ParameterRanges": {**ALL, "AutoParameters": [{"Name": "x", "ValueHint": "1"}]}}, "AutoParameters"),
        ({"ResourceLimits": {"MaxParallelTrainingJobs": 1}}, "MaxNumberOfTrainingJobs"),
        ({"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "loss"}}, "metric loss"),
        ({"TuningJobCompletionCriteria": {"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}}, "Convergence"),
    ],
)
def test_what_cannot_be_honoured_is_refused(ctx, change, words):
    request = {
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobConfig": {**CONFIG, **change},
        "TrainingJobDefinition": DEFINITION,
    }
    with pytest.raises(ValidationException, match=words):
        operations.create_hyper_parameter_tuning_job(ctx, request)


MACHINE = {"InstanceType": "ml.c5.large", "InstanceCount": 1, "VolumeSizeInGB": 30}


@pytest.mark.parametrize(
    "machines", [MACHINE, {"InstanceConfigs": [MACHINE, {**MACHINE, "InstanceType": "ml.m5.large"}]}]
)
def test_machines_may_be_given_for_tuning(machines):
    """As the SDK 2.x gives them. Source: HyperParameterTuningResourceConfig in the API reference."""
    definition = {member: value for member, value in DEFINITION.items() if member != "ResourceConfig"}
    given = {**definition, "HyperParameterTuningResourceConfig": machines}
    tuning = {"HyperParameterTuningJobConfig": CONFIG, "TrainingJobDefinition": given}
    assert runner.training_request(tuning, "t-001", {})["ResourceConfig"] == MACHINE


def test_a_tuning_job_is_described_with_what_it_tells_the_container(ctx):
    """As HyperparameterTuner.attach of the SDK 2.x reads it."""
    ctx.provide(operations.TuningQueue("tuning", 1, lambda *_: None, lambda *_: None))
    request = {"HyperParameterTuningJobName": "t", "HyperParameterTuningJobConfig": CONFIG}
    operations.create_hyper_parameter_tuning_job(ctx, {**request, "TrainingJobDefinition": DEFINITION})
    static = described(ctx)["TrainingJobDefinition"]["StaticHyperParameters"]
    assert static == {"epochs": "1", "_tuning_objective_metric": "validation:accuracy"}


def test_other_members_are_refused_too(ctx):
    request = {"HyperParameterTuningJobName": "t", "HyperParameterTuningJobConfig": CONFIG}
    for more, words in (
        ({"WarmStartConfig": {"x": 1}, "TrainingJobDefinition": DEFINITION}, "warm start"),
        ({"TrainingJobDefinitions": [DEFINITION]}, "several"),
        ({}, "TrainingJobDefinition is required"),
        ({"TrainingJobDefinition": {**DEFINITION, "OutputDataConfig": {"S3OutputPath": "x"}}}, "not an S3 URI"),
        ({"TrainingJobDefinition": {**DEFINITION, "HyperParameterTuningResourceConfig": MACHINE}}, "Exactly one"),
    ):
        with pytest.raises(ValidationException, match=words):
            operations.create_hyper_parameter_tuning_job(ctx, {**request, **more})
    assert "CreateHyperParameterTuningJob" in app.operations(app.areas())
