"""Is an answer what the service model says? Read from the raw JSON, with none of the service's own code."""

from __future__ import annotations

import json
import re
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

# The SDK's resources rely on it: they go by the ARN of a version, which has no name.
LEFT_OUT = {("DescribeModelPackageOutput", "ModelPackageName")}
_JSON_TYPES: dict[str, Any] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (int, float),
    "blob": (str,),
}


def problems_of(operation: OperationModel, body: bytes) -> list[str]:
    """What in the answer does not conform; empty when all does."""
    document = json.loads(body or b"{}")
    if operation.output_shape is None:
        return [f"unexpected members {sorted(document)}"] if document else []
    return list(_walk(operation.output_shape, document, operation.name))


def _walk(shape: Shape, value: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield f"{path}: not an object"
            return
        for name in shape.required_members:
            if name not in value and (shape.name, name) not in LEFT_OUT:
                yield f"{path}: {name} is required"
        for name, inner in value.items():
            if name not in shape.members:
                yield f"{path}: {name} is not a member"
            else:
                yield from _walk(shape.members[name], inner, f"{path}.{name}")
    elif isinstance(shape, ListShape):
        yield from _size(shape, value, path)
        for number, inner in enumerate(value):
            yield from _walk(shape.member, inner, f"{path}[{number}]")
    elif isinstance(shape, MapShape):
        yield from _size(shape, value, path)
        for key, inner in value.items():
            yield from _walk(shape.key, key, f"{path} key")
            yield from _walk(shape.value, inner, f"{path}.{key}")
    else:
        yield from _scalar(shape, value, path)


def _scalar(shape: Shape, value: Any, path: str) -> Any:
    if not isinstance(value, _JSON_TYPES[shape.type_name]):
        yield f"{path}: {value!r} is not a {shape.type_name}"
        return
    if shape.type_name == "timestamp" and not 1_600_000_000 < value < 4_000_000_000:
        yield f"{path}: {value!r} is not seconds since the epoch"
    if isinstance(value, str):
        enum = getattr(shape, "enum", None)
        if enum and value not in enum:
            yield f"{path}: {value!r} is not one of {enum}"
        yield from _size(shape, value, path)
        pattern = shape.metadata.get("pattern")
        if pattern and "\\p" not in pattern and not re.fullmatch(pattern, value):
            yield f"{path}: {value!r} does not match {pattern}"
    elif shape.type_name in ("integer", "long", "float", "double") and not (
        shape.metadata.get("min", value) <= value <= shape.metadata.get("max", value)
    ):
        yield f"{path}: {value!r} is out of range"


def _size(shape: Shape, value: Any, path: str) -> Any:
    if len(value) < shape.metadata.get("min", 0) or len(value) > shape.metadata.get("max", len(value)):
        yield f"{path}: {len(value)} is not an allowed length"
