"""Where the project lives: the Airflow connection, and the outputs of the CloudFormation stack behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scones.settings import Settings

# The Airflow connection that says which AWS, or which platform, all of the project talks to.
AWS_CONN_ID = "aws_default"

REQUIRED_OUTPUTS = (
    "BucketName",
    "StateMachineArn",
    "SageMakerRoleArn",
    "AlertTopicArn",
    "EndpointName",
)


class ResourcesNotDeployedError(RuntimeError):
    """The CloudFormation stack is absent, unfinished, or lacks an output the DAGs need."""


def client(service: str, aws_conn_id: str | None = AWS_CONN_ID) -> Any:
    """Return a boto3 client of a service, through the Airflow connection."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    return AwsBaseHook(aws_conn_id=aws_conn_id, client_type=service).conn


def parse_outputs(stack: dict[str, Any]) -> dict[str, str]:
    """Turn one stack of ``DescribeStacks`` into ``{output key: value}``.

    Raises:
        ResourcesNotDeployedError: the stack is not complete, or a required output is missing.
    """
    name, status = stack["StackName"], stack["StackStatus"]
    if not status.endswith("_COMPLETE") or status.startswith(("DELETE", "ROLLBACK")):
        raise ResourcesNotDeployedError(
            f"Stack {name!r} is {status}. Run `make deploy` against the same account and region, and read its events."
        )
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}
    missing = [key for key in REQUIRED_OUTPUTS if key not in outputs]
    if missing:
        raise ResourcesNotDeployedError(
            f"Stack {name!r} lacks the outputs {', '.join(missing)}: its template is older. Run `make deploy`."
        )
    return outputs


def vpc_config(stack: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Return the network in which jobs and models run, to be merged into SageMaker's requests; empty for none.

    Args:
        stack: the outputs of the stack; SubnetIds and SecurityGroupIds are texts with commas.
    """
    if not stack.get("SubnetIds"):
        return {}
    groups = stack.get("SecurityGroupIds", "").split(",")
    return {"VpcConfig": {"Subnets": stack["SubnetIds"].split(","), "SecurityGroupIds": groups}}


def stack_outputs(aws_conn_id: str = AWS_CONN_ID) -> dict[str, str]:
    """Return the outputs of the project's stack, e.g. ``{"BucketName": ..., "StateMachineArn": ...}``.

    Raises:
        ResourcesNotDeployedError: the stack does not exist or is not complete.
    """
    from botocore.exceptions import ClientError

    name = Settings.from_environ().stack_name
    try:
        stacks = client("cloudformation", aws_conn_id).describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise ResourcesNotDeployedError(
            f"No CloudFormation stack named {name!r} where connection {aws_conn_id!r} points. Run `make deploy` there,"
            " or set SCONES_STACK_NAME to the stack you deployed."
        ) from error
    return parse_outputs(stacks[0])
