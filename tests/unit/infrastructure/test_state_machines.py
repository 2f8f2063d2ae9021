"""The workflow definitions, read as Amazon States Language: what is retried, what is caught, what is named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from infrastructure.artifacts import ROOT, artifacts, definitions
from lambdas import common

DEFINITIONS = {name: json.loads(text) for name, text in definitions().values()}
WORKFLOW, MAP = DEFINITIONS["stepfunction"], DEFINITIONS["distributed-map"]
FUNCTIONS = {
    "${SerializeFunctionArn}": "serialize_image",
    "${ClassifyFunctionArn}": "classify_image",
    "${FilterFunctionArn}": "filter_inferences",
    "${RecordFunctionArn}": "record_result",
}
SERVICE_ERRORS = {
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Sandbox.Timedout",
    "States.Timeout",
}


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
def test_the_services_a_workflow_calls_are_those_of_its_partition(partition: str) -> None:
    texts = [one.content.decode() for one in artifacts(partition) if one.parameter.endswith("DefinitionKey")]
    called = {found for text in texts for found in re.findall(r'"arn:([\w-]+):states:::', text)}
    assert len(texts) == len(DEFINITIONS)
    assert called == {partition}


def states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in definition["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


TASKS = [
    pytest.param(state, id=f"{machine}-{name}")
    for machine, definition in (("one", WORKFLOW), ("many", MAP))
    for name, state in states(definition)
    if state["Type"] == "Task"
]


def transient(function: str) -> set[str]:
    """The errors a function may raise that say of themselves that they are worth another try."""
    handler, core = (import_module(f"lambdas.{function}.{part}") for part in ("handler", "core"))
    asks_s3 = not {"s3_errors", "read_image"}.isdisjoint(vars(handler))
    values = [*vars(core).values(), *(vars(common).values() if asks_s3 else ())]
    errors = (value for value in values if isinstance(value, type) and issubclass(value, Exception))
    return {error.__name__ for error in errors if "worth another try" in (error.__doc__ or "")}


@pytest.mark.parametrize("state", TASKS)
def test_exactly_the_transient_errors_are_retried_with_backoff_and_jitter(state: dict[str, Any]) -> None:
    (retry,) = state["Retry"]
    ours = transient(FUNCTIONS[state["Parameters"]["FunctionName"]])
    assert ours
    assert set(retry["ErrorEquals"]) == ours | SERVICE_ERRORS
    assert retry["JitterStrategy"] == "FULL"
    assert retry["BackoffRate"] >= 2
    assert retry["MaxDelaySeconds"] <= 60
    assert 1 <= retry["MaxAttempts"] <= 6


@pytest.mark.parametrize("state", TASKS)
def test_every_task_has_a_deadline_beyond_its_functions(state: dict[str, Any]) -> None:
    assert state["Resource"] == "arn:aws:states:::lambda:invoke"
    assert state["TimeoutSeconds"] > 150


def test_the_workflow_is_three_tasks_that_pass_on_the_body_and_catch_nothing() -> None:
    assert list(WORKFLOW["States"]) == ["SerializeImage", "ClassifyImage", "FilterInferences"]
    for state in WORKFLOW["States"].values():
        assert state["OutputPath"] == "$.Payload.body"
        assert "Catch" not in state, "a caught error would lose its name"
    assert WORKFLOW["TimeoutSeconds"] <= 300, "an Express execution ends after five minutes"


def test_both_maps_treat_their_items_alike_and_as_the_workflow_does() -> None:
    listed, named = (MAP["States"][name] for name in ("EachObjectUnderPrefix", "EachKeyOfManifest"))
    renamed = json.loads(json.dumps(named["ItemProcessor"]).replace("OfManifest", ""))
    assert renamed == listed["ItemProcessor"]
    for name, state in WORKFLOW["States"].items():
        item = listed["ItemProcessor"]["States"][name]
        assert {key: item[key] for key in ("Resource", "Retry", "TimeoutSeconds")} == {
            key: state[key] for key in ("Resource", "Retry", "TimeoutSeconds")
        }
        assert item["Parameters"]["FunctionName"] == state["Parameters"]["FunctionName"]
        assert [catch["ErrorEquals"] for catch in item["Catch"]] == [["States.ALL"]]
        assert item["Catch"][0]["Next"] == "RecordResult"
    for state in (listed, named):
        assert state["ResultPath"] is None, "a map's result is limited to 256 KiB"
        assert state["MaxConcurrencyPath"] == "$.max_concurrency"
        assert state["ToleratedFailurePercentagePath"] == "$.tolerated_failure_percentage"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_state_names_are_unique_and_every_transition_leads_somewhere(name: str) -> None:
    definition = DEFINITIONS[name]
    names = [name for name, _ in states(definition)]
    assert len(names) == len(set(names))

    def check(scope: dict[str, Any]) -> None:
        own = set(scope["States"])
        assert scope["StartAt"] in own
        for state in scope["States"].values():
            targets = [state.get("Next"), state.get("Default")]
            targets += [branch["Next"] for branch in [*state.get("Catch", []), *state.get("Choices", [])]]
            assert {target for target in targets if target} <= own
            if "ItemProcessor" in state:
                check(state["ItemProcessor"])

    check(definition)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_independent_validator_accepts_the_definition(name: str, tmp_path: Path) -> None:
    folders = (ROOT / ".run" / "node" / "node_modules", ROOT / "node_modules")
    found = next((folder / ".bin" / "asl-validator" for folder in folders if (folder / ".bin").is_dir()), None)
    if found is None or not found.exists() or not shutil.which("node"):
        pytest.skip("asl-validator is not installed: npm install --prefix .run/node asl-validator@4.0.0")
    path = tmp_path / "definition.json"
    path.write_text(json.dumps(DEFINITIONS[name]))
    done = subprocess.run([str(found), "--json-path", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
