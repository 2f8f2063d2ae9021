"""State machines in JSONata where MiniStack's interpreter passes over what AWS does or refuses.

The rules are those of docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from embedded.patches.checks import replaceable

# Fields of a state that belong to one query language alone.
_ONLY = {
    "JSONPath": (
        "InputPath", "OutputPath", "Parameters", "ResultSelector", "ResultPath", "ItemsPath", "SecondsPath",
        "TimestampPath", "ErrorPath", "CausePath", "TimeoutSecondsPath", "HeartbeatSecondsPath", "MaxConcurrencyPath",
        "ToleratedFailureCountPath", "ToleratedFailurePercentagePath", "CredentialsPath",
    ),
    "JSONata": ("Arguments", "Output", "Items"),
}  # fmt: skip


def honour_jsonata(engine: Any) -> None:
    """Succeed has an Output, a Condition is a boolean, and no state mixes the fields of both query languages."""
    validate = replaceable(engine, "_validate_definition_jsonata", ("definition_str",))
    output_path = replaceable(engine, "_apply_output_path", ("state_def", "data", "ctx"))
    replaceable(engine, "_evaluate_jsonata_choice_rule", ("rule", "raw_input", "ctx"))
    field = replaceable(engine, "_jsonata_state_field", ("state_def", "field", "expected", "raw_input", "ctx"))
    language = replaceable(engine, "_state_query_language", ("state_def", "ctx"))
    output = replaceable(
        engine, "_apply_jsonata_output", ("state_def", "raw_input", "ctx", "result", "error_output", "default")
    )

    def apply_output_path(state_def: dict[str, Any], data: Any, ctx: Any = None) -> Any:
        if state_def.get("Type") == "Succeed" and language(state_def, ctx) == "JSONata":
            return output(state_def, data, ctx, default=data)
        return output_path(state_def, data, ctx)

    def validate_definition(definition_str: Any) -> str | None:
        return validate(definition_str) or _mixture(definition_str)

    engine._apply_output_path = apply_output_path
    engine._validate_definition_jsonata = validate_definition
    engine._evaluate_jsonata_choice_rule = lambda rule, data, ctx: field(rule, "Condition", "boolean", data, ctx)


def _mixture(definition: Any) -> str | None:
    """What is wrong with the query languages of a definition, or None."""
    try:
        machine = json.loads(definition)
        top = machine.get("QueryLanguage", "JSONPath")
        for path, state in _states(machine, ""):
            own = state.get("QueryLanguage", top)
            if top == "JSONata" and own != top:
                return _refusal(f"'QueryLanguage' can not be '{own}' if set to 'JSONata' for whole state machine", path)
            other = "JSONPath" if own == "JSONata" else "JSONata"
            for name in _ONLY[other]:
                if name in state:
                    return _refusal(f"The field '{name}' is not supported for the QueryLanguage '{own}'", path)
    except (TypeError, ValueError, AttributeError, KeyError):
        return None  # other checks say what is wrong with it
    return None


def _refusal(what: str, path: str) -> str:
    return f"Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: {what} at {path}'"


def _states(machine: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state of a machine and of the machines within it, with its place."""
    for name, state in machine["States"].items():
        place = f"{path}/States/{name}"
        yield place, state
        inner = [(word, state[word]) for word in ("ItemProcessor", "Iterator") if word in state]
        inner += [(f"Branches[{number}]", branch) for number, branch in enumerate(state.get("Branches", ()))]
        for word, below in inner:
            yield from _states(below, f"{place}/{word}")
