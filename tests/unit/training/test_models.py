"""A trained artifact becomes a model once; the champion is whatever the endpoint serves, whatever it knows."""

from __future__ import annotations

import json

import pytest

from scones.training.model_package import model_request
from tests.support.fake_aws import FakeS3, FakeSageMaker
from tests.support.training import RESOURCES, create, legal, register, serve


@pytest.fixture
def sagemaker() -> FakeSageMaker:
    return FakeSageMaker()


def test_a_model_is_created_once_and_named_by_its_content(sagemaker: FakeSageMaker) -> None:
    first = create(sagemaker, "j")
    assert create(sagemaker, "j") == first
    assert len(sagemaker.called("create_model")) == 1
    assert legal("CreateModel", sagemaker.called("create_model")[0]) == ""
    assert first["champion"] is None
    assert first["answers_uri"] == "s3://b/evaluations/j/transform/"
    assert model_request("i", "s3://b/other", RESOURCES, [])["ModelName"] != first["model_name"]


def test_a_model_runs_in_the_stacks_network_and_is_another_one_there() -> None:
    network = {"SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "sg-1"}
    outside = model_request("i", "s3://b/m", RESOURCES, [])
    inside = model_request("i", "s3://b/m", RESOURCES | network, [])
    assert "VpcConfig" not in outside
    assert inside["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert inside["ModelName"] != outside["ModelName"]
    assert legal("CreateModel", inside) == ""


def test_the_champion_is_what_the_endpoint_serves_with_its_own_classes(sagemaker: FakeSageMaker) -> None:
    register(sagemaker, "old", classes=["tank", "bus"])
    serve(sagemaker, "old")
    champion = create(sagemaker, "new")["champion"]
    assert (champion["job_name"], champion["classes"]) == ("old", ["tank", "bus"])
    assert champion["answers_uri"] == "s3://b/evaluations/old/transform/"
    assert create(sagemaker, "old")["champion"] is None  # itself


def test_a_champion_of_unknown_classes_is_not_nothing(sagemaker: FakeSageMaker) -> None:
    """Not to be comparable is not to be absent: the gate hears of it."""
    s3 = FakeS3()
    s3.objects["datasets/current.json"] = json.dumps({"dataset_version": "ds-0123456789ab"}).encode()
    serve(sagemaker, "theirs")
    champion = create(sagemaker, "new", s3)["champion"]
    assert (champion["job_name"], champion["classes"]) == ("theirs", [])
