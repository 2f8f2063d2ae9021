"""Search through boto3: filters as the SDKs and the console send them, order, pages, refusals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.local_service import LocalService, refusal, wait_training

IMAGE = "registry.example/toy:1"


@pytest.fixture
def versions(sm: Any, unique: str, bucket: str) -> list[str]:
    """Three versions in a group of the test's own: the second approved, the last with an accuracy."""
    group = unique
    sm.create_model_package_group(ModelPackageGroupName=group, Tags=[{"Key": "team", "Value": unique}])
    specification = {
        "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}],
        "SupportedContentTypes": ["image/png"],
        "SupportedResponseMIMETypes": ["application/json"],
    }
    arns = []
    for approval, properties in (("Rejected", {"a": "b"}), ("Approved", {"a": "b"}), ("Approved", {"accuracy": "0.9"})):
        made = sm.create_model_package(
            ModelPackageGroupName=group,
            ModelApprovalStatus=approval,
            InferenceSpecification=specification,
            CustomerMetadataProperties=properties,
        )
        arns.append(made["ModelPackageArn"])
    return arns


def found(sm: Any, resource: str, *filters: tuple[str, ...], **more: Any) -> list[dict[str, Any]]:
    members = ("Name", "Operator", "Value")
    expression = {"Filters": [dict(zip(members, one, strict=False)) for one in filters]}
    pages = sm.get_paginator("search").paginate(Resource=resource, SearchExpression=expression, **more)
    return [result[resource] for page in pages for result in page["Results"]]


def test_packages_are_found_by_group_approval_and_property(sm, versions, unique):
    of_group = ("ModelPackageGroupName", "Equals", unique)
    assert [p["ModelPackageArn"] for p in found(sm, "ModelPackage", of_group)] == versions[::-1]
    approved = found(sm, "ModelPackage", of_group, ("ModelApprovalStatus", "Equals", "Approved"))
    assert [package["ModelPackageArn"] for package in approved] == [versions[2], versions[1]]
    assert [
        package["ModelPackageVersion"]
        for package in found(sm, "ModelPackage", of_group, SortBy="ModelPackageVersion", SortOrder="Ascending")
    ] == [1, 2, 3]
    better = ("CustomerMetadataProperties.accuracy", "GreaterThan", "0.8")
    assert [package["ModelPackageVersion"] for package in found(sm, "ModelPackage", of_group, better)] == [3]
    without = ("CustomerMetadataProperties.accuracy", "NotExists")
    assert [package["ModelPackageVersion"] for package in found(sm, "ModelPackage", of_group, without)] == [2, 1]
    images = ("InferenceSpecification.Containers.Image", "Contains", "TOY")
    assert len(found(sm, "ModelPackage", of_group, images)) == 3
    assert len(found(sm, "ModelPackage", of_group, ("ModelPackageVersion", "In", "1, 3, 9"))) == 2


def test_pages_and_groups_by_tag(sm, versions, unique):
    tagged = {"Filters": [{"Name": "Tags.team", "Operator": "Equals", "Value": unique}]}
    answer = sm.search(Resource="ModelPackageGroup", SearchExpression=tagged)
    assert [result["ModelPackageGroup"]["ModelPackageGroupName"] for result in answer["Results"]] == [unique]
    assert answer["TotalHits"] == {"Value": 1, "Relation": "EqualTo"}
    of_group = ("ModelPackageGroupName", "Equals", unique)
    pages = found(sm, "ModelPackage", of_group, PaginationConfig={"PageSize": 2})
    assert [package["ModelPackageArn"] for package in pages] == versions[::-1]


def test_jobs_are_found_by_hyperparameter_metric_channel_and_time(sm, job_request, unique):
    for name, epochs in ((f"{unique}-a", 1), (f"{unique}-b", 2)):
        sm.create_training_job(**job_request(name, epochs=epochs))
    for suffix in "ab":
        assert wait_training(sm, f"{unique}-{suffix}")["TrainingJobStatus"] == "Completed"
    mine = ("TrainingJobName", "Contains", unique)

    def names(*filters: tuple[str, ...]) -> set[str]:
        return {job["TrainingJobName"][-1] for job in found(sm, "TrainingJob", mine, *filters)}

    assert names(("HyperParameters.epochs", "GreaterThan", "1")) == {"b"}
    assert names(("Metrics.toy:accuracy", "GreaterThanOrEqualTo", "0.5")) == {"b"}
    assert names(("TrainingJobStatus", "NotEquals", "Completed")) == set()
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert names(("CreationTime", "GreaterThan", hour_ago)) == {"a", "b"}
    assert names(("CreationTime", "LessThan", hour_ago)) == set()
    source = "InputDataConfig.DataSource.S3DataSource.S3Uri"
    nested = {"Filters": [{"Name": "InputDataConfig.ChannelName", "Value": "train"}, {"Name": source}]}
    nested["Filters"][1] |= {"Operator": "Contains", "Value": "data/train"}
    expression = {
        "NestedFilters": [{"NestedPropertyName": "InputDataConfig", **nested}],
        "SubExpressions": [
            {
                "Operator": "Or",
                "Filters": [
                    {"Name": "TrainingJobName", "Value": f"{unique}-a"},
                    {"Name": "TrainingJobName", "Value": f"{unique}-none"},
                ],
            }
        ],
    }
    results = sm.search(Resource="TrainingJob", SearchExpression=expression)["Results"]
    assert [result["TrainingJob"]["TrainingJobName"] for result in results] == [f"{unique}-a"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"Resource": "Pipeline"}, "does not support Resource"),
        ({"Resource": "TrainingJob", "VisibilityConditions": [{"Key": "a", "Value": "b"}]}, "VisibilityConditions"),
        ({"Resource": "TrainingJob", "SortBy": "Speed"}, "Unknown property name: Speed"),
        (
            {"Resource": "TrainingJob", "SearchExpression": {"Filters": [{"Name": "A.B", "Value": "1"}]}},
            "Unknown property name: A.B",
        ),
        (
            {
                "Resource": "TrainingJob",
                "SearchExpression": {"Filters": [{"Name": "TrainingJobName", "Operator": "Equals"}]},
            },
            "needs a Value",
        ),
    ],
)
def test_what_it_cannot_answer_is_refused(sm: Any, request_: dict[str, Any], words: str) -> None:
    search: Callable[..., Any] = sm.search
    code, message = refusal(search, **request_)
    assert code == "ValidationException"
    assert words in message


def test_metrics_logged_to_a_component_by_their_own_client_are_found(
    service: LocalService, sm: Any, unique: str
) -> None:
    sm.create_trial_component(TrialComponentName=unique)
    metrics = boto3.client("sagemaker-metrics", endpoint_url=service.url, region_name="us-east-1")
    now = datetime.now(UTC)
    data = [{"MetricName": "loss", "Value": value, "Timestamp": now, "Step": 1} for value in (3.0, 1.0)]
    assert "Errors" not in metrics.batch_put_metrics(TrialComponentName=unique, MetricData=data)
    [kept] = sm.describe_trial_component(TrialComponentName=unique)["Metrics"]
    assert (kept["MetricName"], kept["Count"], kept["Avg"], kept["Last"]) == ("loss", 2, 2.0, 1.0)
    named = {"Filters": [{"Name": "TrialComponentName", "Operator": "Equals", "Value": unique}]}
    [row] = sm.search(Resource="ExperimentTrialComponent", SearchExpression=named)["Results"]
    assert row["TrialComponent"]["Metrics"] == [kept]

    refused = metrics.batch_put_metrics(TrialComponentName=f"{unique}-x", MetricData=data[:1])
    assert refused["Errors"] == [{"Code": "VALIDATION_ERROR", "MetricIndex": 0}]
    with pytest.raises(ClientError) as error:
        metrics.batch_put_metrics(TrialComponentName="Not-A-Name", MetricData=data)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    elsewhere = boto3.client("sagemaker-metrics", endpoint_url=service.url, region_name="eu-west-1")
    with pytest.raises(ClientError, match="region us-east-1"):
        elsewhere.batch_put_metrics(TrialComponentName=unique, MetricData=data)
