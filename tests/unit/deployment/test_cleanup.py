"""Cleanup: never what is in use, in the right order, with what each thing costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scones.aws.lineage import tags
from scones.deployment.aws import DeploymentAws, take_inventory
from scones.deployment.cleanup import CleanupRequest, ConfirmationError, delete_planned, plan_cleanup
from scones.deployment.cleanup_plan import ORDER, Config, Endpoint, Folder, Inventory, Item, Model, plan, table, totals
from tests.support.fake_aws import FakeRegistryHook, FakeS3, FakeSageMaker, FakeScaling, client_error, store

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD = NOW - timedelta(days=90)
FLEET_USD = 83.95
PRODUCTION = "courier"
REQUEST = CleanupRequest(older_than_days=7, objects_older_than_days=30)

FULL = Inventory(
    endpoints=[
        Endpoint("courier", ("c-live", "c-next"), OLD, 0, FLEET_USD, ours=True),
        Endpoint("forgotten", ("c-forgotten",), OLD, 0, FLEET_USD, ours=True),
        Endpoint("busy", ("c-busy",), OLD, 7, FLEET_USD, ours=True),
        Endpoint("somebody-elses", ("c-theirs",), OLD, 0, FLEET_USD, ours=False),
        Endpoint("young", ("c-young",), NOW - timedelta(hours=1), 0, FLEET_USD, ours=True),
    ],
    configs=[
        Config(name, (f"m-{name[2:]}",), OLD, ours=name != "c-theirs")
        for name in ("c-live", "c-next", "c-forgotten", "c-busy", "c-theirs", "c-young", "c-unused")
    ],
    models=[
        Model(f"m-{name}", "", OLD, ours=name != "theirs")
        for name in ("live", "next", "forgotten", "busy", "theirs", "young", "unused", "alone")
    ],
    folders=[
        Folder("training/a/", 3, 1024**3, OLD),
        Folder("training/b/", 3, 10, OLD, why_kept="a registered version needs it"),
        Folder("capture/courier/AllTraffic/2026/06/01/", 3, 10, NOW),
    ],
    production="courier",
)


def planned(inventory: Inventory = FULL) -> list[Item]:
    return plan(inventory, now=NOW, older_than_days=7, folders_older_than_days=30)


def deleted(items: list[Item]) -> set[str]:
    return {item.name for item in items if item.action == "delete"}


def test_only_what_is_old_unused_and_ours_goes() -> None:
    gone = {"forgotten", "c-forgotten", "c-unused", "m-forgotten", "m-unused", "m-alone", "training/a/"}
    assert deleted(planned()) == gone


def test_the_order_is_endpoint_config_model_objects() -> None:
    kinds = [item.kind for item in planned() if item.action == "delete"]
    assert kinds == sorted(kinds, key=ORDER.index)
    assert kinds[0] == "endpoint"


def test_every_row_says_why_and_what_it_costs() -> None:
    rows = {item.name: item for item in planned()}
    assert rows["courier"].reason == "serves production"
    assert rows["busy"].reason == "had 7 requests"
    assert rows["somebody-elses"].reason == "not the project's"
    assert rows["c-next"].reason == "an endpoint uses it"  # an update is going there
    assert rows["forgotten"].monthly_usd == pytest.approx(83.95)
    assert rows["training/a/"].monthly_usd == 0.023
    assert totals(planned())["monthly_usd_freed"] == pytest.approx(83.97)
    text = table(planned())
    assert text.splitlines()[0].split() == ["action", "kind", "name", "age", "USD/month", "why"]
    assert "83.95" in text


def test_an_unknown_price_is_not_guessed() -> None:
    odd = Endpoint("odd", (), OLD, 0, None, ours=True)
    row = next(item for item in planned(replace(FULL, endpoints=[odd])) if item.name == "odd")
    assert (row.action, row.monthly_usd) == ("delete", None)
    assert "unknown" in table([row])
    assert totals([row])["monthly_usd_freed"] == 0


def test_an_endpoint_costs_what_it_runs_now(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    """Not what its config began with, nor what an update is going to."""
    sagemaker.update_endpoint(EndpointName="courier", EndpointConfigName="c-forgotten")
    sagemaker.things["endpoint", "courier"]["ProductionVariants"] = [{"VariantName": "v", "CurrentInstanceCount": 3}]
    inventory = take_inventory(aws(sagemaker, bucket), now=NOW, traffic_days=7)
    assert [one.monthly_usd for one in inventory.endpoints if one.name == "courier"] == [pytest.approx(3 * FLEET_USD)]


names = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.lists(st.tuples(names, st.sets(names), st.booleans(), st.booleans()), max_size=4, unique_by=lambda e: e[0]),
    st.dictionaries(names, st.sets(names), max_size=4),
)
def test_nothing_in_use_ever_goes(
    endpoints: list[tuple[str, set[str], bool, bool]], configs: dict[str, set[str]]
) -> None:
    inventory = Inventory(
        endpoints=[
            Endpoint(name, tuple(sorted(used)), OLD, 1 if busy else 0, FLEET_USD, ours=ours)
            for name, used, busy, ours in endpoints
        ],
        configs=[Config(name, tuple(sorted(models)), OLD, ours=True) for name, models in configs.items()],
        models=[Model(name, "", OLD, ours=True) for name in "abcd"],
        folders=[],
    )
    items = planned(inventory)
    gone = {(item.kind, item.name) for item in items if item.action == "delete"}
    for name, used, _, _ in endpoints:
        if ("endpoint", name) not in gone:
            assert not {("endpoint config", config) for config in used} & gone
    for name, models in configs.items():
        if ("endpoint config", name) not in gone:
            assert not {("model", model) for model in models} & gone


class FakeCloudWatch:
    def __init__(self, invocations: dict[str, float]) -> None:
        self.invocations = invocations

    def get_metric_statistics(
        self, *, Dimensions: list[dict[str, str]], StartTime: datetime, EndTime: datetime, Period: int, **_: Any
    ) -> dict[str, Any]:
        if not StartTime < EndTime or (EndTime - StartTime).total_seconds() / Period > 1440:
            raise client_error("InvalidParameterValue", "the window is empty, or has too many datapoints")
        total = self.invocations.get(Dimensions[0]["Value"], 0)
        return {"Datapoints": [{"Sum": total}] if total else []}


def aws(
    sagemaker: FakeSageMaker, bucket: FakeS3, invocations: dict[str, float] | None = None, scaling: Any = None
) -> DeploymentAws:
    clients = {"cloudwatch": FakeCloudWatch(invocations or {}), "application-autoscaling": scaling or FakeScaling()}
    return DeploymentAws(store(client=bucket), FakeRegistryHook(sagemaker), clients.__getitem__)


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> FakeSageMaker:
    client = FakeSageMaker()
    client.clock = OLD
    for name in ("courier", "forgotten"):
        artifact = f"s3://b/training/{name}/output/model.tar.gz"
        client.create_model(
            ModelName=f"m-{name}", ModelArn=f"arn:m-{name}", PrimaryContainer={"ModelDataUrl": artifact}
        )
        client.create_endpoint_config(
            EndpointConfigName=f"c-{name}",
            EndpointConfigArn=f"arn:c-{name}",
            ProductionVariants=[
                {"ModelName": f"m-{name}", "VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
            ],
        )
        client.create_endpoint(EndpointName=name, EndpointConfigName=f"c-{name}")
        client.finish_deployment(name)
    client.__dict__["list_tags"] = lambda ResourceArn: {"Tags": tags({})}
    return client


@pytest.fixture
def bucket() -> FakeS3:
    s3 = FakeS3()
    for job in ("courier", "forgotten", "leftover"):
        s3.objects[f"training/{job}/output/model.tar.gz"] = b"model"
    s3.objects["training/fingerprints/f.json"] = b"{}"
    s3.objects["capture/courier/AllTraffic/2026/01/01/04/a.jsonl"] = b"{}"
    return s3


def test_a_dry_look_and_then_the_deletion(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    fakes = aws(sagemaker, bucket)
    before = (dict(sagemaker.things), dict(bucket.objects))
    made = plan_cleanup(REQUEST, PRODUCTION, fakes, NOW)
    assert (dict(sagemaker.things), dict(bucket.objects)) == before
    assert made["delete"] == 5
    done = delete_planned(made, REQUEST, PRODUCTION, fakes, NOW)
    assert done["kept"] == []
    assert done["deleted"] == [
        "endpoint forgotten",
        "endpoint config c-forgotten",
        "model m-forgotten",
        "objects capture/courier/AllTraffic/2026/01/01/",
        "objects training/leftover/",
    ]
    assert sorted(bucket.objects) == [
        "training/courier/output/model.tar.gz",
        "training/fingerprints/f.json",
        "training/forgotten/output/model.tar.gz",
    ]
    again = delete_planned(made, REQUEST, PRODUCTION, fakes, NOW)
    assert again["deleted"] == []


def test_what_came_into_use_after_the_plan_is_kept(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    fakes = aws(sagemaker, bucket)
    made = plan_cleanup(REQUEST, PRODUCTION, fakes, NOW)
    sagemaker.update_endpoint(EndpointName="courier", EndpointConfigName="c-forgotten")
    done = delete_planned(made, REQUEST, PRODUCTION, fakes, NOW)
    assert {"endpoint config c-forgotten", "model m-forgotten"} <= set(done["kept"])


def test_a_plan_of_long_ago_deletes_nothing_that_is_needed_by_now(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    """The task may be cleared days later: an endpoint has requests then, and an old training a model."""
    made = plan_cleanup(REQUEST, PRODUCTION, aws(sagemaker, bucket), NOW)
    artifact = "s3://b/training/leftover/output/model.tar.gz"
    sagemaker.create_model(ModelName="m-new", ModelArn="arn:new", PrimaryContainer={"ModelDataUrl": artifact})
    done = delete_planned(made, REQUEST, PRODUCTION, aws(sagemaker, bucket, {"forgotten": 1}), NOW)
    assert done["deleted"] == ["objects capture/courier/AllTraffic/2026/01/01/"]
    assert {"endpoint forgotten", "objects training/leftover/"} <= set(done["kept"])


def test_objects_that_s3_keeps_are_not_said_to_be_deleted(
    sagemaker: FakeSageMaker, bucket: FakeS3, caplog: pytest.LogCaptureFixture
) -> None:
    fakes = aws(sagemaker, bucket)
    made = plan_cleanup(REQUEST, PRODUCTION, fakes, NOW)
    bucket.forbidden.add("capture/courier/AllTraffic/2026/01/01/04/a.jsonl")
    done = delete_planned(made, REQUEST, PRODUCTION, fakes, NOW)
    assert done["kept"] == ["objects capture/courier/AllTraffic/2026/01/01/"]
    assert done["deleted"][-1] == "objects training/leftover/"
    assert "(AccessDenied)" in caplog.text
    assert "1 of 1 objects of b were kept, the first is capture/courier/" in caplog.text


def test_the_production_endpoint_ends_only_by_its_typed_name(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    """However busy it is: there is one way out, and a slip is none."""
    scaling = FakeScaling(known=True)
    busy = aws(sagemaker, bucket, {"courier": 1000, "forgotten": 1}, scaling)
    for slip in ("Courier", "forgotten", "yes"):
        with pytest.raises(ConfirmationError, match="'courier'"):
            plan_cleanup(replace(REQUEST, end_production=slip), PRODUCTION, busy, NOW)
    ended = replace(REQUEST, end_production="courier")
    made = plan_cleanup(ended, PRODUCTION, busy, NOW)
    row = next(item for item in made["items"] if item["name"] == "courier")
    assert (row["action"], row["reason"]) == ("delete", "it was named to be ended")
    done = delete_planned(made, ended, PRODUCTION, busy, NOW)
    assert done["deleted"][:3] == ["endpoint courier", "endpoint config c-courier", "model m-courier"]
    assert [name for name, _ in scaling.calls] == ["deregister_scalable_target"]
    assert ("endpoint", "forgotten") in sagemaker.things


def test_endpoints_of_others_may_bring_their_models_by_other_ways(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    """By inference components, which the config does not name, or in the shadow of another variant."""
    components = {"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    shadow = {**components, "ModelName": "m-forgotten"}
    sagemaker.create_endpoint_config(EndpointConfigName="c-components", ProductionVariants=[components])
    sagemaker.create_endpoint_config(
        EndpointConfigName="c-shadow", ProductionVariants=[components], ShadowProductionVariants=[shadow]
    )
    for name in ("components", "shadow"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"c-{name}")
        sagemaker.finish_deployment(name)
    ours, theirs = sagemaker.list_tags, {"arn:components", "arn:shadow"}
    sagemaker.__dict__["list_tags"] = lambda ResourceArn: (
        {"Tags": []} if ResourceArn in theirs else ours(ResourceArn=ResourceArn)
    )
    fakes = aws(sagemaker, bucket)
    made = plan_cleanup(REQUEST, PRODUCTION, fakes, NOW)
    done = delete_planned(made, REQUEST, PRODUCTION, fakes, NOW)
    assert {"endpoint forgotten", "endpoint config c-forgotten"} <= set(done["deleted"])
    assert not {"model m-forgotten", "endpoint components", "endpoint config c-shadow"} & set(done["deleted"])
    assert fakes.sagemaker.served_model("components") is None
    assert "m-forgotten" in fakes.sagemaker.models_in_use()


@pytest.mark.parametrize("days", [0, 1, 36_500])
def test_however_long_ago_the_last_request_may_be_cloudwatch_can_be_asked(
    sagemaker: FakeSageMaker, bucket: FakeS3, days: int
) -> None:
    inventory = take_inventory(aws(sagemaker, bucket, {"forgotten": 3}), now=NOW, traffic_days=days)
    assert {one.name: one.invocations for one in inventory.endpoints} == {"courier": 0, "forgotten": 3 if days else 0}


def test_what_an_endpoint_used_goes_while_it_is_still_being_deleted(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    """On AWS that takes minutes, in which it is still listed."""
    fakes = aws(sagemaker, bucket)

    def delete_endpoint(EndpointName: str) -> None:
        sagemaker.things["endpoint", EndpointName]["EndpointStatus"] = "Deleting"

    sagemaker.__dict__["delete_endpoint"] = delete_endpoint
    ended = replace(REQUEST, end_production="courier")
    made = plan_cleanup(ended, PRODUCTION, fakes, NOW)
    done = delete_planned(made, ended, PRODUCTION, fakes, NOW)
    assert done["deleted"][:6] == [
        *("endpoint courier", "endpoint forgotten"),
        *("endpoint config c-courier", "endpoint config c-forgotten"),
        *("model m-courier", "model m-forgotten"),
    ]


def test_an_endpoint_with_requests_stays(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    inventory = take_inventory(aws(sagemaker, bucket, {"forgotten": 3}), now=NOW, traffic_days=7)
    kept = planned(replace(inventory, production="courier"))
    assert deleted(kept) == {"training/leftover/", "capture/courier/AllTraffic/2026/01/01/"}


def test_a_registered_artifact_is_kept_though_its_model_is_gone(sagemaker: FakeSageMaker, bucket: FakeS3) -> None:
    sagemaker.create_model_package_group(ModelPackageGroupName="scones-courier")
    container = {"Image": "i", "ModelDataUrl": "s3://b/training/leftover/output/model.tar.gz"}
    sagemaker.create_model_package(
        ModelPackageGroupName="scones-courier", InferenceSpecification={"Containers": [container]}
    )
    inventory = take_inventory(aws(sagemaker, bucket), now=NOW, traffic_days=7)
    assert "training/leftover/" not in deleted(planned(inventory))
