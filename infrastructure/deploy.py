"""Deploys and destroys the project's stack, the same on an emulator and on AWS; safe to run at every start."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infrastructure import stack as stacks
from infrastructure.artifacts import (
    ROOT,
    DeploymentError,
    artifacts,
    bucket_exists,
    empty_bucket,
    ensure_bucket,
    upload,
)
from infrastructure.stack import Echo
from infrastructure.training_image import training_image

STACK_NAME = "scones"
TEMPLATE = ROOT / "infrastructure" / "template.yaml"
THRESHOLD_KEY = "config/threshold.json"
DEFAULT_THRESHOLD = 0.93

_STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,18}[a-z0-9]")
_BUCKET_NAME = re.compile(r"^ +BucketName: .*\n", re.MULTILINE)
_RETRY_AFTER_DELETE = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"}


def _quiet(line: str) -> None:
    """Say nothing."""


def template_body() -> str:
    """The template as it is sent: without its comments, as CloudFormation takes 51,200 bytes without an upload."""
    lines = TEMPLATE.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


class Deployment:
    """One stack in one account and region.

    Args:
        session: a boto3 session; its region is where the stack lives, and the environment's AWS_ENDPOINT_URL counts.
        stack_name: 2 to 20 lower-case letters, digits and hyphens; also the prefix of the resources' names.
        echo: gets each line of the account given of the deployment.
        tags: further tags of everything that can be tagged; those of an earlier deployment stay.
    """

    def __init__(
        self, session: Any, stack_name: str = STACK_NAME, echo: Echo = _quiet, tags: Mapping[str, str] | None = None
    ) -> None:
        if not _STACK_NAME.fullmatch(stack_name):
            raise DeploymentError(
                f"The stack's name must be 2 to 20 lower-case letters, digits and hyphens, got {stack_name!r}"
            )
        if not session.region_name:
            raise DeploymentError("No region: set AWS_DEFAULT_REGION or choose a profile with a region")
        self.session, self.stack_name, self.echo = session, stack_name, echo
        self.region: str = session.region_name
        self.cloudformation = session.client("cloudformation")
        self.s3 = session.client("s3")
        account = session.client("sts").get_caller_identity()["Account"]
        self.data_bucket = f"{stack_name}-{account}-{self.region}"
        self.artifacts_bucket = f"{stack_name}-artifacts-{account}-{self.region}"
        self.tags = {"project": stack_name, "managed-by": "cloudformation", **(tags or {})}

    def plan(self, parameters: Mapping[str, str] | None = None) -> stacks.ChangeSet | None:
        """Show what `deploy` would change, and change nothing. Returns the (deleted) change set."""
        stack = stacks.describe(self.cloudformation, self.stack_name)
        if stack is not None and stack["StackStatus"] in _RETRY_AFTER_DELETE:
            self.echo(f"Stack {self.stack_name} is {stack['StackStatus']}: `deploy` deletes it, and makes all anew.")
            return None
        adopts = stack is None and bucket_exists(self.s3, self.data_bucket)
        try:
            change_set = self._change_set(stack, parameters or {}, adopts=adopts)
            if adopts and change_set is not None:
                self.echo(f"The existing bucket {self.data_bucket} would be adopted.")
                others = tuple(change for change in change_set.changes if change[1] != "DataBucket")
                change_set = replace(change_set, changes=others)
            stacks.show(change_set, self.stack_name, self.echo)
            if change_set is not None:
                self.cloudformation.delete_change_set(ChangeSetName=change_set.arn)
        finally:
            # A change set of kind CREATE leaves an empty stack behind, also one that CloudFormation refused.
            left = stacks.describe(self.cloudformation, self.stack_name) if stack is None else None
            if left is not None:
                stacks.delete(self.cloudformation, left)
        return change_set

    def deploy(self, parameters: Mapping[str, str] | None = None) -> dict[str, str]:
        """Create or update the stack. Returns its outputs.

        Args:
            parameters: template parameters that differ from what the stack has, or from the defaults.

        Raises:
            DeploymentError: it failed; the message holds the resources' reasons.
        """
        stack = self._settled()
        ensure_bucket(self.s3, self.artifacts_bucket, self.region)
        for artifact in artifacts(self.s3.meta.partition):
            if upload(self.s3, self.artifacts_bucket, artifact):
                self.echo(f"Uploaded {artifact.key} ({len(artifact.content)} bytes).")
        if stack is None and bucket_exists(self.s3, self.data_bucket):
            self.echo(f"Adopting the existing bucket {self.data_bucket}.")
            stacks.adopt_bucket(self.cloudformation, self.stack_name, "DataBucket", self.data_bucket)
            stack = stacks.describe(self.cloudformation, self.stack_name)
        change_set = self._change_set(stack, parameters or {})
        stacks.show(change_set, self.stack_name, self.echo)
        if change_set is not None:
            stack = stacks.execute(self.cloudformation, change_set)
        if stack is None:
            raise DeploymentError(f"Stack {self.stack_name!r} does not exist, and none was created")
        outputs = stacks.outputs(stack)
        if self._write_threshold(outputs["BucketName"]):
            self.echo(f"Wrote {THRESHOLD_KEY}: {DEFAULT_THRESHOLD}.")
        return outputs

    def destroy(self, delete_data: bool = False, leave_endpoint: bool = False) -> None:
        """Delete the stack and the artifacts. The data bucket stays unless `delete_data`.

        Raises:
            DeploymentError: the endpoint still exists and `leave_endpoint` is false, somebody still has the policy for
                Airflow, or the deletion failed.
        """
        stack = stacks.describe(self.cloudformation, self.stack_name)
        if stack is not None:
            outputs = stacks.outputs(stack)
            if (endpoint_name := outputs.get("EndpointName")) and not leave_endpoint:
                self._refuse_with_endpoint(endpoint_name)
            if policy := outputs.get("AirflowPolicyArn"):
                self._refuse_with_attached(policy)
            stacks.delete(self.cloudformation, stack)
            self.echo(f"Deleted stack {self.stack_name}.")
        self._delete_bucket(self.artifacts_bucket)
        if delete_data:
            self._delete_bucket(self.data_bucket)
        elif bucket_exists(self.s3, self.data_bucket):
            self.echo(f"Kept the bucket {self.data_bucket} with the data; `destroy --delete-data` deletes it too.")

    def _settled(self) -> dict[str, Any] | None:
        """Wait for an operation that is under way; delete a stack whose creation failed. Returns the stack, if any."""
        stack = stacks.describe(self.cloudformation, self.stack_name)
        if stack is None:
            return None
        status = stack["StackStatus"]
        if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
            self.echo(f"Stack {self.stack_name} is {status}: waiting.")
            try:
                stack = stacks.wait(self.cloudformation, self.stack_name, f"The operation on {self.stack_name!r}")
            except DeploymentError:
                stack = stacks.describe(self.cloudformation, self.stack_name)
            if stack is None:
                return None
            status = stack["StackStatus"]
        if status in _RETRY_AFTER_DELETE:
            self.echo(f"Stack {self.stack_name} is {status}: deleting it first.")
            stacks.delete(self.cloudformation, stack)
            return None
        if status == "UPDATE_ROLLBACK_FAILED":
            raise DeploymentError(
                f"Stack {self.stack_name!r} is {status}: continue its rollback in the CloudFormation console first"
            )
        return stack

    def _change_set(
        self, stack: dict[str, Any] | None, parameters: Mapping[str, str], *, adopts: bool = False
    ) -> stacks.ChangeSet | None:
        given = {artifact.parameter: artifact.key for artifact in artifacts(self.s3.meta.partition)}
        given |= {"ProjectName": self.stack_name, "ArtifactsBucket": self.artifacts_bucket, **parameters}
        template = template_body()
        if adopts:
            # CloudFormation plans no new bucket with the name of one that is there.
            template = _BUCKET_NAME.sub("", template, count=1)
        declared = {
            item["ParameterKey"]
            for item in self.cloudformation.get_template_summary(TemplateBody=template)["Parameters"]
        }
        if unknown := sorted(set(given) - declared):
            raise DeploymentError(
                f"The template has no parameter {', '.join(unknown)}; it has {', '.join(sorted(declared))}"
            )
        in_stack = {item["ParameterKey"] for item in (stack or {}).get("Parameters", [])}
        if "TrainingImage" not in given.keys() | in_stack:
            given["TrainingImage"] = training_image(self.region)
        kept = in_stack & declared - set(given)
        return stacks.make_change_set(
            self.cloudformation,
            self.stack_name,
            "UPDATE" if stack else "CREATE",
            TemplateBody=template,
            Tags=[{"Key": key, "Value": value} for key, value in sorted(self._tags(stack).items())],
            Parameters=[
                *({"ParameterKey": key, "ParameterValue": value} for key, value in sorted(given.items())),
                *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)),
            ],
        )

    def _tags(self, stack: dict[str, Any] | None) -> dict[str, str]:
        return {item["Key"]: item["Value"] for item in (stack or {}).get("Tags", [])} | self.tags

    def _write_threshold(self, bucket: str) -> bool:
        """Write the default threshold unless there is one. Returns whether it was written."""
        document = {
            "threshold": DEFAULT_THRESHOLD,
            "version": 1,
            "set_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "set_by": "deploy",
            "reason": "The default of a new deployment",
        }
        try:
            self.s3.put_object(
                Bucket=bucket,
                Key=THRESHOLD_KEY,
                Body=json.dumps(document, indent=2).encode(),
                ContentType="application/json",
                IfNoneMatch="*",
            )
        except ClientError as error:
            # 409: somebody else writes it at this moment.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in {409, 412}:
                return False
            raise
        return True

    def _refuse_with_endpoint(self, endpoint_name: str) -> None:
        """Raise DeploymentError unless SageMaker says that there is no such endpoint; no answer is no absence."""
        try:
            status = self.session.client("sagemaker").describe_endpoint(EndpointName=endpoint_name)["EndpointStatus"]
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ValidationException":
                return
            raise DeploymentError(
                f"Whether the endpoint {endpoint_name!r} still runs, and costs money, cannot be seen: {error}. Use "
                "credentials that may see it, or pass --leave-endpoint."
            ) from error
        raise DeploymentError(
            f"The endpoint {endpoint_name!r} is {status} and costs money; it is not part of the stack. Trigger the DAG "
            f"`cleanup` with dry_run off and end_production {endpoint_name!r}, or pass --leave-endpoint."
        )

    def _refuse_with_attached(self, policy_arn: str) -> None:
        """Raise DeploymentError while anybody has the policy: CloudFormation would fail on it half-way.

        Who may not look goes on: CloudFormation refuses by itself, only later.
        """
        try:
            pages = self.session.client("iam").get_paginator("list_entities_for_policy").paginate(PolicyArn=policy_arn)
            found = [
                f"{kind} {one[f'{kind.title()}Name']}"
                for page in pages
                for kind in ("role", "user", "group")
                for one in page[f"Policy{kind.title()}s"]
            ]
        except ClientError:
            return
        if found:
            raise DeploymentError(
                f"The policy {policy_arn} is still attached to {', '.join(found)}: detach it there first. The role of "
                "an MWAA environment goes with its stack: aws cloudformation delete-stack --stack-name scones-mwaa."
            )

    def _delete_bucket(self, bucket: str) -> None:
        if bucket_exists(self.s3, bucket):
            count = empty_bucket(self.s3, bucket)
            self.s3.delete_bucket(Bucket=bucket)
            self.echo(f"Deleted the bucket {bucket} with {count} object versions.")
