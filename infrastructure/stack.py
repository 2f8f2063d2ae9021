"""CloudFormation: change sets made, shown and executed, and stacks waited for."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.artifacts import DeploymentError

Echo = Callable[[str], None]

WAIT_SECONDS = 1800.0
_FIRST_POLL_SECONDS = 0.1
_LAST_POLL_SECONDS = 5.0
_NO_CHANGES = ("didn't contain changes", "no updates are to be performed")


@dataclass(frozen=True)
class ChangeSet:
    """One change set: its ARN and what it would do, as (action, logical id, resource type, replacement)."""

    arn: str
    stack_name: str
    kind: str
    changes: tuple[tuple[str, str, str, str], ...]


def describe(cloudformation: Any, stack_name: str) -> dict[str, Any] | None:
    """Return the stack's description, or None if there is no such stack."""
    try:
        stack: dict[str, Any] = cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] == "DELETE_COMPLETE" else stack


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    """Return a described stack's outputs by name."""
    return {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}


def wait(
    cloudformation: Any, stack_id: str, what: str, ended: Callable[[str], bool] | None = None
) -> dict[str, Any] | None:
    """Wait until a stack's operation has ended. Returns its description, or None when it is gone.

    Args:
        ended: tells by the stack's status whether the operation has ended; by default, when nothing is in progress.

    Raises:
        DeploymentError: the operation failed, with the resources' reasons; or it did not end in WAIT_SECONDS.
    """
    ended = ended or (lambda status: not status.endswith("_IN_PROGRESS"))
    deadline, pause = time.monotonic() + WAIT_SECONDS, _FIRST_POLL_SECONDS
    while True:
        stack = describe(cloudformation, stack_id)
        status = stack["StackStatus"] if stack else "DELETE_COMPLETE"
        if ended(status):
            break
        if time.monotonic() > deadline:
            raise DeploymentError(f"{what}: still {status} after {WAIT_SECONDS:.0f} s; look at the stack's events")
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_POLL_SECONDS)
    if "FAILED" in status or "ROLLBACK" in status:
        reasons = "\n".join(failure_reasons(cloudformation, stack_id)) or "no reason is given in the stack's events"
        raise DeploymentError(f"{what} ended as {status}:\n{reasons}")
    return stack


def delete(cloudformation: Any, stack: dict[str, Any]) -> None:
    """Delete a described stack and wait until it is gone.

    Raises:
        DeploymentError: it could not be deleted.
    """
    cloudformation.delete_stack(StackName=stack["StackName"])
    wait(
        cloudformation,
        stack["StackId"],
        f"Deletion of stack {stack['StackName']!r}",
        # The status before the deletion may still be read for a moment.
        lambda status: status in {"DELETE_COMPLETE", "DELETE_FAILED"},
    )


def failure_reasons(cloudformation: Any, stack_id: str) -> list[str]:
    """Return why resources failed in the stack's last operation, the first failure first."""
    reasons: list[str] = []
    for page in cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id):
        for event in page["StackEvents"]:
            status, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
            if status.endswith("_FAILED"):
                reasons.append(f"  {event['LogicalResourceId']} ({event['ResourceType']}) {status}: {reason}")
            starts = status in {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "IMPORT_IN_PROGRESS"}
            if starts and event["ResourceType"] == "AWS::CloudFormation::Stack":
                return reasons[::-1]
    return reasons[::-1]


def make_change_set(cloudformation: Any, stack_name: str, kind: str, **request: Any) -> ChangeSet | None:
    """Make a change set and wait for it. Returns None when there is nothing to change.

    Args:
        kind: CREATE, UPDATE or IMPORT.
        request: further arguments of CreateChangeSet.

    Raises:
        DeploymentError: CloudFormation refuses the template or its parameters.
    """
    name = f"deploy-{uuid.uuid4().hex[:12]}"
    try:
        arn = cloudformation.create_change_set(
            StackName=stack_name, ChangeSetName=name, ChangeSetType=kind, Capabilities=["CAPABILITY_IAM"], **request
        )["Id"]
    except ClientError as error:
        if any(text in str(error).lower() for text in _NO_CHANGES):
            return None
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise DeploymentError(f"CloudFormation refuses the template of {stack_name!r}: {error}") from error
    deadline, pause = time.monotonic() + WAIT_SECONDS, _FIRST_POLL_SECONDS
    while True:
        answer = cloudformation.describe_change_set(ChangeSetName=arn)
        if answer["Status"] not in {"CREATE_PENDING", "CREATE_IN_PROGRESS"}:
            break
        if time.monotonic() > deadline:
            raise DeploymentError(f"The change set {name} of {stack_name!r} is still {answer['Status']}")
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_POLL_SECONDS)
    if answer["Status"] == "FAILED":
        reason = answer.get("StatusReason", "")
        cloudformation.delete_change_set(ChangeSetName=arn)
        if any(text in reason.lower() for text in _NO_CHANGES):
            return None
        raise DeploymentError(f"CloudFormation cannot make this change to {stack_name!r}: {reason}")
    return ChangeSet(arn, stack_name, kind, tuple(_changes(cloudformation, arn)))


def _changes(cloudformation: Any, arn: str) -> list[tuple[str, str, str, str]]:
    pages = cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=arn)
    changes = (item["ResourceChange"] for page in pages for item in page.get("Changes", []))
    return [
        (one["Action"], one["LogicalResourceId"], one["ResourceType"], one.get("Replacement", "False"))
        for one in changes
    ]


def show(change_set: ChangeSet | None, stack_name: str, echo: Echo) -> None:
    """Print what a change set would do."""
    if change_set is None:
        echo(f"Stack {stack_name}: nothing to change.")
        return
    echo(f"Stack {stack_name}: {len(change_set.changes)} changes ({change_set.kind.lower()}).")
    for action, logical_id, resource_type, replacement in change_set.changes:
        note = "" if replacement == "False" else f"  replacement: {replacement.lower()}"
        echo(f"  {action:<7}{logical_id:<26}{resource_type}{note}")


def execute(cloudformation: Any, change_set: ChangeSet) -> dict[str, Any]:
    """Execute a change set and wait for the stack. Returns the stack's description."""
    cloudformation.execute_change_set(ChangeSetName=change_set.arn)
    what = f"{change_set.kind.capitalize()} of stack {change_set.stack_name!r}"
    stack = wait(
        cloudformation,
        change_set.stack_name,
        what,
        # The status before the change may still be read for a moment.
        lambda status: not status.endswith("_IN_PROGRESS") and _executed(cloudformation, change_set.arn),
    )
    if stack is None:
        raise DeploymentError(f"{what}: the stack was deleted meanwhile")
    return stack


def _executed(cloudformation: Any, arn: str) -> bool:
    try:
        status = cloudformation.describe_change_set(ChangeSetName=arn)["ExecutionStatus"]
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ChangeSetNotFound", "ChangeSetNotFoundException"}:
            return True
        raise
    return status in {"EXECUTE_COMPLETE", "EXECUTE_FAILED", "OBSOLETE"}


def adopt_bucket(cloudformation: Any, stack_name: str, logical_id: str, bucket: str) -> None:
    """Make a new stack of a bucket that exists; the next update brings the rest, the bucket's settings and the tags.

    A bucket outlives its stack, after `destroy` and after an emulator lost everything but its objects.
    """
    template = {
        "Resources": {
            logical_id: {
                "Type": "AWS::S3::Bucket",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {"BucketName": bucket},
            }
        }
    }
    change_set = make_change_set(
        cloudformation,
        stack_name,
        "IMPORT",
        TemplateBody=json.dumps(template),
        ResourcesToImport=[
            {
                "ResourceType": "AWS::S3::Bucket",
                "LogicalResourceId": logical_id,
                "ResourceIdentifier": {"BucketName": bucket},
            }
        ],
    )
    if change_set is not None:
        execute(cloudformation, change_set)
