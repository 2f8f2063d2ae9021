"""Registry, champion, refusal, golden images, rollback after a bad parity check, and what is retired."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scones.aws.errors import already_there, is_absent, is_transient
from scones.deployment import verify as deployment
from scones.deployment.endpoint import EndpointDeploymentError
from scones.deployment.rollback import check_rolled_back, choose_version
from scones.deployment.verify import (
    capture_is_complete,
    check_answers,
    retire_superseded,
    roll_back,
    smoke_test,
    verify_endpoint,
)
from scones.training.model_package import UnknownVersionError, choose_rollback_version, model_request
from scones.training.models import create_model, git_revision, record_refusal, register_model, settle_approval
from tests.support.fake_aws import FakeRegistryHook, FakeRuntime, FakeS3, FakeSageMaker, client_error, store
from tests.support.training import DATASET, legal

ROLE = "arn:aws:iam::111122223333:role/r"
RESOURCES = {"BucketName": "b", "SageMakerRoleArn": ROLE, "EndpointName": "courier", "AlertTopicArn": "arn:topic"}
CLASSES = ["bicycle", "motorcycle"]


def training(job: str) -> dict[str, Any]:
    return {
        "job_name": job,
        "image": "repo/image-classification:1",
        "model_artifacts": f"s3://b/training/{job}/output/model.tar.gz",
        "metrics": {"validation:accuracy": 0.9},
        "fingerprint": "f",
    }


EVALUATION = {
    "evaluation_uri": "s3://b/evaluations/j/evaluation.json",
    "test_accuracy": 0.91,
    "log_loss": 0.2,
    "champion": None,
}
REGISTER: dict[str, Any] = {
    "dataset": {**DATASET, "baseline_uri": "s3://b/datasets/ds/baseline/"},
    "evaluation": EVALUATION,
    "dag_id": "train_and_deploy",
    "run_id": "manual__1",
}


@pytest.fixture
def sagemaker() -> FakeSageMaker:
    return FakeSageMaker()


def register(sagemaker: FakeSageMaker, job: str, *, ask: bool = False) -> dict[str, Any]:
    hook = FakeRegistryHook(sagemaker)
    model = create_model(training(job), RESOURCES, CLASSES, hook)
    return register_model(model=model, training=training(job), require_approval=ask, hook=hook, **REGISTER)


def serve(sagemaker: FakeSageMaker, job: str) -> None:
    name = create_model(training(job), RESOURCES, CLASSES, FakeRegistryHook(sagemaker))["model_name"]
    sagemaker.create_endpoint_config(EndpointConfigName=f"c-{job}", ProductionVariants=[{"ModelName": name}])
    sagemaker.things.pop(("endpoint", "courier"), None)
    sagemaker.create_endpoint(EndpointName="courier", EndpointConfigName=f"c-{job}")
    sagemaker.finish_deployment("courier")


def test_a_model_is_created_once_and_named_by_its_content(sagemaker: FakeSageMaker) -> None:
    hook = FakeRegistryHook(sagemaker)
    first = create_model(training("j"), RESOURCES, CLASSES, hook)
    assert create_model(training("j"), RESOURCES, CLASSES, hook) == first
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


def test_the_champion_is_what_the_endpoint_serves(sagemaker: FakeSageMaker) -> None:
    register(sagemaker, "old")
    serve(sagemaker, "old")
    hook = FakeRegistryHook(sagemaker)
    champion = create_model(training("new"), RESOURCES, CLASSES, hook)["champion"]
    assert champion["job_name"] == "old"
    assert create_model(training("old"), RESOURCES, CLASSES, hook)["champion"] is None  # itself
    assert create_model(training("new"), RESOURCES, ["train", "tank"], hook)["champion"] is None  # other classes


def test_a_package_carries_metrics_lineage_and_approval_and_is_registered_once(sagemaker: FakeSageMaker) -> None:
    first = register(sagemaker, "j")
    assert (first["version"], first["approval_status"], first["created"]) == (1, "Approved", True)
    request = sagemaker.called("create_model_package")[0]
    assert legal("CreateModelPackage", request) == ""
    metadata = request["CustomerMetadataProperties"]
    assert metadata["dataset_version"] == DATASET["dataset_version"]
    assert metadata["training_job"] == "j"
    assert metadata["test_accuracy"] == "0.91"
    assert metadata["git_revision"]
    assert "image/png" in request["InferenceSpecification"]["SupportedContentTypes"]
    assert request["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"] == EVALUATION["evaluation_uri"]
    again = register(sagemaker, "j")
    assert (again["version"], again["created"]) == (1, False)
    assert register(sagemaker, "k")["version"] == 2


def test_a_person_decides_when_asked(sagemaker: FakeSageMaker) -> None:
    waiting = register(sagemaker, "j", ask=True)
    assert waiting["approval_status"] == "PendingManualApproval"
    hook = FakeRegistryHook(sagemaker)
    assert settle_approval(waiting["model_package_arn"], approved=False, by="ann", hook=hook) == "Rejected"
    call = sagemaker.called("update_model_package")[0]
    assert (call["ModelApprovalStatus"], call["ApprovalDescription"]) == ("Rejected", "Rejected in Airflow by ann")
    assert settle_approval(waiting["model_package_arn"], approved=True, by="ann", hook=hook) == "Approved"


def test_a_refusal_is_recorded_and_announced_and_touches_no_endpoint(sagemaker: FakeSageMaker) -> None:
    s3, sent = FakeS3(), []
    record = record_refusal(
        model={"job_name": "j"},
        evaluation=EVALUATION,
        reasons=["accuracy 0.6 is below the minimum 0.8"],
        resources=RESOURCES,
        run_id="manual__1",
        announce=lambda *a, **k: sent.append((a, k)),
        store=store(client=s3),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert record["record_uri"] == "s3://b/refused/j.json"
    document = json.loads(s3.objects["refused/j.json"])
    assert document["reasons"] == ["accuracy 0.6 is below the minimum 0.8"]
    (event, subject, body), options = sent[0]
    assert (event, options["topic_arn"]) == ("model_refused", "arn:topic")
    assert "j" in subject
    assert body["record"] == record["record_uri"]
    assert sagemaker.calls == []


def test_the_git_revision_is_given_found_or_unknown(tmp_path: Path) -> None:
    assert git_revision(environ={"SCONES_GIT_REVISION": "abc123"}) == "abc123"
    assert git_revision(folder=tmp_path, environ={}) == "unknown"


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


def runtime(**wrong: list[float]) -> FakeRuntime:
    answers = {
        f"test/{label}_{n}.png".encode(): wrong.get(f"image_{label}_{n}", [0.9, 0.1] if label == 0 else [0.2, 0.8])
        for label in (0, 1)
        for n in range(5)
    }
    return FakeRuntime(answers)


CHECK: dict[str, Any] = {"dataset": DATASET, "transform_uri": "s3://b/evaluations/j/transform/", "run_id": "r"}


def test_golden_images_are_asked_with_ids_and_agree(staged: FakeS3) -> None:
    client = runtime()
    result = check_answers(endpoint_name="courier", store=store(client=staged), client=client, **CHECK)
    assert (result["images"], result["problems"]) == (8, [])
    assert result["largest_difference"] < 1e-9
    assert [request["InferenceId"] for request in client.requests] == result["inference_ids"]
    assert {request["ContentType"] for request in client.requests} == {"image/png"}
    assert max(map(len, result["inference_ids"])) <= 64


def test_a_candidate_that_answers_wrongly_stops_the_deployment(staged: FakeS3) -> None:
    for wrong, words in (([0.1, 0.9], "differ by 0.8"), ([0.9, 0.9], "add up to"), ([1.0], "1 probabilities for 2")):
        with pytest.raises(EndpointDeploymentError, match=rf"live endpoint was not touched.*{words}"):
            smoke_test(endpoint_name="c", store=store(client=staged), client=runtime(image_0_0=wrong), **CHECK)
    del staged.objects["evaluations/j/transform/0_0.png.out"]
    with pytest.raises(FileNotFoundError, match=r"wrote no 0_0\.png\.out"):
        smoke_test(endpoint_name="c", store=store(client=staged), client=runtime(), **CHECK)


DEPLOYMENT = {
    "endpoint_name": "courier",
    "endpoint_config_name": "c-new",
    "previous_endpoint_config_name": "c-old",
    "action": "updated",
}


def test_a_live_endpoint_that_answers_wrongly_goes_back(
    sagemaker: FakeSageMaker, staged: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(sagemaker, "old")
    serve(sagemaker, "new")

    async def settle(_: Any) -> Any:
        sagemaker.finish_deployment("courier")
        return type("Event", (), {"payload": {"status": "success", "state": "InService", "message": ""}})

    monkeypatch.setattr(deployment, "first_event", settle)
    arguments = {**CHECK, "store": store(client=staged), "hook": FakeRegistryHook(sagemaker)}
    assert verify_endpoint(DEPLOYMENT, client=runtime(), **arguments)["problems"] == []
    assert sagemaker.called("update_endpoint") == []
    with pytest.raises(EndpointDeploymentError, match="it was put back to c-old"):
        verify_endpoint(DEPLOYMENT, client=runtime(image_1_0=[0.5, 0.5]), **arguments)
    assert sagemaker.things["endpoint", "courier"]["EndpointConfigName"] == "c-old"


def test_going_back_that_fails_is_told_and_a_first_endpoint_is_deleted(
    sagemaker: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(sagemaker, "old")
    serve(sagemaker, "new")
    hook = FakeRegistryHook(sagemaker)

    async def break_down(_: Any) -> Any:
        return type("Event", (), {"payload": {"status": "failed", "state": "Failed", "message": "no capacity"}})

    monkeypatch.setattr(deployment, "first_event", break_down)
    assert "failed too (Failed: no capacity)" in roll_back(DEPLOYMENT, hook)
    first = {**DEPLOYMENT, "previous_endpoint_config_name": ""}
    assert "no earlier config" in roll_back({**first, "action": "unchanged"}, hook)
    same = {**DEPLOYMENT, "previous_endpoint_config_name": DEPLOYMENT["endpoint_config_name"]}
    assert "no earlier config" in roll_back(same, hook)
    assert "c-gone no longer exists" in roll_back({**DEPLOYMENT, "previous_endpoint_config_name": "c-gone"}, hook)
    assert ("endpoint", "courier") in sagemaker.things
    assert "deleted" in roll_back({**first, "action": "created"}, hook)
    assert ("endpoint", "courier") not in sagemaker.things


def test_only_what_nothing_uses_is_retired(sagemaker: FakeSageMaker) -> None:
    hook = FakeRegistryHook(sagemaker)
    serve(sagemaker, "old")
    old_model = sagemaker.things["endpoint_config", "c-old"]["ProductionVariants"][0]["ModelName"]
    assert retire_superseded(DEPLOYMENT, hook)["kept"] == ["endpoint config c-old"]  # still served
    serve(sagemaker, "new")
    sagemaker.create_endpoint_config(EndpointConfigName="c-other", ProductionVariants=[{"ModelName": old_model}])
    assert retire_superseded(DEPLOYMENT, hook) == {
        "deleted": ["endpoint config c-old"],
        "kept": [f"model {old_model}"],
    }
    sagemaker.create_endpoint_config(EndpointConfigName="c-old", ProductionVariants=[{"ModelName": old_model}])
    del sagemaker.things["endpoint_config", "c-other"]
    assert f"model {old_model}" in retire_superseded(DEPLOYMENT, hook)["deleted"]
    assert retire_superseded(DEPLOYMENT, hook) == {"deleted": [], "kept": []}  # a retry
    assert retire_superseded({**DEPLOYMENT, "previous_endpoint_config_name": ""}, hook)["deleted"] == []


def test_a_config_an_update_is_going_to_is_in_use(sagemaker: FakeSageMaker) -> None:
    serve(sagemaker, "old")
    serve(sagemaker, "new")
    sagemaker.update_endpoint(EndpointName="courier", EndpointConfigName="c-old")
    assert retire_superseded(DEPLOYMENT, FakeRegistryHook(sagemaker))["kept"] == ["endpoint config c-old"]


def test_the_capture_is_complete_when_every_golden_request_is_in_it() -> None:
    s3, now = FakeS3(), datetime.now(UTC)
    check = {"inference_ids": ["golden-1", "golden-2"], "asked_at": now.isoformat()}
    folder = f"capture/courier/AllTraffic/{now:%Y/%m/%d/%H}"

    def record(inference_id: str) -> bytes:
        return json.dumps({"eventMetadata": {"inferenceId": inference_id}}).encode() + b"\n"

    assert capture_is_complete("b", "courier", check, 50, store(client=s3))  # sampling leaves it to chance
    assert not capture_is_complete("b", "courier", check, 100, store(client=s3))
    s3.objects[f"{folder}/00-00-000-a.jsonl"] = record("golden-1") + b'{"eventMetadata": {}}\n'
    assert not capture_is_complete("b", "courier", check, 100, store(client=s3))
    s3.objects[f"{folder}/00-01-000-b.jsonl"] = record("other") + record("golden-2")
    assert capture_is_complete("b", "courier", check, 100, store(client=s3))


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
    register(sagemaker, "new")
    serve(sagemaker, "new")
    for name in [name for kind, name in list(sagemaker.things) if kind == "model"]:
        if sagemaker.things["model", name]["PrimaryContainer"]["ModelDataUrl"].count("/j/"):
            del sagemaker.things["model", name]  # it was cleaned up
    chosen = choose_version(resources=RESOURCES, version=None, hook=FakeRegistryHook(sagemaker))
    assert (chosen["version"], chosen["job_name"], chosen["classes"]) == (1, "j", CLASSES)
    assert ("model", chosen["model_name"]) in sagemaker.things
    arguments: dict[str, Any] = {"deployment": DEPLOYMENT, "chosen": chosen, "bucket": "b", "run_id": "r"}
    fakes: dict[str, Any] = {"store": store(client=staged), "client": runtime()}
    assert check_rolled_back(**arguments, **fakes) == {"images": 8, "compared": True, "problems": []}
    with pytest.raises(EndpointDeploymentError, match="does not answer as the chosen version did"):
        check_rolled_back(**arguments, store=store(client=staged), client=runtime(image_0_1=[0.3, 0.7]))
    del staged.objects["evaluations/j/transform/0_0.png.out"]
    assert check_rolled_back(**arguments, **fakes)["compared"] is False


def test_errors_are_told_apart() -> None:
    assert is_absent(client_error("ValidationException", 'Could not find endpoint "x".'))
    assert not is_absent(client_error("ValidationException", "Cannot delete endpoint config in use"))
    assert already_there(client_error("ValidationException", "Cannot create already existing model"))
    assert already_there(client_error("ResourceInUse", "names must be unique"))
    assert not already_there(client_error("ValidationException", "1 validation error detected"))
    assert is_transient(ConnectionResetError())
    assert not is_transient(client_error("AccessDeniedException", "no"))
    assert not is_transient(ValueError())
