"""Serving without processes: capture records, routing, deployment plans."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_local.s3 import DataError
from sagemaker_local.serving.capture import CaptureSettings, Invocation, object_key, record
from sagemaker_local.serving.deployment import DeploymentError, carry_out, make_plan, validate
from sagemaker_local.serving.routing import choose_instance, choose_weighted
from sagemaker_local.serving.settings import ServingSettings
from sagemaker_local.serving.specs import FleetSpec, VariantSpec

MOMENT = datetime(2024, 10, 16, 9, 25, 4, 144_000, UTC)
CONFIG = {
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://bucket//data_capture/",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
}
HEADERS = {"CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]}}


def captured(config: dict, **changes) -> dict:
    settings = CaptureSettings.from_config(config)
    assert settings is not None
    given = {
        "input_body": b"\x89PNG",
        "input_content_type": "image/png",
        "output_body": b"[0.2, 0.8]",
        "output_content_type": "application/json",
        "time": MOMENT,
    }
    line = record(settings, Invocation(**{**given, **changes}), event_id="f7b1243c")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line)


def test_record_has_exactly_the_keys_of_a_real_one():
    assert captured({**CONFIG, **HEADERS}) == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "image/png",
                "mode": "INPUT",
                "data": base64.b64encode(b"\x89PNG").decode(),
                "encoding": "BASE64",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": "[0.2, 0.8]",
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": "f7b1243c", "inferenceTime": "2024-10-16T09:25:04Z"},
        "eventVersion": "0",
    }


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/json", "JSON"),
        ("application/JSON; charset=utf-8", "JSON"),
        ("text/csv", "CSV"),
        ("application/jsonlines", "BASE64"),
        (None, "BASE64"),
    ],
)
def test_only_listed_content_types_stay_text(content_type, encoding):
    side = captured({**CONFIG, **HEADERS}, output_content_type=content_type)["captureData"]["endpointOutput"]
    assert side["encoding"] == encoding
    assert side["data"] == ("[0.2, 0.8]" if encoding != "BASE64" else base64.b64encode(b"[0.2, 0.8]").decode())
    assert side.get("observedContentType") == content_type


def test_without_headers_both_sides_are_base64():
    data = captured(CONFIG)["captureData"]
    assert {side["encoding"] for side in data.values()} == {"BASE64"}


def test_text_that_is_not_utf8_keeps_every_byte():
    side = captured({**CONFIG, **HEADERS}, output_body=b"\xff\xfe")["captureData"]["endpointOutput"]
    assert (side["encoding"], base64.b64decode(side["data"])) == ("BASE64", b"\xff\xfe")


def test_ids_and_attributes_are_kept_when_given():
    metadata = captured(CONFIG, inference_id="run-7", custom_attributes="test/a.png")["eventMetadata"]
    assert metadata["inferenceId"] == "run-7"
    assert metadata["customAttributes"] == ["test/a.png"]


@pytest.mark.parametrize(
    ("modes", "sides"),
    [
        (["Input"], {"endpointInput"}),
        (["Output"], {"endpointOutput"}),
        (["InputAndOutput"], {"endpointInput", "endpointOutput"}),
    ],
)
def test_capture_modes(modes, sides):
    config = {**CONFIG, "CaptureOptions": [{"CaptureMode": mode} for mode in modes]}
    assert set(captured(config)["captureData"]) == sides


@pytest.mark.parametrize(
    "uri", ["s3://bucket/data_capture", "s3://bucket//data_capture//", "https://host/bucket/data_capture/"]
)
def test_key_has_no_doubled_slash(uri):
    settings = CaptureSettings.from_config({**CONFIG, "DestinationS3Uri": uri})
    assert settings is not None
    assert settings.bucket == "bucket"
    key = object_key(settings, "ic-2024", "AllTraffic", MOMENT, "d1c957a6")
    assert key == "data_capture/ic-2024/AllTraffic/2024/10/16/09/25-04-144-d1c957a6.jsonl"


def test_key_without_prefix_starts_with_the_endpoint():
    settings = CaptureSettings.from_config({**CONFIG, "DestinationS3Uri": "s3://bucket"})
    assert settings is not None
    assert object_key(settings, "e", "v", MOMENT, "id").startswith("e/v/2024/")


def test_capture_that_is_off_or_points_nowhere():
    assert CaptureSettings.from_config(None) is None
    assert CaptureSettings.from_config({**CONFIG, "EnableCapture": False}) is None
    for uri in ("s3:///x", "s3://Bad_Bucket!/x", "https://host", "https://[/!", "https://host//"):
        with pytest.raises(DataError, match="is not an S3 URI"):
            CaptureSettings.from_config({**CONFIG, "DestinationS3Uri": uri})


@pytest.mark.parametrize("percentage", [0, 20, 100])
def test_sampling_takes_its_share(percentage):
    settings = CaptureSettings.from_config({**CONFIG, "InitialSamplingPercentage": percentage})
    assert settings is not None
    assert sum(settings.samples(draw / 1000) for draw in range(1000)) == percentage * 10


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 100), min_size=1), st.floats(0, 1, exclude_max=True))
def test_weighted_choice_never_takes_a_variant_without_weight(weights, draw):
    chosen = choose_weighted(weights, draw)
    assert chosen is None if sum(weights.values()) == 0 else weights[chosen or ""] > 0


def test_weighted_choice_follows_the_weights():
    counts = Counter(choose_weighted({"a": 3, "b": 0, "c": 1}, draw / 400) for draw in range(400))
    assert counts == {"a": 300, "c": 100}


@dataclass
class Busy:
    outstanding: int


def test_instance_strategies():
    idle, busy = Busy(0), Busy(3)
    assert choose_instance([], "RANDOM", 0.5) is None
    assert {id(choose_instance([idle, busy], "RANDOM", draw)) for draw in (0.1, 0.9)} == {id(idle), id(busy)}
    assert {id(choose_instance([idle, busy], "LEAST_OUTSTANDING_REQUESTS", draw)) for draw in (0.1, 0.9)} == {id(idle)}


# --- deployment plans


def blue_green(kind: str, wait: int = 0, **more) -> dict:
    sizes: dict = {key: more.pop(key) for key in ("CanarySize", "LinearStepSize") if key in more}
    routing: dict = {"Type": kind, "WaitIntervalInSeconds": wait, **sizes}
    policy: dict = {"TrafficRoutingConfiguration": routing, **more}
    return {"BlueGreenUpdatePolicy": policy}


PERCENT = "CAPACITY_PERCENT"


def size(kind: str, value: int) -> dict:
    return {"Type": kind, "Value": value}


@pytest.mark.parametrize(
    ("config", "instances", "shares"),
    [
        (None, 1, [1.0]),
        (blue_green("ALL_AT_ONCE", 5), 4, [1.0]),
        (blue_green("CANARY", 5, CanarySize=size(PERCENT, 10)), 4, [0.1, 1.0]),
        (blue_green("CANARY", 5, CanarySize=size("INSTANCE_COUNT", 1)), 4, [0.25, 1.0]),
        (blue_green("CANARY", 5, CanarySize=size("INSTANCE_COUNT", 1)), 1, [1.0]),
        (blue_green("LINEAR", 5, LinearStepSize=size(PERCENT, 25)), 4, [0.25, 0.5, 0.75, 1.0]),
        (blue_green("LINEAR", 5, LinearStepSize=size(PERCENT, 40)), 4, [0.4, 0.8, 1.0]),
        (blue_green("LINEAR", 5, LinearStepSize=size("INSTANCE_COUNT", 1)), 3, [1 / 3, 2 / 3, 1.0]),
    ],
)
def test_plan_shifts_traffic_as_configured(config, instances, shares):
    plan = make_plan(config, instances)
    assert [step.traffic for step in plan.steps] == pytest.approx(shares)
    assert all(step.new_capacity == 1.0 and step.old_capacity == 1.0 for step in plan.steps)


def test_rolling_plan_trades_instances_batch_by_batch():
    config = {"RollingUpdatePolicy": {"MaximumBatchSize": size(PERCENT, 50), "WaitIntervalInSeconds": 3}}
    steps = [(step.new_capacity, step.traffic, step.old_capacity) for step in make_plan(config, 4).steps]
    assert steps == [(0.5, 0.5, 0.5), (1.0, 1.0, 0.0)]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (blue_green("CANARY"), "CanarySize"),
        (blue_green("ALL_AT_ONCE", CanarySize=size(PERCENT, 10)), "CanarySize"),
        (blue_green("CANARY", CanarySize=size(PERCENT, 51)), "CanarySize"),
        (blue_green("LINEAR"), "LinearStepSize"),
        (blue_green("LINEAR", LinearStepSize=size(PERCENT, 9)), "LinearStepSize"),
        (
            {"RollingUpdatePolicy": {"MaximumBatchSize": size(PERCENT, 60), "WaitIntervalInSeconds": 0}},
            "MaximumBatchSize",
        ),
        (
            {
                **blue_green("ALL_AT_ONCE"),
                "RollingUpdatePolicy": {"MaximumBatchSize": size(PERCENT, 50), "WaitIntervalInSeconds": 0},
            },
            "only one of",
        ),
    ],
)
def test_wrong_deployment_configs_are_refused_by_name(config, named):
    with pytest.raises(ValueError, match=named):
        validate(config)


class Recorder:
    """Fleets and a clock that only write down what happens, and when."""

    def __init__(self, alarm_at: float | None = None, start_seconds: float = 0.0, start_error: str | None = None):
        self.time = 0.0
        self.events: list[tuple[float, str, float]] = []
        self.alarm_at = alarm_at
        self.start_seconds = start_seconds
        self.start_error = start_error

    async def grow_new(self, capacity, timeout):
        if self.start_error:
            raise DeploymentError(self.start_error)
        self.time += min(self.start_seconds, timeout)
        self.events.append((self.time, "grow", capacity))

    async def shift(self, share, note):
        self.events.append((self.time, "shift", share))

    async def shrink_old(self, capacity):
        self.events.append((self.time, "shrink", capacity))

    async def alarm(self):
        return "alarm rings" if self.alarm_at is not None and self.time >= self.alarm_at else None

    async def sleep(self, seconds):
        self.time += seconds

    def run(self, config, instances=4):
        asyncio.run(
            carry_out(
                make_plan(config, instances), self, alarm_reason=self.alarm, sleep=self.sleep, now=lambda: self.time
            )
        )


ALARMS = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]}}


def test_canary_waits_between_its_steps_and_before_the_old_fleet_ends():
    fleets = Recorder(start_seconds=5)
    fleets.run(blue_green("CANARY", 60, CanarySize=size(PERCENT, 10), TerminationWaitInSeconds=30))
    assert fleets.events == [
        (5, "grow", 1.0),
        (5, "shift", 0.1),
        (70, "grow", 1.0),
        (70, "shift", 1.0),
        (160, "shrink", 0.0),
    ]


@pytest.mark.parametrize(("alarm_at", "shifts"), [(0, []), (10, [0.1]), (70, [0.1, 1.0]), (130, [0.1, 1.0])])
def test_an_alarm_ends_the_deployment_wherever_it_is(alarm_at, shifts):
    fleets = Recorder(alarm_at=alarm_at)
    config = blue_green("CANARY", 60, CanarySize=size(PERCENT, 10), TerminationWaitInSeconds=30)
    with pytest.raises(DeploymentError, match="alarm rings"):
        fleets.run({**config, **ALARMS})
    assert [share for _, event, share in fleets.events if event == "shift"] == shifts
    assert "shrink" not in [event for _, event, _ in fleets.events]
    assert fleets.time < alarm_at + 2.001


def test_a_fleet_that_cannot_start_takes_no_traffic():
    fleets = Recorder(start_error="no ping")
    with pytest.raises(DeploymentError, match="no ping"):
        fleets.run(blue_green("ALL_AT_ONCE"))
    assert fleets.events == []


def test_a_deployment_that_takes_too_long_is_ended():
    fleets = Recorder()
    config = blue_green("LINEAR", 400, LinearStepSize=size(PERCENT, 25), MaximumExecutionTimeoutInSeconds=600)
    with pytest.raises(DeploymentError, match="MaximumExecutionTimeoutInSeconds"):
        fleets.run(config)
    assert fleets.time <= 600


# --- specs and settings


def fleet(**changes) -> FleetSpec:
    variant = VariantSpec("a", "m", "image", None, {}, "ml.m5.large", 2, 1.0)
    return FleetSpec(**{"id": "f", "config_name": "c", "created": 1.0, "variants": (variant,), **changes})


def test_specs_survive_the_store():
    spec = fleet(data_capture=CONFIG)
    assert FleetSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_retained_properties_come_from_the_old_fleet_unless_excluded():
    old = fleet(data_capture=CONFIG).with_desired(
        [{"VariantName": "a", "DesiredWeight": 7.0, "DesiredInstanceCount": 5}]
    )
    kept = fleet().retaining(old, frozenset())
    assert (kept.variants[0].weight, kept.variants[0].instance_count, kept.data_capture) == (7.0, 5, CONFIG)
    kept = fleet().retaining(old, frozenset({"DesiredWeight", "DataCaptureConfig"}))
    assert (kept.variants[0].weight, kept.variants[0].instance_count, kept.data_capture) == (1.0, 5, None)


def test_desired_weights_of_an_unknown_variant():
    with pytest.raises(KeyError, match="ghost"):
        fleet().with_desired([{"VariantName": "ghost", "DesiredWeight": 1.0}])


def test_settings_from_the_environment():
    chosen = ServingSettings.from_environment(
        {"SAGEMAKER_LOCAL_INVOCATION_TIMEOUT": "2.5", "SAGEMAKER_LOCAL_CONNECTIONS_PER_INSTANCE": "4"}
    )
    assert (chosen.invocation_timeout, chosen.connections_per_instance) == (2.5, 4)
    for value in ("soon", "-1", "nan", "inf"):
        with pytest.raises(ValueError, match="SAGEMAKER_LOCAL_PING_INTERVAL"):
            ServingSettings.from_environment({"SAGEMAKER_LOCAL_PING_INTERVAL": value})
