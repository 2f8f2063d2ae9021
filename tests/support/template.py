"""The CloudFormation template as data, for tests that hold something against it."""

from __future__ import annotations

from typing import Any

import yaml

from infrastructure.artifacts import ROOT

TEMPLATE = ROOT / "infrastructure" / "template.yaml"
# A deployment that is given its training image asks no SageMaker SDK for it.
IMAGE = {"TrainingImage": "local/image-classification:1"}


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
DOCUMENT: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)
RESOURCES: dict[str, dict[str, Any]] = DOCUMENT["Resources"]


def as_list(value: Any) -> list[Any]:
    """A policy's value, which may stand alone, as a list."""
    return value if isinstance(value, list) else [value]
