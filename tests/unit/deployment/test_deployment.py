"""Golden images, rollback after a bad parity check, what is retired, and the way back to an earlier version."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from scones.aws.errors import already_there, is_absent, is_transient
from scones.deployment import verify
from scones.deployment.aws import DeploymentAws
from scones.deployment.golden import Golden, check_answers
from scones.deployment.rollback import choose_version
from scones.deployment.verify import capture_is_complete, retire_superseded, roll_back
from scones.training.model_package import UnknownVersionError, choose_rollback_version
from tests.support.fake_aws import (
    FakeRegistryHook,
    FakeRuntime,
    FakeS3,
    FakeSageMaker,
    FakeScaling,
    client_error,
    store,
)
from tests.support.training import RESOURCES, register, serve


@pytest.fixture
def sagemaker() -> FakeSageMaker:
    return FakeSageMaker()


def aws_of(
    sagemaker: FakeSageMaker | None = None, s3: FakeS3 | None = None, runtime: Any = None, scaling: Any = None
) -> DeploymentAws:
    clients = {"sagemaker-runtime": runtime, "application-autoscaling": scaling}
    return DeploymentAws(store(client=s3), FakeRegistryHook(sagemaker or FakeSageMaker()), clients.__getitem__)


@pytest.fixture
def staged() -> FakeS3:
    s3 = FakeS3()
    files = [
        {"key": f"test/{label}_{n}.png", "split": "test", "label": label, "sha256": "", "bytes": 3}
        for label in (0, 1)
        for n in range(5)
    ]
    s3.objects["datasets/ds-0123456789ab/manifest.json"] = json.dumps({"files": files}).encode()
    s3.objects["datasets/current.json"] = b'{"manifest_key": "datasets/ds-0123456789ab/manifest.json"}'
    for file in files:
        s3.objects[f"datasets/ds-0123456789ab/{file['key']}"] = str(file["key"]).encode()
        probability = 0.9 if file["label"] == 0 else 0.2
        answer = json.dumps({"prediction": [probability, 1 - probability]}).encode()
        s3.objects[f"evaluations/j/transform/{str(file['key'])[5:]}.out"] = answer
    return s3


def runtime(**wrong: Any) -> FakeRuntime:
    answers = {
        f"test/{label}_{n}.png".encode(): wrong.get(f"image_{label}_{n}", [0.9, 0.1] if label == 0 else [0.2, 0.8])
        for label in (0, 1)
        for n in range(5)
    }
    return FakeRuntime(answers)


GOLDEN = Golden("ds-0123456789ab", "j", 2)


def test_golden_images_are_asked_with_ids_and_agree(staged: FakeS3) -> None:
    client = runtime()
    result = check_answers("courier", GOLDEN, "r", aws_of(s3=staged, runtime=client))
    assert (result["images"], result["compared"], result["problems"]) == (8, True, [])
    assert result["largest_difference"] < 1e-9
    assert [request["InferenceId"] for request in client.requests] == result["inference_ids"]
    assert {request["ContentType"] for request in client.requests} == {"image/png"}
    assert max(map(len, result["inference_ids"])) <= 64


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([0.1, 0.9], "differ by 0.8"),
        ([0.9, 0.9], "add up to"),
        ([1.0], "1 probabilities for 2"),
        ({"error": "no"}, "0 probabilities for 2"),
        (b"<html>", "0 probabilities for 2"),
        (b"[" * 99999, "0 probabilities for 2"),
    ],
    ids=["far", "no distribution", "too few", "no list", "no JSON", "too deep"],
)
def test_wrong_answers_are_named(staged: FakeS3, wrong: Any, words: str) -> None:
    result = check_answers("c", GOLDEN, "r", aws_of(s3=staged, runtime=runtime(image_0_0=wrong)))
    assert len(result["problems"]) == 1
    assert words in result["problems"][0]


def test_answers_and_images_that_are_gone_are_no_agreement(staged: FakeS3) -> None:
    del staged.objects["evaluations/j/transform/0_0.png.out"]
    with pytest.raises(FileNotFoundError, match="answers of j to the test images are gone"):
        check_answers("c", GOLDEN, "r", aws_of(s3=staged, runtime=runtime()))
    lenient = replace(GOLDEN, need_answers=False, classes=0)
    assert check_answers("c", lenient, "r", aws_of(s3=staged, runtime=runtime()))["compared"] is False
    del staged.objects["datasets/ds-0123456789ab/test/0_1.png"]
    with pytest.raises(FileNotFoundError, match=r"test/0_1\.png of ds-0123456789ab is gone"):
        check_answers("c", lenient, "r", aws_of(s3=staged, runtime=runtime()))


def deployment(**changes: str) -> Any:
    return {**DEPLOYMENT, **changes}


DEPLOYMENT: Any = {
    "endpoint_name": "courier",
    "endpoint_config_name": "c-new",
    "previous_endpoint_config_name": "c-old",
    "action": "updated",
}


def test_going_back_puts_the_earlier_config_into_service(
    sagemaker: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = FakeScaling(known=True)
    serve(sagemaker, "old")
    serve(sagemaker, "new")

    async def settle(_: Any) -> Any:
        sagemaker.finish_deployment("courier")
        return type("Event", (), {"payload": {"status": "success", "state": "InService", "message": ""}})

    monkeypatch.setattr(verify, "first_event", settle)
    assert roll_back(DEPLOYMENT, aws_of(sagemaker, scaling=scaling)) == "so it was put back to c-old"
    assert [name for name, _ in scaling.calls][:2] == ["deregister_scalable_target", "register_scalable_target"]
    assert scaling.target == {"MinCapacity": 1, "MaxCapacity": 3}
    assert sagemaker.things["endpoint", "courier"]["EndpointConfigName"] == "c-old"


def test_going_back_that_fails_is_told_and_a_first_endpoint_is_deleted(
    sagemaker: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(sagemaker, "old")
    serve(sagemaker, "new")
    scaled = aws_of(sagemaker, scaling=FakeScaling(known=True))

    async def break_down(_: Any) -> Any:
        return type("Event", (), {"payload": {"status": "failed", "state": "Failed", "message": "no capacity"}})

    monkeypatch.setattr(verify, "first_event", break_down)
    assert "failed too (Failed: no capacity)" in roll_back(DEPLOYMENT, scaled)
    assert "no earlier config" in roll_back(deployment(previous_endpoint_config_name="", action="unchanged"), scaled)
    same = deployment(previous_endpoint_config_name=DEPLOYMENT["endpoint_config_name"])
    assert "no earlier config" in roll_back(same, scaled)
    assert "c-gone no longer exists" in roll_back(deployment(previous_endpoint_config_name="c-gone"), scaled)
    assert ("endpoint", "courier") in sagemaker.things
    assert "deleted" in roll_back(deployment(previous_endpoint_config_name="", action="created"), scaled)
    assert ("endpoint", "courier") not in sagemaker.things


def test_only_what_nothing_uses_is_retired(sagemaker: FakeSageMaker) -> None:
    aws = aws_of(sagemaker)
    serve(sagemaker, "old")
    old_model = sagemaker.things["endpoint_config", "c-old"]["ProductionVariants"][0]["ModelName"]
    assert retire_superseded(DEPLOYMENT, aws)["kept"] == ["endpoint config c-old"]  # still served
    serve(sagemaker, "new")
    sagemaker.create_endpoint_config(EndpointConfigName="c-other", ProductionVariants=[{"ModelName": old_model}])
    assert retire_superseded(DEPLOYMENT, aws) == {
        "deleted": ["endpoint config c-old"],
        "kept": [f"model {old_model}"],
    }
    sagemaker.create_endpoint_config(EndpointConfigName="c-old", ProductionVariants=[{"ModelName": old_model}])
    del sagemaker.things["endpoint_config", "c-other"]
    assert f"model {old_model}" in retire_superseded(DEPLOYMENT, aws)["deleted"]
    assert retire_superseded(DEPLOYMENT, aws) == {"deleted": [], "kept": []}  # a retry
    components = {"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}  # name no model
    sagemaker.create_endpoint_config(EndpointConfigName="c-old", ProductionVariants=[components])
    assert retire_superseded(DEPLOYMENT, aws)["deleted"] == ["endpoint config c-old"]
    assert retire_superseded(deployment(previous_endpoint_config_name=""), aws)["deleted"] == []


def test_a_config_an_update_is_going_to_is_in_use(sagemaker: FakeSageMaker) -> None:
    serve(sagemaker, "old")
    serve(sagemaker, "new")
    sagemaker.update_endpoint(EndpointName="courier", EndpointConfigName="c-old")
    assert retire_superseded(DEPLOYMENT, aws_of(sagemaker))["kept"] == ["endpoint config c-old"]


def test_the_capture_is_complete_when_every_golden_request_is_in_it() -> None:
    s3, now = FakeS3(), datetime.now(UTC)
    check: Any = {"inference_ids": ["golden-1", "golden-2"], "asked_at": now.isoformat()}
    folder = f"capture/courier/AllTraffic/{now:%Y/%m/%d/%H}"

    def record(inference_id: str) -> bytes:
        return json.dumps({"eventMetadata": {"inferenceId": inference_id}}).encode() + b"\n"

    assert capture_is_complete(aws_of(s3=s3), "courier", check, 50)  # sampling leaves it to chance
    assert not capture_is_complete(aws_of(s3=s3), "courier", check, 100)
    s3.objects[f"{folder}/00-00-000-a.jsonl"] = (
        record("golden-1") + b'{"eventMetadata": {}}\n[]\n\xff{\n' + b"[" * 99999
    )
    assert not capture_is_complete(aws_of(s3=s3), "courier", check, 100)
    s3.objects[f"{folder}/00-01-000-b.jsonl"] = record("other") + record("golden-2")
    assert capture_is_complete(aws_of(s3=s3), "courier", check, 100)


VERSIONS = [(1, "Approved", "a"), (2, "Rejected", "b"), (3, "Approved", "c"), (4, "Approved", "d")]


@pytest.mark.parametrize(
    ("live", "wanted", "chosen"), [("d", None, 3), ("c", None, 1), ("d", 1, 1), (None, None, 4), ("?", None, 4)]
)
def test_the_version_to_go_back_to(live: str | None, wanted: int | None, chosen: int) -> None:
    assert choose_rollback_version(VERSIONS, live, wanted) == chosen


@pytest.mark.parametrize(
    ("live", "wanted", "words"),
    [("a", None, "no approved version to go back to"), ("d", 2, "not approved"), ("d", 9, "no model version 9")],
)
def test_no_version_to_go_back_to_lists_what_there_is(live: str, wanted: int | None, words: str) -> None:
    with pytest.raises(UnknownVersionError, match=f"{words}.*4, 3, 1"):
        choose_rollback_version(VERSIONS, live, wanted)


def test_rolling_back_recreates_the_model_of_the_chosen_version(sagemaker: FakeSageMaker, staged: FakeS3) -> None:
    register(sagemaker, "j")
    # What was trained since has other classes, and its data are the current ones.
    register(sagemaker, "new", classes=["tank", "bus"], dataset_version="ds-new")
    staged.objects["datasets/current.json"] = b'{"manifest_key": "datasets/ds-new/manifest.json"}'
    serve(sagemaker, "new")
    for name in [name for kind, name in list(sagemaker.things) if kind == "model"]:
        if sagemaker.things["model", name]["PrimaryContainer"]["ModelDataUrl"].count("/j/"):
            del sagemaker.things["model", name]  # it was cleaned up
    chosen = choose_version(RESOURCES, None, aws_of(sagemaker, s3=staged))
    assert (chosen["version"], chosen["job_name"]) == (1, "j")
    assert (chosen["dataset_version"], chosen["classes"]) == ("ds-0123456789ab", ["bicycle", "motorcycle"])
    assert ("model", chosen["model_name"]) in sagemaker.things


def test_the_live_version_is_known_however_its_model_names_it(sagemaker: FakeSageMaker, staged: FakeS3) -> None:
    """By its package alone, as the console and pipelines deploy, and beside a variant that takes less traffic."""
    register(sagemaker, "j")
    register(sagemaker, "new")
    serve(sagemaker, "j")
    arn = next(
        found["ModelPackageArn"] for _, found in sagemaker.things.items() if found.get("ModelPackageVersion") == 2
    )
    sagemaker.create_model(ModelName="m-by-package", PrimaryContainer={"ModelPackageName": arn})
    less = {**sagemaker.things["endpoint_config", "c-j"]["ProductionVariants"][0], "InitialVariantWeight": 0.1}
    main = {"VariantName": "Main", "ModelName": "m-by-package", "InitialVariantWeight": 0.9}
    sagemaker.create_endpoint_config(EndpointConfigName="c-two", ProductionVariants=[less, main])
    del sagemaker.things["endpoint", "courier"]
    sagemaker.create_endpoint(EndpointName="courier", EndpointConfigName="c-two")
    sagemaker.finish_deployment("courier")
    assert choose_version(RESOURCES, None, aws_of(sagemaker, s3=staged))["version"] == 1


def test_errors_are_told_apart() -> None:
    assert is_absent(client_error("ValidationException", 'Could not find endpoint "x".'))
    assert not is_absent(client_error("ValidationException", "Cannot delete endpoint config in use"))
    assert already_there(client_error("ValidationException", "Cannot create already existing model"))
    assert already_there(client_error("ResourceInUse", "names must be unique"))
    assert not already_there(client_error("ValidationException", "1 validation error detected"))
    assert is_transient(ConnectionResetError())
    assert not is_transient(client_error("AccessDeniedException", "no"))
    assert not is_transient(ValueError())
