"""The deploy code against a real CloudFormation API: made, made again, changed, broken, destroyed, adopted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from embedded import environment, services
from embedded.container import LOCAL_PARAMETERS
from embedded.processes import stop_all
from embedded.settings import EmbeddedSettings, free_port
from infrastructure import artifacts as artifacts_module
from infrastructure import deploy as deploy_module
from infrastructure import stack as stacks
from infrastructure.artifacts import ROOT, DeploymentError
from infrastructure.deploy import THRESHOLD_KEY, Deployment


@pytest.fixture(scope="module")
def session(ministack: str, aws: Callable[..., Any]) -> Any:
    """What a deployment needs of a boto3 session, pointing at the test platform."""
    return SimpleNamespace(region_name="us-east-1", client=aws)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The regions whose training image the SageMaker SDK was asked for, here a stand-in that answers at once."""
    regions: list[str] = []

    def training_image(region: str) -> str:
        regions.append(region)
        return f"of-{region}/image-classification:1"

    monkeypatch.setattr(deploy_module, "training_image", training_image)
    return regions


RUNTIME = {"FunctionRuntime": LOCAL_PARAMETERS["FunctionRuntime"]}


class DeploymentHere(Deployment):
    """A deployment whose functions ask for the Python that certainly is on this machine."""

    def deploy(self, parameters: Mapping[str, str] | None = None) -> dict[str, str]:
        return super().deploy({**RUNTIME, **(parameters or {})})

    def plan(self, parameters: Mapping[str, str] | None = None) -> Any:
        return super().plan({**RUNTIME, **(parameters or {})})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def deployment(session: Any, said: list[str], request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment of its own; everything of it is gone afterwards."""
    name = f"t{zlib.crc32(request.node.name.encode()):08x}"
    made = DeploymentHere(session, name, said.append)
    yield made
    Deployment(session, name).destroy(delete_data=True, leave_endpoint=True)


def read(deployment: Deployment, key: str) -> bytes:
    content: bytes = deployment.s3.get_object(Bucket=deployment.data_bucket, Key=key)["Body"].read()
    return content


def test_a_new_stack_is_planned_made_and_then_left_alone(deployment: Deployment, said: list[str]) -> None:
    planned = deployment.plan()
    assert planned is not None
    assert ("Add", "Workflow", "AWS::StepFunctions::StateMachine", "False") in planned.changes
    assert stacks.describe(deployment.cloudformation, deployment.stack_name) is None, "a plan leaves nothing behind"
    assert any("AWS::S3::Bucket" in line for line in said)

    outputs = deployment.deploy()
    assert outputs["BucketName"] == deployment.data_bucket
    threshold = json.loads(read(deployment, THRESHOLD_KEY))
    assert (threshold["threshold"], threshold["version"]) == (0.93, 1)

    said.clear()
    assert deployment.deploy() == outputs
    assert said == [f"Stack {deployment.stack_name}: nothing to change."]
    assert deployment.plan() is None


def test_what_the_template_promises_is_there(deployment: Deployment, session: Any) -> None:
    outputs = deployment.deploy()
    s3, bucket = deployment.s3, deployment.data_bucket
    for name in (bucket, deployment.artifacts_bucket):
        assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
        assert set(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
        assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=name)["Policy"]
    for name in ("SerializeFunctionName", "ClassifyFunctionName", "FilterFunctionName", "RecordFunctionName"):
        config = session.client("lambda").get_function_configuration(FunctionName=outputs[name])
        assert config["TracingConfig"]["Mode"] == "Active"
        assert config["LoggingConfig"]["LogGroup"] == f"/aws/lambda/{outputs[name]}"
    groups = session.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{deployment.stack_name}-")
    assert {group["retentionInDays"] for group in groups["logGroups"]} == {30}
    definition = session.client("stepfunctions").describe_state_machine(stateMachineArn=outputs["StateMachineArn"])
    assert "${" not in definition["definition"]
    answer = session.client("stepfunctions").validate_state_machine_definition(definition=definition["definition"])
    assert answer["result"] == "OK"
    alarms = session.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{deployment.stack_name}-")["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in alarms} == {value for key, value in outputs.items() if "AlarmName" in key}
    rules = session.client("events").list_rules(NamePrefix=f"{deployment.stack_name}-")["Rules"]
    assert len(rules) == 3, "of arrivals, and of executions that failed or were stopped"


def test_a_parameter_is_changed_and_kept(deployment: Deployment, said: list[str]) -> None:
    deployment.deploy({"EndpointName": "other-endpoint"})
    assert deployment.deploy()["EndpointName"] == "other-endpoint"
    assert said[-1].endswith("nothing to change.")
    assert deployment.deploy({"EndpointName": "third"})["EndpointName"] == "third"


def test_the_sdk_is_asked_for_the_training_image_once(deployment: Deployment, asked: list[str]) -> None:
    assert deployment.deploy()["TrainingImage"] == "of-us-east-1/image-classification:1"
    assert deployment.deploy({"TrainingImage": "mine/classification:7"})["TrainingImage"] == "mine/classification:7"
    assert deployment.deploy()["TrainingImage"] == "mine/classification:7"
    assert asked == ["us-east-1"]


def test_what_a_company_asks_for_is_deployed_and_taken_back(deployment: Deployment, session: Any) -> None:
    key = session.client("kms").create_key()["KeyMetadata"]["Arn"]
    company = {
        "KmsKeyArn": key,
        "SubnetIds": "subnet-1,subnet-2",
        "SecurityGroupIds": "sg-1",
        "PermissionsBoundaryArn": "arn:aws:iam::aws:policy/PowerUserAccess",
    }
    outputs = deployment.deploy(company)
    assert (outputs["SubnetIds"], outputs["SecurityGroupIds"]) == ("subnet-1,subnet-2", "sg-1")
    iam, role = session.client("iam"), outputs["SageMakerRoleArn"].rpartition("/")[2]
    policy = iam.get_role_policy(RoleName=role, PolicyName="sagemaker")["PolicyDocument"]
    assert {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key} in policy["Statement"]
    deployment.deploy(dict.fromkeys(company, ""))
    policy = iam.get_role_policy(RoleName=role, PolicyName="sagemaker")["PolicyDocument"]
    assert "kms:" not in json.dumps(policy)


def test_tags_are_kept_and_added(session: Any, deployment: Deployment) -> None:
    def tags(**given: str) -> dict[str, str]:
        Deployment(session, deployment.stack_name, tags=given).deploy(RUNTIME)
        stack = stacks.describe(deployment.cloudformation, deployment.stack_name)
        assert stack is not None
        return {item["Key"]: item["Value"] for item in stack["Tags"]}

    always = {"project": deployment.stack_name, "managed-by": "cloudformation"}
    assert tags(owner="vision") == {**always, "owner": "vision"}
    assert tags(cost="42") == {**always, "owner": "vision", "cost": "42"}


def test_changed_code_is_deployed(
    deployment: Deployment, session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = deployment.deploy()["SerializeFunctionName"]
    before = session.client("lambda").get_function_configuration(FunctionName=name)["CodeSha256"]
    shutil.copytree(ROOT / "lambdas", tmp_path / "lambdas")
    shutil.copy(ROOT / "stepfunction.json", tmp_path)
    with (tmp_path / "lambdas" / "serialize_image" / "core.py").open("a") as source:
        source.write("\n# changed\n")
    monkeypatch.setattr(artifacts_module, "ROOT", tmp_path)
    planned = deployment.plan()
    assert planned is not None
    # What refers to the function is listed too, as its ARN might have changed.
    assert ("Modify", "SerializeFunction") in {change[:2] for change in planned.changes}
    assert {change[0] for change in planned.changes} == {"Modify"}
    assert "DataBucket" not in {change[1] for change in planned.changes}
    deployment.deploy()
    assert session.client("lambda").get_function_configuration(FunctionName=name)["CodeSha256"] != before


def test_the_data_outlives_the_stack_and_is_adopted_by_the_next(deployment: Deployment, said: list[str]) -> None:
    deployment.deploy()
    deployment.s3.put_object(Bucket=deployment.data_bucket, Key="photos/a.png", Body=b"kept")
    own = b'{"threshold": 0.8, "version": 7}'
    deployment.s3.put_object(Bucket=deployment.data_bucket, Key=THRESHOLD_KEY, Body=own)
    deployment.destroy(leave_endpoint=True)
    assert said[-1].startswith(f"Kept the bucket {deployment.data_bucket}")
    assert stacks.describe(deployment.cloudformation, deployment.stack_name) is None

    sent = []
    deployment.cloudformation.meta.events.register(
        "provide-client-params.cloudformation.CreateChangeSet", lambda params, **_: sent.append(params["TemplateBody"])
    )
    planned = deployment.plan()
    assert planned is not None
    assert "DataBucket" not in {change[1] for change in planned.changes}
    assert any("would be adopted" in line for line in said)
    # AWS plans no new bucket with the name of one that is there.
    assert [" BucketName: !Sub" in body for body in sent] == [False]
    assert stacks.describe(deployment.cloudformation, deployment.stack_name) is None
    assert deployment.deploy()["BucketName"] == deployment.data_bucket
    assert f"Adopting the existing bucket {deployment.data_bucket}." in said
    assert read(deployment, "photos/a.png") == b"kept"
    assert read(deployment, THRESHOLD_KEY) == own, "a threshold that was set is not overwritten"
    assert deployment.s3.get_bucket_versioning(Bucket=deployment.data_bucket)["Status"] == "Enabled"
    assert deployment.plan() is None


def test_destroying_with_the_data_leaves_nothing_and_may_be_repeated(deployment: Deployment) -> None:
    deployment.deploy()
    for body in (b"one", b"two"):
        deployment.s3.put_object(Bucket=deployment.data_bucket, Key="k", Body=body)
    deployment.s3.delete_object(Bucket=deployment.data_bucket, Key="k")
    for _ in range(2):
        deployment.destroy(delete_data=True, leave_endpoint=True)
        names = {bucket["Name"] for bucket in deployment.s3.list_buckets()["Buckets"]}
        assert not names & {deployment.data_bucket, deployment.artifacts_bucket}


def test_a_creation_that_fails_says_why_and_the_next_one_recovers(deployment: Deployment, said: list[str]) -> None:
    with pytest.raises(DeploymentError, match=r"Workflow \(AWS::StepFunctions::StateMachine\) CREATE_FAILED: ."):
        deployment.deploy({"WorkflowDefinitionKey": "definitions/none.json"})
    assert deployment.plan() is None
    assert said[-1].endswith("is ROLLBACK_COMPLETE: `deploy` deletes it, and makes all anew.")
    assert deployment.deploy()["BucketName"] == deployment.data_bucket
    assert f"Stack {deployment.stack_name} is ROLLBACK_COMPLETE: deleting it first." in said


def test_an_update_that_fails_says_why_and_leaves_what_was(
    deployment: Deployment, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = deployment.deploy()
    text = '{"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": {"Type": "Pass", "Output": "{% ( %}"}}}'
    broken = artifacts_module.definitions() | {"WorkflowDefinitionKey": ("broken", text)}
    with monkeypatch.context() as patched:
        patched.setattr(artifacts_module, "definitions", lambda: broken)
        with pytest.raises(DeploymentError, match="UPDATE_ROLLBACK_COMPLETE"):
            deployment.deploy()
    states = session.client("stepfunctions")
    assert "SerializeImage" in states.describe_state_machine(stateMachineArn=outputs["StateMachineArn"])["definition"]
    assert deployment.deploy() == outputs


@pytest.mark.parametrize("parameters", [{"NoSuchParameter": "x"}, {"LogRetentionDays": "2"}, {"EndpointName": "A b"}])
def test_a_parameter_that_cannot_be_is_refused_before_anything_is_made(
    deployment: Deployment, parameters: dict[str, str]
) -> None:
    with pytest.raises(DeploymentError, match=next(iter(parameters))):
        deployment.deploy(parameters)
    stack = stacks.describe(deployment.cloudformation, deployment.stack_name)
    assert stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS"


@pytest.mark.parametrize("name", ["", "A", "x", "ends-", "under_score", "x" * 21, "1st"])
def test_a_stack_name_that_cannot_name_resources_is_refused(session: Any, name: str) -> None:
    with pytest.raises(DeploymentError, match="2 to 20"):
        Deployment(session, name)


def answering(describe_endpoint: Callable[..., Any], session: Any) -> SimpleNamespace:
    """A session whose SageMaker answers DescribeEndpoint so."""

    def client(service: str, **options: Any) -> Any:
        if service == "sagemaker":
            return SimpleNamespace(describe_endpoint=describe_endpoint)
        return session.client(service, **options)

    return SimpleNamespace(region_name="us-east-1", client=client)


def refusal(code: str) -> Callable[..., Any]:
    def describe_endpoint(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "of a test"}}, "DescribeEndpoint")

    return describe_endpoint


def test_it_is_destroyed_once_the_endpoint_has_been_ended(deployment: Deployment, session: Any) -> None:
    deployment.deploy()
    blocked = [
        (lambda **_: {"EndpointStatus": "InService"}, "is InService and costs money.* end_production 'scones-courier'"),
        (refusal("AccessDeniedException"), "cannot be seen"),
    ]
    for describe_endpoint, reason in blocked:
        serving = Deployment(answering(describe_endpoint, session), deployment.stack_name)
        with pytest.raises(DeploymentError, match=reason):
            serving.destroy()
        assert stacks.describe(deployment.cloudformation, deployment.stack_name) is not None
    Deployment(answering(refusal("ValidationException"), session), deployment.stack_name).destroy()
    assert stacks.describe(deployment.cloudformation, deployment.stack_name) is None


def test_it_is_destroyed_once_nobody_has_airflows_policy(deployment: Deployment, session: Any) -> None:
    policy, iam = deployment.deploy()["AirflowPolicyArn"], session.client("iam")
    role = f"{deployment.stack_name}-workers"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}))
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    with pytest.raises(DeploymentError, match=f"still attached to role {role}: detach it"):
        deployment.destroy(leave_endpoint=True)
    assert stacks.describe(deployment.cloudformation, deployment.stack_name) is not None
    iam.detach_role_policy(RoleName=role, PolicyArn=policy)
    iam.delete_role(RoleName=role)
    deployment.destroy(leave_endpoint=True)
    assert stacks.describe(deployment.cloudformation, deployment.stack_name) is None


def test_the_command_line_plans_deploys_and_destroys(
    ministack: str, platform_settings: EmbeddedSettings, deployment: Deployment, sdk_python: str
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sdk_python, "-m", "infrastructure", *arguments, "--stack-name", deployment.stack_name]
        if arguments[0] in {"plan", "deploy"}:
            command += ["--parameter", f"FunctionRuntime={RUNTIME['FunctionRuntime']}"]
        return subprocess.run(
            command,
            env=environment.platform_environment(platform_settings) | {"PATH": os.environ["PATH"]},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    missing = run("outputs")
    assert missing.returncode == 1
    assert "deploy it first" in missing.stderr
    # Named, as the look-up of the region's image imports the SDK, which takes seconds; `deploy` does it.
    assert "Add    Workflow" in run("plan", "--parameter", "TrainingImage=registry/image:1").stdout
    made = run("deploy", "--parameter", "LogRetentionDays=7")
    assert made.returncode == 0, made.stderr
    outputs = json.loads(run("outputs").stdout)
    assert outputs["BucketName"] == deployment.data_bucket
    assert outputs["TrainingImage"].endswith(".dkr.ecr.us-east-1.amazonaws.com/image-classification:1")
    refused = run("deploy", "--parameter", "LogRetentionDays=2")
    assert refused.returncode == 1
    assert "LogRetentionDays" in refused.stderr
    gone = run("destroy", "--delete-data", "--leave-endpoint")
    assert gone.returncode == 0, gone.stderr
    assert "Deleted stack" in gone.stdout


def test_after_kill_9_the_stack_is_made_again_around_the_surviving_data(
    tmp_path: Path, platform_settings: EmbeddedSettings
) -> None:
    settings = replace(platform_settings, run_dir=tmp_path, aws_port=free_port())
    service = services.ministack(settings)
    own = boto3.Session("test", "test", region_name="us-east-1")

    def client(name: str) -> Any:
        return own.client(name, endpoint_url=settings.aws_url)

    session = SimpleNamespace(region_name="us-east-1", client=client)
    try:
        service.start()
        service.wait_ready()
        outputs = DeploymentHere(session, "again").deploy()
        session.client("s3").put_object(Bucket=outputs["BucketName"], Key="photos/a.png", Body=b"kept")
        assert service.process is not None
        service.process.kill()
        service.process.wait()
        service.start()
        service.wait_ready()
        after = DeploymentHere(session, "again").deploy()
        assert after == outputs
        kept = session.client("s3").get_object(Bucket=outputs["BucketName"], Key="photos/a.png")["Body"].read()
        assert kept == b"kept"
        answer = session.client("lambda").invoke(FunctionName=outputs["SerializeFunctionName"], Payload=b"{}")
        assert json.loads(answer["Payload"].read())["errorType"] == "MissingKeyError"
    finally:
        stop_all([service])
