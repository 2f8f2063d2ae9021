"""The options of a command, made of the form of its DAG: what the form knows of a param, its option knows."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, FormatChecker

KINDS = {"integer": (int, "N"), "number": (float, "NUMBER"), "string": (str, "TEXT")}


class UsageError(Exception):
    """The command line asks for what there is not; the message says what there is."""


class Parser(argparse.ArgumentParser):
    """A parser that leaves it to its caller how a mistake is told."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of writing and leaving."""
        raise UsageError(message)


def add_form(parser: Parser, params: Mapping[str, Any]) -> None:
    """Add an option for each param, in the form's sections."""
    groups: dict[str, Any] = {}
    for name, param in params.items():
        section = param.schema.get("section") or "params"
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        option = "--" + name.replace("_", "-")
        told = f"{param.description or param.schema.get('title', '')} Default: {_shown(param.value)}."
        groups[section].add_argument(
            option, dest=name, default=argparse.SUPPRESS, help=told.replace("%", "%%"), **_kind(param.schema)
        )


def _kind(schema: Mapping[str, Any]) -> dict[str, Any]:
    declared = schema.get("type", "string")
    kind = next(one for one in ([declared] if isinstance(declared, str) else declared) if one != "null")
    if kind == "boolean":
        return {"action": argparse.BooleanOptionalAction}
    if kind == "array":
        return {"nargs": "*", "metavar": "TEXT"}
    convert, metavar = KINDS[kind]
    choices = schema.get("enum")
    return {"type": convert, **({"choices": choices} if choices else {"metavar": metavar})}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value) or "none"
    return "none" if value in (None, "") else str(value)


def parse(parser: Parser, arguments: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that were given.

    Raises:
        UsageError: an option that there is not, or a value that the form would not take.
    """
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UsageError(_unknown(unknown[0], parser))
    conf = {name: getattr(options, name) for name in params if hasattr(options, name)}
    for name, value in conf.items():
        found = next(Draft202012Validator(params[name].schema, format_checker=FormatChecker()).iter_errors(value), None)
        if found is not None or value != value:  # not a number
            raise UsageError(f"argument --{name.replace('_', '-')}: {found.message if found else 'not a number'}")
    return conf


def _unknown(word: str, parser: Parser) -> str:
    if not word.startswith("-"):
        return f"unrecognized argument: {word}"
    name = word.partition("=")[0]
    known: Iterable[str] = (text for action in parser._actions for text in action.option_strings)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "--help shows what there is"
    return f"unrecognized option {name}: {hint}"
