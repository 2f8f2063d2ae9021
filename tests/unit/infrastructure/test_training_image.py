"""Where the training image's URI comes from, and what to do where the SageMaker SDK does not know it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from infrastructure.artifacts import DeploymentError
from infrastructure.training_image import training_image


def test_without_the_sdk_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    monkeypatch.setitem(sys.modules, "sagemaker.core", None)
    with pytest.raises(DeploymentError, match=r"`make deploy` runs where it is\. Or name it: --parameter"):
        training_image("us-east-1")


def test_a_region_the_sdk_does_not_know_is_named_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(framework: str, region: str) -> str:
        raise ValueError(f"Unsupported region: {region}")

    core: Any = ModuleType("sagemaker.core")
    core.image_uris = SimpleNamespace(retrieve=retrieve)
    monkeypatch.setitem(sys.modules, "sagemaker", ModuleType("sagemaker"))
    monkeypatch.setitem(sys.modules, "sagemaker.core", core)
    with pytest.raises(DeploymentError, match=r"mars-north-1.*--parameter TrainingImage="):
        training_image("mars-north-1")
