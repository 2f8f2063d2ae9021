"""The CloudFormation template as data, for tests that hold something against it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import yaml

from infrastructure.artifacts import ROOT
from infrastructure.deploy import template_body

TEMPLATE = ROOT / "infrastructure" / "template.yaml"


class _Loader(yaml.CSafeLoader):
    """Reads CloudFormation's short forms as {"!Sub": ...}."""


def _short_form(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {f"!{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)
DOCUMENT: dict[str, Any] = yaml.load(template_body(), _Loader)
RESOURCES: dict[str, dict[str, Any]] = DOCUMENT["Resources"]


def as_list(value: Any) -> list[Any]:
    """A policy's value, which may stand alone, as a list."""
    return value if isinstance(value, list) else [value]


def statements(name: str) -> Iterator[dict[str, Any]]:
    """Every statement of a resource's policies, those too that stand under a condition."""
    properties = RESOURCES[name]["Properties"]
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    for document in documents:
        for statement in document["Statement"]:
            yield statement["!If"][1] if "!If" in statement else statement


def unconditional(name: str) -> list[dict[str, Any]]:
    """The statements a role has whatever the parameters, of its own and of the stack's policies attached to it."""
    properties = RESOURCES[name]["Properties"]
    attached = [reference["!Ref"] for reference in properties.get("ManagedPolicyArns", [])]
    documents = [policy["PolicyDocument"] for policy in properties["Policies"]]
    documents += [RESOURCES[policy]["Properties"]["PolicyDocument"] for policy in attached]
    return [statement for document in documents for statement in document["Statement"] if "!If" not in statement]


_PHYSICAL_NAMES = ("BucketName", "StateMachineName", "TopicName", "QueueName")
_ARNS = {
    "AWS::S3::Bucket": "s3:::{}",
    "AWS::StepFunctions::StateMachine": "states:REGION:ACCOUNT:stateMachine:{}",
    "AWS::SNS::Topic": "sns:REGION:ACCOUNT:{}",
    "AWS::SQS::Queue": "sqs:REGION:ACCOUNT:{}",
    "AWS::IAM::Role": "iam::ACCOUNT:role/{}",
}


@dataclass(frozen=True)
class Stack:
    """A deployment of the template, as far as its policies name something.

    Attributes:
        given: parameters that differ from their defaults.
    """

    partition: str = "aws"
    region: str = "us-east-1"
    account: str = "0" * 12
    given: Mapping[str, str] = field(default_factory=dict)

    def value(self, value: Any, names: Mapping[str, Any] | None = None) -> Any:
        """What CloudFormation makes of a value that names something; ``names`` are those of the `!Sub` around it."""
        if not isinstance(value, dict):
            return value
        ((function, argument),) = value.items()
        if function == "!Sub" and isinstance(argument, list):
            return self.value({"!Sub": argument[0]}, argument[1])
        if function == "!Sub":
            own = names or {}
            return re.sub(
                r"\$\{([\w.:]+)\}",
                lambda found: self.value(own[found[1]]) if found[1] in own else self._named(found[1]),
                argument,
            )
        if function == "!Select":
            return self.value(argument[1])[argument[0]]
        if function == "!Split":
            return self.value(argument[1]).split(argument[0])
        assert function in {"!Ref", "!GetAtt"}, value
        return self._named(argument)

    def arn(self, rest: str) -> str:
        """An ARN in this account, ``sagemaker:REGION:ACCOUNT:endpoint/name``."""
        return f"arn:{self.partition}:{rest.replace('REGION', self.region).replace('ACCOUNT', self.account)}"

    def policy(self, name: str) -> list[dict[str, Any]]:
        """The statements of a role or a policy, everything in them resolved."""
        return [
            {
                **statement,
                "Action": as_list(statement["Action"]),
                "Resource": [self.value(one) for one in as_list(statement["Resource"])],
            }
            for statement in statements(name)
        ]

    def allows(self, name: str, action: str, resource: str) -> bool:
        """Whether a role or a policy allows an action on a resource, by its ARN; conditions are taken as met."""
        return any(
            statement["Effect"] == "Allow"
            and action in statement["Action"]
            and any(fnmatchcase(resource, pattern) for pattern in statement["Resource"])
            for statement in self.policy(name)
        )

    def _named(self, name: str) -> str:
        pseudo = {"Partition": self.partition, "Region": self.region, "AccountId": self.account}
        if name == "AWS::StackId":
            return self.arn(f"cloudformation:REGION:ACCOUNT:stack/{self._named('ProjectName')}/{'0' * 36}")
        if name.startswith("AWS::"):
            return pseudo[name.removeprefix("AWS::")]
        if name in DOCUMENT["Parameters"]:
            return self.given.get(name) or str(DOCUMENT["Parameters"][name].get("Default", ""))
        logical, _, attribute = name.partition(".")
        resource = RESOURCES[logical]
        if resource["Type"] == "AWS::S3::Bucket" and not attribute:
            return self.value(resource["Properties"]["BucketName"])
        own = next((one for one in _PHYSICAL_NAMES if one in resource.get("Properties", {})), "")
        made_up = f"{self._named('ProjectName')}-{logical}-{'X' * 12}"
        return self.arn(_ARNS[resource["Type"]].format(self.value(resource["Properties"][own]) if own else made_up))
