"""Requests are refused in AWS's words and answers written as the service model says."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_local import coverage
from sagemaker_local.app import areas, operations
from sagemaker_local.errors import SerializationException, UnknownOperationException, ValidationException
from sagemaker_local.protocol import SERVICES, operation_of, parse_request, serialise_answer, service_model
from tests.support.conformance import problems_of

ROLE = "arn:aws:iam::" + "1" * 12 + ":role/r"


def parse(operation: str, **request: Any) -> dict[str, Any]:
    return parse_request(operation_of(f"SageMaker.{operation}"), json.dumps(request).encode())


def message(operation: str, **request: Any) -> str:
    with pytest.raises(ValidationException) as caught:
        parse(operation, **request)
    return caught.value.message


@pytest.mark.parametrize(
    ("operation", "request_", "expected"),
    [
        (
            "DescribeModel",
            {},
            "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: "
            "Member must not be null",
        ),
        (
            "ListModels",
            {"MaxResults": 101},
            "1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: "
            "Member must have value less than or equal to 100",
        ),
        (
            "ListModels",
            {"SortOrder": "Up"},
            "1 validation error detected: Value 'Up' at 'sortOrder' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Ascending, Descending]",
        ),
        (
            "DescribeTrainingJob",
            {"TrainingJobName": "a_b"},
            "1 validation error detected: Value 'a_b' at 'trainingJobName' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        ),
        (
            "AddTags",
            {"ResourceArn": "arn:aws:sagemaker:us-east-1:" + "1" * 12 + ":model/m", "Tags": [{"Key": "k"}]},
            "1 validation error detected: Value null at 'tags.1.member.value' failed to satisfy constraint: "
            "Member must not be null",
        ),
    ],
)
def test_one_broken_constraint(operation, request_, expected):
    assert message(operation, **request_) == expected


def test_every_broken_constraint_is_listed():
    text = message("ListModels", MaxResults=0, SortBy="Size")
    assert text.startswith("2 validation errors detected: ")
    assert "at 'maxResults'" in text
    assert "at 'sortBy'" in text


def test_map_keys_and_values_are_checked():
    text = message(
        "CreateTrainingJob",
        TrainingJobName="t",
        RoleArn=ROLE,
        OutputDataConfig={"S3OutputPath": "s3://b/p"},
        HyperParameters={"k" * 300: "v"},
    )
    assert "Map keys must satisfy constraint: [Member must have length less than or equal to 256]" in text


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"ModelName": 3}, "NUMBER_VALUE can not be converted to a String at 'modelName'"),
        ({"ModelName": "m", "Tags": {}}, "START_OBJECT can not be converted to a list at 'tags'"),
        ({"ModelName": "m", "EnableNetworkIsolation": "yes"}, "STRING_VALUE can not be converted to a boolean"),
    ],
)
def test_a_wrong_json_type_is_a_serialization_exception(request_, words):
    with pytest.raises(SerializationException) as caught:
        parse("CreateModel", **request_)
    assert words in caught.value.message


def test_timestamps_come_as_numbers_or_text():
    assert parse("ListModels", CreationTimeAfter=1.5)["CreationTimeAfter"] == 1.5
    assert parse("ListModels", CreationTimeAfter="2026-01-01T00:00:00Z")["CreationTimeAfter"] == 1767225600.0
    with pytest.raises(SerializationException):
        parse("ListModels", CreationTimeAfter="soon")


def test_unknown_members_and_nulls_are_dropped():
    assert parse("DescribeModel", ModelName="m", Colour="red") == {"ModelName": "m"}
    assert parse("ListModels", NextToken=None) == {}


@pytest.mark.parametrize("target", ["", "SageMaker.Nothing", "DynamoDB_20120810.ListTables", "SageMaker."])
def test_unknown_operations(target):
    with pytest.raises(UnknownOperationException):
        operation_of(target)


@settings(deadline=None)  # the first request of a process compiles the patterns of the model
@given(st.sampled_from(sorted(service_model().operation_names)), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_no_request_body_breaks_the_parser(operation, document):
    """Whatever JSON arrives, it is accepted or refused with one of AWS's client errors."""
    shape = service_model().operation_model(operation).input_shape
    body = document
    if shape is not None and isinstance(document, dict):
        body = dict(zip(shape.members, document.values(), strict=False))
    with contextlib.suppress(ValidationException, SerializationException):
        parse_request(operation_of(f"SageMaker.{operation}"), json.dumps(body).encode())


def test_unicode_properties_in_patterns_are_understood():
    name = "arn:aws:sagemaker:us-east-1:" + "1" * 12 + ":model/m"
    tag = {"Key": "größe 1", "Value": "ça va"}
    assert parse("AddTags", ResourceArn=name, Tags=[tag])["Tags"] == [tag]
    assert "regular expression pattern" in message("AddTags", ResourceArn=name, Tags=[{"Key": "a!", "Value": "x"}])


def test_a_pattern_with_its_bounds_behind_its_end_is_one_all_the_same():
    arn = "arn:aws:sagemaker:us-east-1:" + "1" * 12 + ":model-package/g/1"
    taken = {"classes": "bicycle:motorcycle", "who": "Zoë"}
    parsed = parse("UpdateModelPackage", ModelPackageArn=arn, CustomerMetadataProperties=taken)
    assert parsed["CustomerMetadataProperties"] == taken
    refused = message("UpdateModelPackage", ModelPackageArn=arn, CustomerMetadataProperties={"classes": "a,b"})
    assert "regular expression pattern" in refused


def test_answers_have_the_members_of_the_output_shape_only():
    operation = operation_of("SageMaker.DescribeModel")
    answer = serialise_answer(
        operation, {"ModelName": "m", "ModelArn": "a", "CreationTime": 1.23456, "Secret": 1, "VpcConfig": None}
    )
    assert answer == {"ModelName": "m", "ModelArn": "a", "CreationTime": 1.235}


def test_an_answer_without_a_required_member_is_a_defect():
    with pytest.raises(TypeError, match="ModelArn"):
        serialise_answer(operation_of("SageMaker.DescribeModel"), {"ModelName": "m", "CreationTime": 1.0})


def test_the_conformance_check_of_the_contract_tests_sees_what_is_wrong():
    operation = operation_of("SageMaker.DescribeModel")
    wrong = b'{"ModelName": "under_score", "CreationTime": 17, "Colour": "red", "EnableNetworkIsolation": "no"}'
    found = "\n".join(problems_of(operation, wrong))
    for part in ("ModelArn is required", "does not match", "since the epoch", "Colour is not", "'no' is not a boolean"):
        assert part in found


def test_coverage_is_up_to_date():
    assert coverage.main(["--check"]) == 0, "run python -m sagemaker_local.coverage --write"


def test_every_operation_is_sagemakers_and_documented():
    for name, handler in operations(areas()).items():
        services = [service_model(service) for service in SERVICES.values()]
        assert any(name in service.operation_names for service in services)
        assert handler.__doc__, name
