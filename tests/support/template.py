"""The CloudFormation template as data, for tests that hold something against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from infrastructure.artifacts import ROOT
from infrastructure.deploy import template_body

TEMPLATE = ROOT / "infrastructure" / "template.yaml"


class _Loader(yaml.SafeLoader):
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
