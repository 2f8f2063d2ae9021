"""The pages for jobs, endpoints and executions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from scones.ui.aws import NoSuchResourceError, describe
from scones.ui.pages import resource
from scones.ui.resources import PAGES, Described, endpoint_cost, flatten
from tests.support.fake_aws import FakeSageMaker, client_error


def test_a_resource_page_shows_status_reason_members_and_log() -> None:
    sagemaker = FakeSageMaker()
    sagemaker.create_training_job(TrainingJobName="j", HyperParameters={"epochs": "3"}, InputDataConfig=[{"A": 1}])
    sagemaker.things["training_job", "j"] |= {"TrainingJobStatus": "Failed", "FailureReason": "why"}

    class Logs:
        @staticmethod
        def describe_log_streams(**arguments: Any) -> Any:
            assert arguments["logStreamNamePrefix"] == "j/"
            return {"logStreams": [{"logStreamName": "j/algo-1"}]}

        @staticmethod
        def get_log_events(**_: Any) -> Any:
            return {"events": [{"message": "Epoch[0] Validation-accuracy=0.875000\n"}]}

    page = describe("training-jobs", "j", lambda service: Logs if service == "logs" else sagemaker)
    assert (page.status, page.reason, page.tone) == ("Failed", "why", "violation")
    assert page.log == ["Epoch[0] Validation-accuracy=0.875000"]
    assert "epoch 0, validation: 0.8750" in page.chart
    assert ("Hyperparameters", ["epochs 3"]) in page.facts
    assert ("HyperParameters.epochs", "3") in page.rows
    assert ("InputDataConfig[0].A", "1") in page.rows
    assert list(flatten({"a": {"b": [1, {"c": 2}]}})) == [("a.b[0]", "1"), ("a.b[1].c", "2")]
    for kind, name in (("training-jobs", "nobody"), ("volcanoes", "j"), ("training-jobs", "")):
        with pytest.raises(NoSuchResourceError):
            describe(kind, name, lambda _: sagemaker)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("tuning-jobs", "ResourceNotFound"),
        ("training-jobs", "ValidationException"),
        ("executions", "ExecutionDoesNotExist"),
    ],
)
def test_what_was_deleted_is_said_to_be_gone_in_each_services_words(kind: str, code: str) -> None:
    class Service:
        def __getattr__(self, _: str) -> Any:
            return self.refuse

        @staticmethod
        def refuse(**_: Any) -> Any:
            raise client_error(code, "gone")

    with pytest.raises(NoSuchResourceError, match="'gone'"):
        describe(kind, "gone", lambda _: Service())


def test_a_resource_page_escapes_what_it_shows() -> None:
    hostile = "<script>alert(1)</script>"
    members = {"TrainingJobStatus": "Failed", "FailureReason": hostile, "HyperParameters": {"a": hostile, hostile: "b"}}
    text = resource("/scones", Described(PAGES["training-jobs"], hostile, members, [hostile]))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_an_endpoint_has_a_price_where_its_instances_have_one() -> None:
    endpoint: Any = {
        "CreationTime": datetime(2026, 1, 1, tzinfo=UTC),
        "ProductionVariants": [{"VariantName": "a", "CurrentInstanceCount": 2}],
    }
    config: Any = {
        "ProductionVariants": [{"VariantName": "a", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}]
    }
    text = endpoint_cost(endpoint, config, datetime(2026, 1, 2, tzinfo=UTC), real=False)
    assert text.startswith("It would cost on AWS about 167.90 USD a month as it is now, 5.52 USD since it started")
    config["ProductionVariants"][0]["InstanceType"] = "ml.unheard.of"
    assert endpoint_cost(endpoint, config, datetime(2026, 1, 2, tzinfo=UTC)) == ""
