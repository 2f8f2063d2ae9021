"""Where MiniStack still differs from AWS, as docs/parity.md lists it.

Each test states what MiniStack does today: one that fails says that MiniStack has mended it, and the list is to be cut.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.local_service import wait_execution

ROLE = "arn:aws:iam::111122223333:role/unused"

Start = Callable[..., str]


@pytest.fixture(scope="module")
def start(ministack: str, aws: Callable[..., Any]) -> Start:
    """Make a state machine of the states and start it; returns the execution's ARN."""
    client = aws("stepfunctions")

    def start(states: dict[str, Any], data: Any = None, name: str | None = None) -> str:
        machine = client.create_state_machine(
            name=f"parity-{uuid.uuid4().hex[:8]}",
            roleArn=ROLE,
            definition=json.dumps({"StartAt": next(iter(states)), "States": states}),
        )["stateMachineArn"]
        more = {"name": name} if name else {}
        arn: str = client.start_execution(stateMachineArn=machine, input=json.dumps(data or {}), **more)["executionArn"]
        return arn

    return start


@pytest.fixture(scope="module")
def run(start: Start, aws: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """The same, to its end."""

    def run(states: dict[str, Any], data: Any = None) -> dict[str, Any]:
        return wait_execution(aws("stepfunctions"), start(states, data))

    return run


Ended = Callable[..., dict[str, Any]]

PASS: dict[str, Any] = {"Type": "Pass", "End": True}


def test_a_failed_execution_cannot_be_redriven(run: Ended, aws: Callable[..., Any]) -> None:
    arn = run({"S": {"Type": "Fail"}})["executionArn"]
    with pytest.raises(ClientError) as refused:
        aws("stepfunctions").redrive_execution(executionArn=arn)
    assert refused.value.response["Error"]["Code"] == "InvalidAction"


def test_a_name_used_again_with_the_same_input_is_refused(start: Start, aws: Callable[..., Any]) -> None:
    """AWS gives the running execution back: `scones.batch` adopts it either way."""
    arn = start({"S": {"Type": "Wait", "Seconds": 5, "End": True}}, name=uuid.uuid4().hex)
    found = aws("stepfunctions").describe_execution(executionArn=arn)
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        aws("stepfunctions").start_execution(
            stateMachineArn=found["stateMachineArn"], name=found["name"], input=found["input"]
        )


@pytest.mark.parametrize("path", ["$.list[?(@.x == 1)]", "$..x", "$.list[0:1]", "$.list[-1:]"])
def test_filters_slices_and_descent_are_not_understood(run: Ended, path: str) -> None:
    """On AWS they are; here they fail the execution, rather than giving null."""
    ended = run({"S": PASS | {"OutputPath": path}}, {"list": [{"x": 1}]})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    assert "does not know its form" in ended["cause"]


def distributed(**more: Any) -> dict[str, Any]:
    processor = {"ProcessorConfig": {"Mode": "DISTRIBUTED"}, "StartAt": "P", "States": {"P": PASS}}
    return {"M": {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": processor, "End": True, **more}}


def test_a_variable_is_not_read_by_jsonpath(run: Ended) -> None:
    setting = {"Type": "Pass", "Assign": {"v.$": "$.x"}, "Next": "T"}
    ended = run({"S": setting, "T": PASS | {"Parameters": {"y.$": "$v"}}}, {"x": 1})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")


def test_a_distributed_map_does_not_batch(run: Ended) -> None:
    ended = run(distributed(ItemBatcher={"MaxItemsPerBatch": 2}), {"items": [1, 2, 3]})
    assert json.loads(ended["output"]) == [1, 2, 3], "on AWS: two batches"


def test_a_distributed_map_does_not_write_its_results(run: Ended) -> None:
    writer = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "absent", "Prefix": "p"}}
    ended = run(distributed(ResultWriter=writer), {"items": [1]})
    assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", [1]), "on AWS: States.ResultWriterFailed"


def test_an_input_over_the_limit_is_taken(start: Start) -> None:
    assert start({"S": {"Type": "Fail"}}, "x" * 262_143), "on AWS: StartExecution is refused with ValidationException"


def test_the_history_names_no_state_of_a_branch(run: Ended, aws: Callable[..., Any]) -> None:
    branches = [{"StartAt": "Inner", "States": {"Inner": PASS}}]
    ended = run({"P": {"Type": "Parallel", "Branches": branches, "End": True}})
    events = aws("stepfunctions").get_execution_history(executionArn=ended["executionArn"])["events"]
    entered = [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]
    assert entered == ["P"], "on AWS: P and Inner"
