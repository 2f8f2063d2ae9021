"""State machines on the real platform, against Step Functions' documentation.

docs.aws.amazon.com/step-functions/latest/dg: concepts-error-handling.html, concepts-input-output-filtering.html,
service-quotas.html. What stays different is in docs/parity.md: a test below turns red when MiniStack mends it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.local_service import wait_execution

ROLE = "arn:aws:iam::111122223333:role/unused"

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(ministack: str, aws: Callable[..., Any]) -> Run:
    """Run a state machine on an input, to its end."""
    client = aws("stepfunctions")

    def run(states: dict[str, Any], data: Any, **top: Any) -> dict[str, Any]:
        definition = {"StartAt": next(iter(states)), "States": states, **top}
        machine = client.create_state_machine(
            name=f"probe-{uuid.uuid4().hex[:8]}", roleArn=ROLE, definition=json.dumps(definition)
        )["stateMachineArn"]
        arn = client.start_execution(stateMachineArn=machine, input=json.dumps(data))["executionArn"]
        return wait_execution(client, arn)

    return run


def single(**state: Any) -> dict[str, Any]:
    return {"S": {"Type": "Pass", "End": True, **state}}


RULE = {"Variable": "$.absent", "StringEquals": "x", "Next": "Done"}


@pytest.mark.parametrize(
    "states",
    [
        single(InputPath="$.absent"),
        single(OutputPath="$.absent"),
        single(OutputPath="$.text.deeper"),
        single(OutputPath="$.list[3]"),
        single(Parameters={"x.$": "$.absent"}),
        single(Parameters={"x": {"y.$": "$.there.absent"}}),
        single(Parameters={"x.$": "$$.Execution.Absent"}),
        single(Parameters={"x.$": "States.Format('{}', $.absent)"}),
        {"S": {"Type": "Choice", "Choices": [RULE], "Default": "Done"}, "Done": {"Type": "Succeed"}},
        {"S": {"Type": "Choice", "Choices": [{"Not": RULE, "Next": "Done"}]}, "Done": {"Type": "Succeed"}},
        {"S": {"Type": "Wait", "SecondsPath": "$.absent", "End": True}},
        {"S": {"Type": "Map", "ItemsPath": "$.absent", "End": True, "Iterator": {"StartAt": "S", "States": single()}}},
        {"S": {"Type": "Map", "ItemsPath": "$.text", "End": True, "Iterator": {"StartAt": "S", "States": single()}}},
    ],
)
def test_a_path_that_finds_nothing_fails_the_execution(run: Run, states: dict[str, Any]) -> None:
    ended = run(states, {"there": {}, "null": None, "text": "x", "list": [1]})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    assert ended["cause"]


@pytest.mark.parametrize(
    ("states", "output"),
    [
        (single(OutputPath="$.null"), None),
        (single(OutputPath="$.list[*].x"), []),
        (single(Parameters={"x.$": "$.null"}), {"x": None}),
        (single(Parameters={"x.$": "$$.Execution.RoleArn"}), {"x": ROLE}),
        (single(InputPath=None), {}),
    ],
)
def test_what_is_there_is_found_null_and_nothing_of_many_too(run: Run, states: dict[str, Any], output: Any) -> None:
    ended = run(states, {"null": None, "list": [1]})
    assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", output)


@pytest.mark.parametrize(("path", "present"), [("$.null", True), ("$.absent", False), ("$.there.absent", False)])
def test_is_present_asks_without_failing(run: Run, path: str, present: bool) -> None:
    rule = {"Variable": path, "IsPresent": True, "Next": "Yes"}
    states = {
        "S": {"Type": "Choice", "Choices": [rule], "Default": "No"},
        "Yes": {"Type": "Pass", "Result": True, "End": True},
        "No": {"Type": "Pass", "Result": False, "End": True},
    }
    assert json.loads(run(states, {"null": None, "there": {}})["output"]) is present


def test_nothing_catches_or_retries_states_runtime(run: Run) -> None:
    inner = {"StartAt": "S", "States": single(OutputPath="$.absent")}
    every = {"ErrorEquals": ["States.ALL"]}
    caught = {"Type": "Parallel", "Branches": [inner], "End": True, "Catch": [every | {"Next": "Caught"}]}
    ended = run({"P": caught | {"Retry": [every]}, "Caught": {"Type": "Succeed"}}, {})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


def test_fail_may_name_neither_error_nor_cause(run: Run) -> None:
    ended = run({"S": {"Type": "Fail"}}, {})
    assert ended["status"] == "FAILED"
    assert not {"error", "cause", "output", "outputDetails"} & set(ended)


def test_a_failed_execution_has_no_output(run: Run) -> None:
    ended = run({"S": {"Type": "Fail", "Error": "E", "Cause": "C"}}, {})
    assert (ended["error"], ended["cause"], "output" in ended) == ("E", "C", False)


@pytest.mark.parametrize(("letters", "status"), [(262_142, "SUCCEEDED"), (262_143, "FAILED")])
def test_a_payload_has_a_limit(run: Run, letters: int, status: str) -> None:
    """A text of n letters is n + 2 bytes of JSON."""
    ended = run(single(Result="x" * letters), {})
    assert ended["status"] == status
    assert ended.get("error") == (None if status == "SUCCEEDED" else "States.DataLimitExceeded")


def test_a_payload_is_counted_in_bytes_of_utf_8(run: Run) -> None:
    assert run(single(Result="ü" * 131_071), {})["status"] == "SUCCEEDED"
    assert run(single(Result="ü" * 131_072), {})["error"] == "States.DataLimitExceeded"


def test_a_state_machine_may_have_a_limit_of_time(run: Run, aws: Callable[..., Any]) -> None:
    ended = run({"S": {"Type": "Wait", "Seconds": 2, "End": True}}, {}, TimeoutSeconds=1)
    assert (ended["status"], "output" in ended) == ("TIMED_OUT", False)
    events = aws("stepfunctions").get_execution_history(executionArn=ended["executionArn"])["events"]
    assert [event["type"] for event in events if event["type"].startswith("Execution")] == [
        "ExecutionStarted", "ExecutionTimedOut",
    ]  # fmt: skip


CHOICE = {"Type": "Choice", "Default": "Low"}
LOW = {"Type": "Fail", "Error": "LOW", "Cause": "{% 'only ' & $string($states.input.p) %}"}


@pytest.mark.parametrize(
    ("states", "output"),
    [
        (single(Output={"n": "{% $states.input.p * 2 %}", "text": "p"}), {"n": 1.0, "text": "p"}),
        (single(Output="{% $states.context.Execution.Input.p %}"), 0.5),
        (
            {"S": {"Type": "Pass", "Assign": {"v": "{% $states.input.p %}"}, "Next": "T"},
             "T": {"Type": "Succeed", "Output": "{% $v + 1 %}"}},
            1.5,
        ),
        (
            {"S": {"Type": "Map", "Items": "{% [1, 2] %}", "End": True, "Output": "{% $sum($states.result) %}",
                   "ItemProcessor": {"StartAt": "S", "States": single(Output="{% $states.input * 10 %}")}}},
            30,
        ),
        (
            {"S": {**CHOICE, "Choices": [{"Condition": "{% $states.input.p < 0.9 %}", "Next": "T"}]},
             "T": {"Type": "Succeed", "Output": "{% 'low' %}"}, "Low": LOW},
            "low",
        ),
    ],
)  # fmt: skip
def test_a_machine_may_speak_jsonata(run: Run, states: dict[str, Any], output: Any) -> None:
    """Source: transforming-data.html."""
    ended = run(states, {"p": 0.5}, QueryLanguage="JSONata")
    assert json.loads(ended["output"]) == output


@pytest.mark.parametrize(
    ("states", "error", "cause"),
    [
        (single(Output="{% $states.input.absent %}"), "States.QueryEvaluationError", ""),
        (single(Output="{% 'a' + 1 %}"), "States.QueryEvaluationError", ""),
        ({"S": {**CHOICE, "Choices": [{"Condition": "{% 'x' %}", "Next": "Low"}]}, "Low": LOW},
         "States.QueryEvaluationError", "boolean"),
        ({"S": {**CHOICE, "Choices": [{"Condition": "{% $states.input.p > 0.9 %}", "Next": "S"}]}, "Low": LOW},
         "LOW", "only 0.5"),
    ],
)  # fmt: skip
def test_jsonata_fails_with_what_went_wrong(run: Run, states: dict[str, Any], error: str, cause: str) -> None:
    ended = run(states, {"p": 0.5}, QueryLanguage="JSONata")
    assert (ended["status"], ended["error"]) == ("FAILED", error)
    assert cause in ended["cause"]


@pytest.mark.parametrize(
    ("states", "top", "words"),
    [
        (single(Parameters={"a.$": "$.p"}), "JSONata", "'Parameters' is not supported"),
        (single(Output={"a": 1}), "JSONPath", "'Output' is not supported"),
        (single(QueryLanguage="JSONPath"), "JSONata", "can not be 'JSONPath'"),
        (single(Output="{% $states.input + %}"), "JSONata", "INVALID_JSONATA_EXPRESSION"),
        (
            {"S": {"Type": "Map", "End": True, "ItemProcessor": {"StartAt": "S", "States": single(ResultPath="$.a")}}},
            "JSONata",
            "/States/S/ItemProcessor/States/S",
        ),
    ],
)
def test_what_belongs_to_the_other_language_is_refused(
    run: Run, aws: Callable[..., Any], states: dict[str, Any], top: str, words: str
) -> None:
    with pytest.raises(aws("stepfunctions").exceptions.InvalidDefinition) as refused:
        run(states, {}, QueryLanguage=top)
    assert words in str(refused.value)
