"""What is said of a served model comes from that model's lineage, whatever was staged or trained since."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from scones.training.aws import read_served_model
from scones.training.served import ServedClassesError, ServedModel, classes_of, main_variant, shape_of
from tests.support.fake_aws import FakeRegistryHook, FakeS3, FakeSageMaker, store

ENDPOINT = "courier"


@pytest.fixture
def sagemaker() -> FakeSageMaker:
    return FakeSageMaker()


def trained(sagemaker: FakeSageMaker, job: str, classes: list[str]) -> None:
    """A registered model ``m-<job>`` with a dataset of its own."""
    artifact = f"s3://b/training/{job}/output/model.tar.gz"
    sagemaker.create_model(ModelName=f"m-{job}", PrimaryContainer={"Image": "i", "ModelDataUrl": artifact})
    sagemaker.create_model_package(
        InferenceSpecification={"Containers": [{"Image": "i", "ModelDataUrl": artifact}]},
        CustomerMetadataProperties={
            "dataset_version": f"ds-{job}",
            "training_job": job,
            "classes": ":".join(classes)[:256],  # what AWS takes
            "image_shape": "3:32:32",
            "test_accuracy": "0.9",
        },
    )
    sagemaker.things.setdefault(("model_package_group", "scones-courier"), {})


def staged(s3: FakeS3, version: str, classes: list[str]) -> None:
    s3.objects[f"datasets/{version}/label_map.json"] = json.dumps(dict(enumerate(classes))).encode()
    s3.objects["datasets/current.json"] = json.dumps({"dataset_version": version}).encode()


def serve(sagemaker: FakeSageMaker, *variants: dict[str, Any]) -> None:
    name = f"c-{len(sagemaker.calls)}"
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=list(variants))
    sagemaker.things.pop(("endpoint", ENDPOINT), None)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=name)
    sagemaker.finish_deployment(ENDPOINT)


def read(sagemaker: FakeSageMaker, s3: FakeS3, classes: tuple[str, ...] = ()) -> ServedModel:
    served = read_served_model(ENDPOINT, store(client=s3), FakeRegistryHook(sagemaker), classes)
    assert served is not None
    return served


def test_names_stay_those_of_the_live_model_while_another_is_trained(sagemaker: FakeSageMaker) -> None:
    s3 = FakeS3()
    trained(sagemaker, "live", ["bicycle", "motorcycle"])
    staged(s3, "ds-live", ["bicycle", "motorcycle"])
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m-live"})
    staged(s3, "ds-refused", ["motorcycle", "bicycle"])  # a run that the gate refuses
    served = read(sagemaker, s3)
    assert served.classes == ("bicycle", "motorcycle")
    assert (served.version, served.training_job, served.dataset_version) == (1, "live", "ds-live")
    assert (served.image_shape, served.quality) == ((3, 32, 32), {"test_accuracy": 0.9})
    trained(sagemaker, "next", ["motorcycle", "bicycle"])
    staged(s3, "ds-next", ["motorcycle", "bicycle"])
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m-next"})
    assert read(sagemaker, s3).classes == ("motorcycle", "bicycle")
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m-live"})  # rolled back
    assert (read(sagemaker, s3).classes, read(sagemaker, s3).version) == (("bicycle", "motorcycle"), 1)


def test_a_list_too_long_for_the_metadata_is_read_from_the_dataset(sagemaker: FakeSageMaker) -> None:
    s3, classes = FakeS3(), [f"class_number_{n}" for n in range(100)]
    trained(sagemaker, "many", classes)
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m-many"})
    assert read(sagemaker, s3).classes == ()  # cut off, so not believed
    staged(s3, "ds-many", classes)
    assert read(sagemaker, s3).classes == tuple(classes)


def test_the_variant_with_the_traffic_is_the_model(sagemaker: FakeSageMaker) -> None:
    trained(sagemaker, "a", ["x", "y"])
    trained(sagemaker, "b", ["y", "x"])
    serve(
        sagemaker,
        {"VariantName": "A", "ModelName": "m-a", "InitialVariantWeight": 1.0},
        {"VariantName": "B", "ModelName": "m-b", "InitialVariantWeight": 3.0},
    )
    assert read(sagemaker, FakeS3()).classes == ("y", "x")
    sagemaker.things["endpoint", ENDPOINT]["ProductionVariants"] = [
        {"VariantName": "A", "CurrentWeight": 1.0},
        {"VariantName": "B", "CurrentWeight": 0.0},
    ]
    assert read(sagemaker, FakeS3()).classes == ("x", "y")
    assert main_variant({}, {}) == {}


def test_an_unregistered_model_is_followed_to_its_training_job(sagemaker: FakeSageMaker) -> None:
    s3 = FakeS3()
    staged(s3, "ds-own", ["x", "y"])
    sagemaker.create_training_job(
        TrainingJobName="own",
        HyperParameters={"image_shape": "3,64,48"},
        Tags=[{"Key": "scones:dataset_version", "Value": "ds-own"}],
    )
    artifact = "s3://b/training/own/output/model.tar.gz"
    sagemaker.create_model(ModelName="m", PrimaryContainer={"Image": "i", "ModelDataUrl": artifact})
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m"})
    served = read(sagemaker, s3)
    assert (served.training_job, served.version, served.classes, served.image_shape) == (
        "own",
        None,
        ("x", "y"),
        (3, 64, 48),
    )


def test_the_model_of_others_has_the_classes_a_person_gives_or_numbers(sagemaker: FakeSageMaker) -> None:
    s3 = FakeS3()
    staged(s3, "ds-ours", ["bicycle", "motorcycle"])
    sagemaker.create_model(ModelName="m", Containers=[{"Image": "theirs", "ModelDataUrl": "s3://theirs/m.tar.gz"}])
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m"})
    served = read(sagemaker, s3)
    assert (served.classes, served.class_name(0), served.training_job) == ((), "class 0", "")
    assert read(sagemaker, s3, ("cat", "dog")).class_name(1) == "dog"
    assert read_served_model("absent", store(client=s3), FakeRegistryHook(sagemaker)) is None
    trained(sagemaker, "live", ["x", "y"])
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m-live"})
    with pytest.raises(ServedClassesError, match="classes x, y, not y, x"):
        read(sagemaker, s3, ("y", "x"))


def test_it_travels_between_tasks_as_json(sagemaker: FakeSageMaker) -> None:
    trained(sagemaker, "live", ["x", "y"])
    serve(sagemaker, {"VariantName": "AllTraffic", "ModelName": "m-live"})
    served = read(sagemaker, FakeS3())
    assert msgspec.json.decode(json.dumps(served.as_dict()), type=ServedModel) == served
    unknown = ServedModel("e")
    assert msgspec.json.decode(json.dumps(unknown.as_dict()), type=ServedModel) == unknown


@pytest.mark.parametrize("damaged", [None, [], {}, {"0": "x", "2": "y"}, {"0": 1}, {"a": "x"}, "text"])
def test_a_damaged_label_map_names_nothing(damaged: Any) -> None:
    assert classes_of(damaged, {}) == ()
    assert classes_of(damaged, {"classes": "x,y"}) == ("x", "y")


def test_a_shape_is_three_counts() -> None:
    assert shape_of([None, "3,32", "3,²,32", "a,b,c", "3,32,48"]) == (3, 32, 48)
    assert shape_of([]) is None
