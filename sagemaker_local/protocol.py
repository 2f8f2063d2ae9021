"""Requests and answers by botocore's own service model, so that what is accepted here is what AWS accepts.

Messages are AWS's: "1 validation error detected: Value 'x' at 'y' failed to satisfy constraint: ...".
Inside the service a timestamp is a float of seconds since the epoch and a blob is `bytes`.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from sagemaker_local.errors import SerializationException, UnknownOperationException, ValidationException

# Prefixes of X-Amz-Target, and the services that botocore knows by another name.
SERVICES = {
    "SageMaker": "sagemaker",
    "AnyScaleFrontendService": "application-autoscaling",
    "SageMakerMetrics": "sagemaker-metrics",
}
_WHOLE = {"integer": 1 << 31, "long": 1 << 63}
# Required by the model, and not answered by AWS: a version of a group has no name of its own.
_LEFT_OUT = {"DescribeModelPackageOutput": ["ModelPackageName"]}
_DEEPEST = 100  # dots in a path; the deepest request of the model has fewer than 20


@lru_cache(maxsize=len(SERVICES))
def service_model(service: str = "sagemaker") -> ServiceModel:
    """A service's API as botocore describes it."""
    return botocore.session.get_session().get_service_model(service)


def operation_of(target: str) -> OperationModel:
    """The operation an `X-Amz-Target` header names.

    Raises:
        UnknownOperationException: it names none.
    """
    prefix, _, name = target.partition(".")
    if prefix not in SERVICES or name not in service_model(SERVICES[prefix]).operation_names:
        raise UnknownOperationException(f"Unknown operation {target!r}: expected X-Amz-Target: SageMaker.<Operation>")
    return service_model(SERVICES[prefix]).operation_model(name)


# --- requests ---


def parse_request(operation: OperationModel, body: bytes) -> dict[str, Any]:
    """Check a JSON body against the operation's input shape and return it with known members only.

    Unknown members and nulls are dropped, as AWS does.

    Raises:
        SerializationException: the body is no JSON object, is nested too deeply, or has a value of a wrong JSON type.
        ValidationException: constraints are violated; the message lists every one.
    """
    try:
        document = json.loads(body or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SerializationException(f"The request body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SerializationException("The request body must be a JSON object")
    shape = operation.input_shape
    if shape is None:
        return {}
    problems: list[str] = []
    parsed: dict[str, Any] = _parse(shape, document, "", problems)
    if problems:
        plural = "error" if len(problems) == 1 else "errors"
        raise ValidationException(f"{len(problems)} validation {plural} detected: {'; '.join(problems)}")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _parse(shape: Shape, value: Any, path: str, problems: list[str]) -> Any:
    if path.count(".") > _DEEPEST:
        raise SerializationException(f"The request is nested too deeply at '{path[:100]}...'")
    if isinstance(shape, StructureShape):
        return _parse_structure(shape, _typed(value, dict, path, "an object"), path, problems)
    if isinstance(shape, ListShape):
        items = _typed(value, list, path, "a list")
        _check_size(shape, items, path, problems)
        return [_parse(shape.member, item, f"{path}.{n}.member", problems) for n, item in enumerate(items, 1)]
    if isinstance(shape, MapShape):
        entries = _typed(value, dict, path, "an object")
        _check_size(shape, entries, path, problems)
        return {_text(k, path): _parse_entry(shape, k, v, path, problems) for k, v in entries.items() if v is not None}
    return _parse_scalar(shape, value, path, problems)


def _parse_structure(shape: StructureShape, value: dict[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for name, member in shape.members.items():
        where = f"{path}.{_camel(name)}" if path else _camel(name)
        given = value.get(name)
        if given is not None:
            parsed[name] = _parse(member, given, where, problems)
        elif name in shape.required_members:
            problems.append(f"Value null at '{where}' failed to satisfy constraint: Member must not be null")
    if shape.is_tagged_union and len(parsed) != 1:
        problems.append(f"Value at '{path}' failed to satisfy constraint: Exactly one member of the union must be set")
    return parsed


def _parse_entry(shape: MapShape, key: str, value: Any, path: str, problems: list[str]) -> Any:
    for part, inner, given in (("Map keys", shape.key, key), ("Map value", shape.value, value)):
        if isinstance(given, str) and inner.type_name == "string":
            broken = _broken_constraints(inner, given)
            if broken:
                problems.append(
                    f"Value '{{{key}={value}}}' at '{path}' failed to satisfy constraint: "
                    f"{part} must satisfy constraint: [{', '.join(broken)}]"
                )
                return value
    return _parse(shape.value, value, f"{path}.{key}", problems)


def _parse_scalar(shape: Shape, value: Any, path: str, problems: list[str]) -> Any:
    kind = shape.type_name
    if kind in _WHOLE:
        number = _number(value, path, "an Integer")
        if number != int(number) or not -_WHOLE[kind] <= number < _WHOLE[kind]:
            raise SerializationException(f"{_token(value)} can not be converted to an Integer at '{path}'")
        value = int(value)
    elif kind in ("float", "double"):
        value = _number(value, path, "a Float")
    elif kind == "boolean":
        _typed(value, bool, path, "a boolean")
    elif kind == "timestamp":
        value = _epoch(value, path)
    elif kind == "blob":
        try:
            value = base64.b64decode(_typed(value, str, path, "a base64 string"), validate=True)
        except ValueError as error:
            raise SerializationException(f"Invalid base64 at '{path}'") from error
    elif kind == "string":
        _text(_typed(value, str, path, "a String"), path)
    for constraint in _broken_constraints(shape, value):
        problems.append(f"Value '{value}' at '{path}' failed to satisfy constraint: {constraint}")
    return value


def _broken_constraints(shape: Shape, value: Any) -> list[str]:
    broken = []
    limits = shape.metadata
    if isinstance(value, str):
        if enum := getattr(shape, "enum", None):
            if value not in enum:
                broken.append(f"Member must satisfy enum value set: [{', '.join(enum)}]")
            return broken
        broken += _size_constraints(limits, len(value))
        pattern = limits.get("pattern")
        if pattern and not broken and not _pattern(pattern).fullmatch(value):  # a long one is not worth matching
            broken.append(f"Member must satisfy regular expression pattern: {pattern}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and shape.type_name != "timestamp":
        if "min" in limits and value < limits["min"]:
            broken.append(f"Member must have value greater than or equal to {limits['min']}")
        if "max" in limits and value > limits["max"]:
            broken.append(f"Member must have value less than or equal to {limits['max']}")
    return broken


def _size_constraints(limits: dict[str, Any], size: int) -> list[str]:
    broken = []
    if size < limits.get("min", 0):
        broken.append(f"Member must have length greater than or equal to {limits['min']}")
    if size > limits.get("max", sys.maxsize):
        broken.append(f"Member must have length less than or equal to {limits['max']}")
    return broken


def _check_size(shape: Shape, value: list[Any] | dict[str, Any], path: str, problems: list[str]) -> None:
    for constraint in _size_constraints(shape.metadata, len(value)):
        problems.append(f"Value '{value}' at '{path}' failed to satisfy constraint: {constraint}")


def _typed(value: Any, kind: type, path: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise SerializationException(f"{_token(value)} can not be converted to {wanted} at '{path}'")
    return value


def _number(value: Any, path: str, wanted: str) -> float:
    """A finite number. JSON's own may be larger than any float."""
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SerializationException(f"{_token(value)} can not be converted to {wanted} at '{path}'")
    return number


def _text(value: str, path: str) -> str:
    """Text that can be stored and handed to a process. JSON's escapes allow half a surrogate pair, and NUL."""
    try:
        fine = b"\0" not in value.encode()
    except UnicodeEncodeError:
        fine = False
    if not fine:
        raise SerializationException(f"STRING_VALUE at '{path}' holds a character that no text has")
    return value


def _token(value: Any) -> str:
    names = {
        str: "STRING_VALUE",
        bool: "TRUE_VALUE" if value else "FALSE_VALUE",
        dict: "START_OBJECT",
        list: "START_ARRAY",
    }
    return names.get(type(value), "NUMBER_VALUE")


def _epoch(value: Any, path: str) -> float:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise SerializationException(f"Invalid timestamp at '{path}': {value}") from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return _number(value, path, "a Timestamp")


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of the model as a Python one: Java's \\p classes are spelled out as character ranges.

    One has its bounds behind its end (`${1,256}`). Those with lone surrogates are malformed, and match anything.
    """
    translated = re.sub(r"\\p\{(\w+)\}", lambda found: _category(found.group(1)), pattern)
    translated = re.sub(r"\$\{\d+,\d+\}$", "$", translated)
    try:
        return re.compile(translated, re.DOTALL if pattern == ".*" else 0)
    except re.error:
        return re.compile(r"(?s).*")


@lru_cache(maxsize=16)
def _category(name: str) -> str:
    """A Unicode general category (`L`, `Z`, ...) or Java's `Alnum` as the inside of a character class."""
    if name == "Alnum":
        return "a-zA-Z0-9"
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


# --- answers ---


def serialise_answer(operation: OperationModel, answer: dict[str, Any] | None) -> dict[str, Any]:
    """The answer as JSON-ready data: members the output shape knows, nulls left out, timestamps as epoch seconds.

    Raises:
        TypeError: a required member is missing: a defect of this service, not of the request.
    """
    if operation.output_shape is None:
        return {}
    serialised: dict[str, Any] = _serialise(operation.output_shape, answer or {}, operation.name)
    return serialised


def _serialise(shape: Shape, value: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        missing = [name for name in shape.required_members if value.get(name) is None]
        if missing and missing != _LEFT_OUT.get(shape.name):
            raise TypeError(f"answer lacks required members {missing} at {path}")
        return {
            name: _serialise(member, value[name], f"{path}.{name}")
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if isinstance(shape, ListShape):
        return [_serialise(shape.member, item, path) for item in value]
    if isinstance(shape, MapShape):
        return {key: _serialise(shape.value, item, f"{path}.{key}") for key, item in value.items()}
    if shape.type_name == "timestamp":
        return value.timestamp() if isinstance(value, datetime) else round(float(value), 3)
    if shape.type_name == "blob":
        return base64.b64encode(value).decode("ascii")
    return value
