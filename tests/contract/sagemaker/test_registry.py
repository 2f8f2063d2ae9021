"""Models, the model registry and tags through boto3."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.local_service import TOY_IMAGE, refusal, wait_until


@pytest.fixture
def group(sm: Any, unique: str) -> str:
    arn = sm.create_model_package_group(
        ModelPackageGroupName=unique, ModelPackageGroupDescription="toys", Tags=[{"Key": "team", "Value": "a"}]
    )["ModelPackageGroupArn"]
    assert arn.endswith(f":model-package-group/{unique}")
    return unique


def package(group: str, bucket: str = "b", **members: Any) -> dict[str, Any]:
    container = {"Image": TOY_IMAGE, "ModelDataUrl": f"s3://{bucket}/m/model.tar.gz", "Environment": {"A": "1"}}
    specification = {
        "Containers": [container],
        "SupportedContentTypes": ["image/png"],
        "SupportedResponseMIMETypes": ["application/json"],
    }
    return {"ModelPackageGroupName": group, "InferenceSpecification": specification, **members}


def test_versions_are_numbered_and_described_as_registered(sm, group, unique):
    metrics = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://b/evaluation.json"}}}
    first = sm.create_model_package(
        **package(group, ModelMetrics=metrics, CustomerMetadataProperties={"accuracy": "0.9"})
    )["ModelPackageArn"]
    second = sm.create_model_package(**package(group, ModelApprovalStatus="Approved"))["ModelPackageArn"]
    assert first.endswith(f":model-package/{unique}/1")
    assert second.endswith(f":model-package/{unique}/2")
    found = sm.describe_model_package(ModelPackageName=first)
    assert (found["ModelPackageVersion"], found["ModelApprovalStatus"]) == (1, "PendingManualApproval")
    assert found["ModelPackageStatus"] == "Completed"
    assert found["ModelMetrics"] == metrics
    assert found["CustomerMetadataProperties"] == {"accuracy": "0.9"}
    listed = sm.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert [item["ModelPackageVersion"] for item in listed] == [1, 2]
    assert "ModelPackageName" not in found
    both = sm.batch_describe_model_package(ModelPackageArnList=[first, second, f"{first}9"])
    assert set(both["ModelPackageSummaries"]) == {first, second}
    assert both["BatchDescribeModelPackageErrorMap"][f"{first}9"]["ErrorCode"] == "ValidationException"
    approved = sm.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Approved")
    assert [item["ModelPackageArn"] for item in approved["ModelPackageSummaryList"]] == [second]


def test_a_deleted_versions_number_is_not_given_out_again(sm, group):
    arn = sm.create_model_package(**package(group))["ModelPackageArn"]
    sm.delete_model_package(ModelPackageName=arn)
    assert sm.create_model_package(**package(group))["ModelPackageArn"].endswith("/2")


def test_an_approval_is_an_event_on_the_bus(sm, aws, group, unique):
    sqs, bus = aws("sqs"), aws("events")
    queue = sqs.create_queue(QueueName=unique)["QueueUrl"]
    target = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.sagemaker"], "detail": {"ModelPackageGroupName": [group]}}
    bus.put_rule(Name=unique, EventPattern=json.dumps(pattern))
    bus.put_targets(Rule=unique, Targets=[{"Id": "1", "Arn": target}])
    arn = sm.create_model_package(**package(group))["ModelPackageArn"]
    sm.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="good")
    seen: list[dict[str, Any]] = []

    def approvals() -> bool:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        seen.extend(json.loads(message["Body"]) for message in messages)
        return any(event["detail"]["ModelApprovalStatus"] == "Approved" for event in seen)

    wait_until(approvals, "the approval's event", 20)
    event = next(event for event in seen if event["detail"]["ModelApprovalStatus"] == "Approved")
    assert event["detail-type"] == "SageMaker Model Package State Change"
    assert event["detail"]["ModelPackageArn"] == arn
    assert sm.describe_model_package(ModelPackageName=arn)["ApprovalDescription"] == "good"
    bus.remove_targets(Rule=unique, Ids=["1"])
    bus.delete_rule(Name=unique)


def test_properties_can_be_added_and_removed(sm, group):
    arn = sm.create_model_package(**package(group, CustomerMetadataProperties={"a": "1", "b": "2"}))["ModelPackageArn"]
    sm.update_model_package(
        ModelPackageArn=arn, CustomerMetadataProperties={"c": "3"}, CustomerMetadataPropertiesToRemove=["a"]
    )
    assert sm.describe_model_package(ModelPackageName=arn)["CustomerMetadataProperties"] == {"b": "2", "c": "3"}


def test_a_client_token_makes_creation_idempotent(sm, group):
    first = sm.create_model_package(**package(group, ClientToken="once"))["ModelPackageArn"]
    assert sm.create_model_package(**package(group, ClientToken="once"))["ModelPackageArn"] == first


def test_a_model_can_be_made_from_a_package(sm, role, group, unique):
    arn = sm.create_model_package(**package(group))["ModelPackageArn"]
    sm.create_model(ModelName=unique, ExecutionRoleArn=role, Containers=[{"ModelPackageName": arn}])
    model = sm.describe_model(ModelName=unique)
    assert model["Containers"] == [{"ModelPackageName": arn}]
    code, message = refusal(
        sm.create_model, ModelName=f"{unique}-2", PrimaryContainer={"ModelPackageName": arn.replace("/1", "/9")}
    )
    assert (code, message) == ("ValidationException", f"ModelPackage {arn.replace('/1', '/9')} does not exist.")


def test_groups_are_unique_and_deleted_only_when_empty(sm, group):
    code, message = refusal(sm.create_model_package_group, ModelPackageGroupName=group)
    assert (code, message.split(":")[0]) == ("ValidationException", "Model Package Group already exists")
    arn = sm.create_model_package(**package(group))["ModelPackageArn"]
    assert refusal(sm.delete_model_package_group, ModelPackageGroupName=group)[0] == "ConflictException"
    sm.delete_model_package(ModelPackageName=arn)
    sm.delete_model_package_group(ModelPackageGroupName=group)
    code, message = refusal(sm.describe_model_package_group, ModelPackageGroupName=group)
    assert code == "ValidationException"
    assert message.endswith("does not exist.")


def test_registry_refusals(sm, unique):
    assert "does not exist" in refusal(sm.create_model_package, **package(unique))[1]
    both = package(unique, ModelPackageName="x")
    assert "Exactly one of" in refusal(sm.create_model_package, **both)[1]
    assert "does not exist" in refusal(sm.describe_model_package, ModelPackageName="nothing")[1]


def test_models_are_created_described_listed_and_deleted(sm, role, unique):
    container = {"Image": TOY_IMAGE, "ModelDataUrl": "s3://b/model.tar.gz", "Environment": {"A": "1"}}
    arn = sm.create_model(ModelName=unique, ExecutionRoleArn=role, PrimaryContainer=container)["ModelArn"]
    model = sm.describe_model(ModelName=unique)
    assert model["PrimaryContainer"] == {"Mode": "SingleModel", **container}
    assert (model["ModelArn"], model["ExecutionRoleArn"], model["EnableNetworkIsolation"]) == (arn, role, False)
    assert [m["ModelName"] for m in sm.list_models(NameContains=unique)["Models"]] == [unique]
    duplicate = refusal(sm.create_model, ModelName=unique, PrimaryContainer=container)
    assert duplicate == ("ValidationException", f'Cannot create already existing model "{arn}".')
    sm.delete_model(ModelName=unique)
    assert refusal(sm.describe_model, ModelName=unique) == ("ValidationException", f'Could not find model "{arn}".')
    assert refusal(sm.delete_model, ModelName=unique)[1] == f'Could not find model "{arn}".'


def test_tags_of_anything_with_an_arn(sm, group, unique):
    arn = sm.describe_model_package_group(ModelPackageGroupName=group)["ModelPackageGroupArn"]
    sm.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}, {"Key": "cost", "Value": "1"}])
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "cost", "Value": "1"}, {"Key": "team", "Value": "b"}]
    pages = sm.get_paginator("list_tags").paginate(ResourceArn=arn, PaginationConfig={"PageSize": 50})
    assert sum(len(page["Tags"]) for page in pages) == 2
    sm.delete_tags(ResourceArn=arn, TagKeys=["cost", "never-there"])
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "b"}]
    code, message = refusal(sm.list_tags, ResourceArn=arn + "x")
    assert (code, message) == ("ValidationException", f"Could not find resource {arn}x.")


def test_list_pages_filters_and_sorts(sm, role, unique):
    names = [f"{unique}-{number}" for number in range(7)]
    for name in names:
        sm.create_model(ModelName=name, PrimaryContainer={"Image": TOY_IMAGE}, ExecutionRoleArn=role)
    pages = list(
        sm.get_paginator("list_models").paginate(
            NameContains=unique, SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 3}
        )
    )
    assert [len(page["Models"]) for page in pages] == [3, 3, 1]
    assert [m["ModelName"] for page in pages for m in page["Models"]] == names
    newest = sm.list_models(NameContains=unique, MaxResults=1)
    assert newest["Models"][0]["ModelName"] == names[-1]
    middle = sm.describe_model(ModelName=names[3])["CreationTime"]
    later = sm.list_models(NameContains=unique, CreationTimeAfter=middle)["Models"]
    # A client sends the moment rounded, so the model of that very moment may be among them.
    assert set(names[4:]) <= {m["ModelName"] for m in later} <= set(names[3:])
    code, message = refusal(sm.list_models, NextToken=newest["NextToken"], NameContains="other")
    assert (code, message.split(":")[0]) == ("ValidationException", "Invalid NextToken")
    assert refusal(sm.list_models, NextToken="garbage")[1] == "Invalid NextToken."


def test_an_operation_that_is_not_implemented_says_so(sm):
    code, message = refusal(sm.list_hubs)
    assert code == "UnsupportedOperation"
    assert message.startswith("sagemaker_local does not implement ListHubs.")
