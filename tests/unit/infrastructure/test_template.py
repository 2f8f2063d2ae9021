"""The CloudFormation template: valid, private, least privilege."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from infrastructure.artifacts import FUNCTIONS, ROOT, definitions
from infrastructure.deploy import template_body
from tests.support import template
from tests.support.template import DOCUMENT, RESOURCES, TEMPLATE, as_list

# Actions that have no resource to name, by AWS's service authorization reference.
WITHOUT_RESOURCE = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
    "ecr:GetAuthorizationToken",
    "cloudwatch:PutMetricData",
    "cloudwatch:GetMetricData",
    "cloudwatch:GetMetricStatistics",
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListEndpoints",
    "sagemaker:ListModelPackages",
    "sagemaker:ListModels",
    "sagemaker:ListTrainingJobs",
    "sagemaker:Search",
    "application-autoscaling:DescribeScalableTargets",
    # network interfaces of Lambda and SageMaker in a VPC: no names beforehand
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
}

# What says whether something is in use, and whose it is: anybody's endpoint may serve a model of ours.
ABOUT_ANYBODYS = {
    "sagemaker:DescribeEndpoint",
    "sagemaker:DescribeEndpointConfig",
    "sagemaker:DescribeModel",
    "sagemaker:DescribeTrainingJob",
    "sagemaker:ListTags",
    "cloudwatch:DescribeAlarms",
}


def all_statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy statement of the template."""
    for name in RESOURCES:
        for statement in template.statements(name):
            yield name, statement


@pytest.mark.parametrize("path", [TEMPLATE, ROOT / "infrastructure" / "mwaa" / "template.yaml"], ids=["ours", "mwaa"])
def test_cfn_lint_finds_nothing(path: Path) -> None:
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    matches = lint(path.read_text(), config=ManualArgs(regions=["us-east-1"]))
    assert [str(match) for match in matches] == []


def test_it_can_be_given_to_cloudformation_as_it_is() -> None:
    text = TEMPLATE.read_text()
    assert len(template_body().encode()) <= 51_200, "larger templates must be uploaded first"
    assert not re.search(r"^[^#]*[:-] [&*][A-Za-z]", text, re.M), "CloudFormation refuses YAML anchors and aliases"
    assert "Transform" not in DOCUMENT


def test_no_allowed_action_is_a_wildcard() -> None:
    for name, statement in all_statements():
        if statement["Effect"] == "Allow":
            for action in as_list(statement["Action"]):
                assert re.fullmatch(r"[a-z0-9-]+:[A-Za-z]+", action), f"{name}: {action}"


def test_only_actions_without_a_resource_name_and_descriptions_are_allowed_on_all() -> None:
    for name, statement in all_statements():
        if statement["Effect"] == "Allow" and "*" in as_list(statement["Resource"]):
            assert set(as_list(statement["Action"])) <= WITHOUT_RESOURCE | ABOUT_ANYBODYS, name
    metrics = [item for _, item in all_statements() if "cloudwatch:PutMetricData" in as_list(item["Action"])]
    assert metrics
    assert all("cloudwatch:namespace" in json.dumps(item["Condition"]) for item in metrics)


def test_roles_may_be_passed_to_sagemaker_only() -> None:
    passing = [item for _, item in all_statements() if "iam:PassRole" in as_list(item["Action"])]
    assert [item["Resource"] for item in passing] == [{"!GetAtt": "SageMakerRole.Arn"}]
    assert passing[0]["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_a_role_is_assumed_by_one_service_and_not_across_accounts() -> None:
    for name, resource in RESOURCES.items():
        if resource["Type"] != "AWS::IAM::Role":
            continue
        (statement,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert list(statement["Principal"]) == ["Service"], name
        if statement["Principal"]["Service"] != "lambda.amazonaws.com":
            assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"!Ref": "AWS::AccountId"}}}


def test_the_bucket_is_private_encrypted_versioned_and_outlives_the_stack() -> None:
    bucket = RESOURCES["DataBucket"]
    properties = bucket["Properties"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert {rule["Status"] for rule in properties["LifecycleConfiguration"]["Rules"]} == {"Enabled"}
    (tls,) = RESOURCES["DataBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert tls["Effect"] == "Deny"
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_every_function_is_traced_limited_and_logs_for_a_while() -> None:
    functions = {
        name: item["Properties"] for name, item in RESOURCES.items() if item["Type"] == "AWS::Lambda::Function"
    }
    assert len(functions) == len(FUNCTIONS)
    for name, properties in functions.items():
        assert properties["TracingConfig"] == {"Mode": "Active"}, name
        group = RESOURCES[properties["LoggingConfig"]["LogGroup"]["!Ref"]]
        assert group["Properties"]["RetentionInDays"] == {"!Ref": "LogRetentionDays"}
        assert "ReservedConcurrency" in json.dumps(properties["ReservedConcurrentExecutions"])
        function = FUNCTIONS[properties["Code"]["S3Key"]["!Ref"]]
        assert properties["Handler"] == f"lambdas.{function}.handler.handler"
        assert (ROOT / "lambdas" / function / "handler.py").exists()


def test_every_state_machine_logs_is_traced_and_fills_every_placeholder() -> None:
    machines = [item["Properties"] for item in RESOURCES.values() if item["Type"] == "AWS::StepFunctions::StateMachine"]
    assert sorted(item["StateMachineType"] for item in machines) == ["EXPRESS", "STANDARD", "STANDARD"]
    for properties in machines:
        assert properties["TracingConfiguration"] == {"Enabled": True}
        assert properties["LoggingConfiguration"]["Destinations"]
        _, text = definitions()[properties["DefinitionS3Location"]["Key"]["!Ref"]]
        assert set(re.findall(r"\$\{(\w+)\}", text)) == set(properties["DefinitionSubstitutions"])


def test_airflow_may_call_what_the_code_names() -> None:
    names = {"sagemaker": "sagemaker", "stepfunctions": "states", "sqs": "sqs"}
    names |= {"application-autoscaling": "application-autoscaling"}
    code = "\n".join(path.read_text() for path in (ROOT / "plugins" / "scones").rglob("*.py"))
    words = set(re.findall(r"[.\"'](\w+)", code))
    session = botocore.session.get_session()
    named = {
        f"{prefix}:{operation}"
        for service, prefix in names.items()
        for operation in session.get_service_model(service).operation_names
        if xform_name(operation) in words
    }
    assert {"sagemaker:CreateTrainingJob", "states:StartExecution"} <= named
    allowed = {
        action for name, item in all_statements() if name == "AirflowPolicy" for action in as_list(item["Action"])
    }
    # IAM knows no calls of ten at once: they need the right of the single one.
    assert {action.removesuffix("Batch") for action in named} <= allowed


@pytest.mark.parametrize(
    ("machine", "role"),
    [
        ("Workflow", "WorkflowRole"),
        ("ExpressWorkflow", "WorkflowRole"),
        ("DistributedMapWorkflow", "DistributedMapRole"),
    ],
)
def test_a_workflow_may_call_the_functions_it_calls_and_no_others(machine: str, role: str) -> None:
    properties = RESOURCES[machine]["Properties"]
    assert properties["RoleArn"] == {"!GetAtt": f"{role}.Arn"}
    (called,) = [
        item for name, item in all_statements() if name == role and "lambda:InvokeFunction" in as_list(item["Action"])
    ]
    assert called["Action"] == "lambda:InvokeFunction"
    given = list(properties["DefinitionSubstitutions"].values())
    assert sorted(map(str, called["Resource"])) == sorted(map(str, given))


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_the_managed_policies_fit_their_limit_with_the_longest_names(partition: str) -> None:
    key = f"arn:{partition}:kms:ap-southeast-2:{'0' * 12}:key/{'0' * 36}"
    longest = {"ProjectName": "x" * 20, "EndpointName": "x" * 53, "KmsKeyArn": key}
    stack = template.Stack(partition, "ap-southeast-2", given=longest)
    policies = [name for name, item in RESOURCES.items() if item["Type"] == "AWS::IAM::ManagedPolicy"]
    assert "AirflowPolicy" in policies
    for name in policies:
        document = {"Version": "2012-10-17", "Statement": stack.policy(name)}
        assert len(json.dumps(document, separators=(",", ":"))) <= 6144, name


def test_what_a_company_asks_for_reaches_every_resource_it_concerns() -> None:
    concerned = {
        "KmsKeyArn": {
            "AWS::S3::Bucket": "BucketEncryption",
            "AWS::Logs::LogGroup": "KmsKeyId",
            "AWS::SNS::Topic": "KmsMasterKeyId",
            "AWS::SQS::Queue": "KmsMasterKeyId",
        },
        "SubnetIds": {"AWS::Lambda::Function": "VpcConfig"},
        "SecurityGroupIds": {"AWS::Lambda::Function": "VpcConfig"},
        "PermissionsBoundaryArn": {"AWS::IAM::Role": "PermissionsBoundary"},
        "AccessLogBucket": {"AWS::S3::Bucket": "LoggingConfiguration"},
    }
    for parameter, by_type in concerned.items():
        for name, resource in RESOURCES.items():
            if resource["Type"] in by_type:
                value = json.dumps(resource["Properties"][by_type[resource["Type"]]])
                assert f'{{"!Ref": "{parameter}"}}' in value, (name, parameter)
    with_settings = [item["Properties"] for item in RESOURCES.values() if "Environment" in item["Properties"]]
    assert with_settings
    assert all("KmsKeyArn" in json.dumps(properties["KmsKeyArn"]) for properties in with_settings)


@pytest.mark.parametrize("role", [name for name, item in RESOURCES.items() if item["Type"] == "AWS::IAM::Role"])
def test_a_role_may_use_the_key_and_the_network_only_where_there_are_some(role: str) -> None:
    attached = [reference["!Ref"] for reference in RESOURCES[role]["Properties"].get("ManagedPolicyArns", [])]
    everything = {
        a for name in [role, *attached] for item in template.statements(name) for a in as_list(item["Action"])
    }
    always = {a for item in template.unconditional(role) for a in as_list(item["Action"])}
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= everything
    runs_in_a_network = role not in {"WorkflowRole", "DistributedMapRole"}
    assert ("ec2:CreateNetworkInterface" in everything) == runs_in_a_network
    assert not any(action.startswith(("kms:", "ec2:")) for action in always)


def test_a_budget_tells_the_alert_address_and_needs_one() -> None:
    assert RESOURCES["Budget"]["Condition"] == "HasBudget"
    assert "HasAlertEmail" in json.dumps(DOCUMENT["Conditions"]["HasBudget"])
    told = RESOURCES["Budget"]["Properties"]["NotificationsWithSubscribers"]
    assert [item["Subscribers"][0]["Address"] for item in told] == [{"!Ref": "AlertEmail"}] * 2


def test_what_a_parameter_changes_by_making_it_anew_has_no_name_of_its_own() -> None:
    """CloudFormation makes the new one first: two cannot have the same name."""
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

    found = set()
    for name, resource in RESOURCES.items():
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", resource["Type"]).schema
        fixed = [path.removeprefix("/properties/").split("/") for path in schema.get("createOnlyProperties", [])]
        set_here = {path[-1]: value for path in fixed if (value := value_at(resource["Properties"], path)) is not None}
        varies = {
            key
            for key, value in set_here.items()
            if set(re.findall(r'"!Ref": "(\w+)"', json.dumps(value))) & set(DOCUMENT["Parameters"]) - {"ProjectName"}
        }
        found |= {(name, key) for key in varies}
        assert not varies or not [key for key in set_here if key.endswith("Name")], (name, varies)
    assert ("Budget", "NotificationsWithSubscribers") in found


def value_at(properties: Any, path: list[str]) -> Any:
    """A nested property, None where it is not set."""
    for key in path:
        properties = properties.get(key) if isinstance(properties, dict) else None
    return properties


def test_eventbridge_may_publish_alerts_without_a_condition_and_cloudwatch_for_this_account() -> None:
    """Of EventBridge SNS looks at no condition: a statement that has one lets nothing through."""
    allowed = [item for item in template.statements("AlertTopicPolicy") if item["Effect"] == "Allow"]
    conditions = {item["Principal"]["Service"]: item.get("Condition") for item in allowed}
    own = {"StringEquals": {"aws:SourceAccount": {"!Ref": "AWS::AccountId"}}}
    assert conditions == {"events.amazonaws.com": None, "cloudwatch.amazonaws.com": own}


def test_an_event_that_is_not_delivered_is_kept_and_told() -> None:
    rules = [item["Properties"] for item in RESOURCES.values() if item["Type"] == "AWS::Events::Rule"]
    assert rules
    for rule in rules:
        for target in rule["Targets"]:
            assert target["DeadLetterConfig"] == {"Arn": {"!GetAtt": "UndeliveredEvents.Arn"}}
    queue = RESOURCES["UndeliveredEventsAlarm"]["Properties"]["Dimensions"][0]["Value"]
    assert queue == {"!GetAtt": "UndeliveredEvents.QueueName"}


def test_only_the_rule_may_fill_the_queue_of_arrivals_and_it_sees_the_prefix_alone() -> None:
    (statement,) = template.statements("ArrivalsPolicy")
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"!GetAtt": "ArrivalsRule.Arn"}}}
    detail = RESOURCES["ArrivalsRule"]["Properties"]["EventPattern"]["detail"]
    assert detail == {
        "bucket": {"name": [{"!Ref": "DataBucket"}]},
        "object": {"key": [{"prefix": {"!Ref": "ArrivalsPrefix"}}]},
    }
    redrive = RESOURCES["Arrivals"]["Properties"]["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"!GetAtt": "UndeliveredEvents.Arn"}


def test_a_rejection_alerts_nobody() -> None:
    pattern = RESOURCES["FailedExecutionsRule"]["Properties"]["EventPattern"]["detail"]
    assert pattern["status"] == ["FAILED"]
    assert pattern["error"] == [{"anything-but": ["THRESHOLD_CONFIDENCE_NOT_MET"]}]
    stopped = RESOURCES["StoppedExecutionsRule"]["Properties"]["EventPattern"]["detail"]
    assert stopped["status"] == ["TIMED_OUT", "ABORTED"]


def test_everything_is_described_and_every_parameter_used() -> None:
    text = TEMPLATE.read_text().split("\nResources:")[1]
    for name, parameter in DOCUMENT["Parameters"].items():
        assert parameter["Description"], name
        assert re.search(rf"!Ref {name}\b|\$\{{{name}\}}|, {name}\b", text) or name in json.dumps(
            DOCUMENT["Conditions"]
        ), f"{name} is not used"
    assert all(output["Description"] for output in DOCUMENT["Outputs"].values())
    labelled = [
        name
        for group in DOCUMENT["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    ]
    assert sorted(labelled) == sorted(DOCUMENT["Parameters"])


RELIED_ON = """
    BucketName StateMachineArn DistributedMapStateMachineArn ExpressStateMachineArn SageMakerRoleArn AlertTopicArn
    EndpointName SerializeFunctionName ClassifyFunctionName FilterFunctionName AirflowPolicyArn
    Endpoint5xxAlarmName EndpointLatencyAlarmName WorkflowFailuresAlarmName ArrivalsPrefix ArrivalsQueueUrl
"""


@pytest.mark.parametrize("output", RELIED_ON.split())
def test_the_outputs_others_rely_on_are_there(output: str) -> None:
    assert output in DOCUMENT["Outputs"]


def test_no_account_number_is_written_down() -> None:
    for path in [TEMPLATE, ROOT / "stepfunction.json", *Path(ROOT / "infrastructure").glob("*.py")]:
        assert not re.search(r"\b\d{12}\b", path.read_text()), path
