"""Search: training and tuning jobs, endpoints, model packages, experiments and their records, by any property.

A property is a path into the resource (`HyperParameters.epochs`, `InputDataConfig.DataSource.S3DataSource.S3Uri`);
inside a list it is every element's. `Tags.<key>` is a tag, `Metrics.<name>` a training job's final metric. Everything
is filtered and sorted in memory: unlike the List operations, Search reads every resource of its kind once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from sagemaker_local import registry
from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ValidationException, unsupported
from sagemaker_local.experiments.records import COMPONENT, EXPERIMENT, TRIAL, component_document, trial_document
from sagemaker_local.listing import DEFAULT_PAGE, page_of
from sagemaker_local.protocol import service_model
from sagemaker_local.serving import operations as endpoints
from sagemaker_local.serving import states
from sagemaker_local.store import Resource
from sagemaker_local.training.runner import TRAINING
from sagemaker_local.tuning import state as tuning
from sagemaker_local.tuning.state import TUNING

Document = dict[str, Any]
_SHAPES = {"HyperParameterTuningJob": "HyperParameterTuningJobSearchEntity"}  # others are named as the resource is


def _documents(ctx: Context) -> dict[str, tuple[str, Callable[[Resource], Document]]]:
    """Kind of row, and description, by the names of resources."""
    return {
        "TrainingJob": (TRAINING.kind, TRAINING.describe),
        "HyperParameterTuningJob": (TUNING.kind, lambda row: tuning.description(ctx, row)),
        "Endpoint": (states.ENDPOINT, lambda row: endpoints.description(ctx, row)),
        "ModelPackage": (registry.PACKAGE, registry.package_description),
        "ModelPackageGroup": (registry.GROUP, registry.group_description),
        "Experiment": (EXPERIMENT.kind, EXPERIMENT.describe),
        "ExperimentTrial": (TRIAL.kind, lambda row: trial_document(ctx, row)),
        "ExperimentTrialComponent": (COMPONENT.kind, lambda row: component_document(ctx, row)),
    }


def search(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Finds jobs, endpoints, packages, groups and experiments' records by filters, nested ones and subexpressions."""
    resource = request["Resource"]
    known = _documents(ctx)
    if resource not in known:
        raise unsupported("Resource", f"{resource}; Search knows {', '.join(known)}")
    if request.get("VisibilityConditions"):
        raise unsupported("VisibilityConditions", "conditions on who sees a resource")
    if request.get("CrossAccountFilterOption") == "CrossAccount":
        return {"Results": [], "TotalHits": {"Value": 0, "Relation": "EqualTo"}}
    word = resource if resource == "Experiment" else resource.removeprefix("Experiment")
    shape = service_model().shape_for(_SHAPES.get(word, word))
    matches = _expression(shape, request.get("SearchExpression") or {})
    kind, describe = known[resource]
    found = []
    for row in ctx.store.every(kind):
        document = describe(row)
        document["Tags"] = [{"Key": key, "Value": value} for key, value in ctx.store.tags(row.arn).items()]
        if matches(document):
            found.append(document)
    sort_by = request.get("SortBy", "LastModifiedTime" if "LastModifiedTime" in shape.members else "CreationTime")
    _check_property(shape, sort_by)
    found.sort(key=lambda document: _order(_values(document, sort_by)), reverse=request.get("SortOrder") != "Ascending")
    page, token = page_of(found, request.get("NextToken"), request.get("MaxResults", DEFAULT_PAGE))
    return {
        "Results": [{word: document} for document in page],
        "NextToken": token,
        "TotalHits": {"Value": len(found), "Relation": "EqualTo"},
    }


def _expression(shape: Shape, expression: Document) -> Callable[[Document], bool]:
    """Whether a document meets a SearchExpression.

    Raises:
        ValidationException: a filter names a property there is not, or one that is no list of objects to nest in, or
            its Value does not go with its operator.
    """
    parts = [_filter(shape, one) for one in expression.get("Filters", ())]
    parts += [_nested(shape, one) for one in expression.get("NestedFilters", ())]
    parts += [_expression(shape, one) for one in expression.get("SubExpressions", ())]
    if expression.get("Operator", "And") == "Or" and parts:
        return lambda document: any(part(document) for part in parts)
    return lambda document: all(part(document) for part in parts)


def _nested(shape: Shape, nested: Document) -> Callable[[Document], bool]:
    """Whether one element of a list meets all filters, whose names are full paths through the list."""
    name = nested["NestedPropertyName"]
    inner = _check_property(shape, name)
    if not isinstance(inner, ListShape):
        raise ValidationException(f"NestedPropertyName {name} must name a list of objects.")
    parts = []
    for one in nested["Filters"]:
        if not one["Name"].startswith(f"{name}."):
            raise ValidationException(f"The nested filter {one['Name']} must begin with {name}.")
        _check_property(shape, one["Name"])
        parts.append(_filter(inner.member, {**one, "Name": one["Name"].removeprefix(f"{name}.")}))
    return lambda document: any(all(part(element) for part in parts) for element in _values(document, name))


def _filter(shape: Shape, given: Document) -> Callable[[Document], bool]:
    name, value = given["Name"], given.get("Value")
    operator = given.get("Operator", "Exists" if value is None else "Equals")
    _check_property(shape, name)
    if operator in ("Exists", "NotExists"):
        if value is not None:
            raise ValidationException(f"The filter on {name} must have no Value with the operator {operator}.")
        return lambda document: bool(_values(document, name)) == (operator == "Exists")
    if value is None:
        raise ValidationException(f"The filter on {name} needs a Value with the operator {operator}.")
    compare = _OPERATORS[operator]
    if operator == "NotEquals":
        return lambda document: not any(_OPERATORS["Equals"](found, value) for found in _values(document, name))
    return lambda document: any(compare(found, value) for found in _values(document, name))


def _number(value: Any, given: str) -> tuple[float, float]:
    """Both sides of a comparison as numbers; times may be given as ISO 8601.

    Raises:
        ValueError: `value` is no number, or `given` neither a number nor a time.
        TypeError: `value` is neither a number nor text.
    """
    try:
        return float(value), float(given)
    except ValueError:
        moment = datetime.fromisoformat(given)
        return float(value), (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _equals(value: Any, given: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == given.lower()
    try:
        left, right = _number(value, given)
    except (ValueError, TypeError):
        return str(value) == given
    return left == right


def _compares(holds: Callable[[float, float], bool]) -> Callable[[Any, str], bool]:
    def compare(value: Any, given: str) -> bool:
        try:
            return holds(*_number(value, given))
        except (ValueError, TypeError):
            return False

    return compare


_OPERATORS: dict[str, Callable[[Any, str], bool]] = {
    "Equals": _equals,
    "NotEquals": _equals,
    "Contains": lambda value, given: given.lower() in str(value).lower(),
    "In": lambda value, given: any(_equals(value, one.strip()) for one in given.split(",")),
    "GreaterThan": _compares(gt),
    "GreaterThanOrEqualTo": _compares(ge),
    "LessThan": _compares(lt),
    "LessThanOrEqualTo": _compares(le),
}


def _check_property(shape: Shape, name: str) -> Shape | None:
    """The shape of a property; None for a tag, a metric or a map's entry.

    Raises:
        ValidationException: there is no such property.
    """
    head, _, rest = name.partition(".")
    if rest and head in ("Tags", "Metrics"):
        return None
    if isinstance(shape, ListShape):
        return _check_property(shape.member, name)
    if isinstance(shape, MapShape):
        return None
    if not isinstance(shape, StructureShape) or head not in shape.members:
        raise ValidationException(f"Unknown property name: {name}. {shape.name} has no property {head}.")
    return _check_property(shape.members[head], rest) if rest else shape.members[head]


def _values(document: Document, name: str) -> list[Any]:
    """Every value that a property path leads to."""
    head, _, rest = name.partition(".")
    if rest and head == "Tags":
        return [tag["Value"] for tag in document.get("Tags", ()) if tag["Key"] == rest]
    if rest and head == "Metrics":
        found = document.get("FinalMetricDataList", ())
        return [metric["Value"] for metric in found if metric["MetricName"] == rest]
    return list(_walk(document, name))


def _walk(value: Any, path: str) -> Iterator[Any]:
    if isinstance(value, list):
        for element in value:
            yield from _walk(element, path)
    elif not path:
        if value is not None:
            yield value
    elif isinstance(value, dict):
        if path in value:  # a map's key may have dots in it
            yield from _walk(value[path], "")
            return
        head, _, rest = path.partition(".")
        if head in value:
            yield from _walk(value[head], rest)


def _order(values: list[Any]) -> tuple[int, float, str]:
    """Numbers by value, then words, after what has no such property."""
    if not values:
        return (0, 0.0, "")
    first = values[0]
    if isinstance(first, int | float):
        return (1, float(first), "")
    return (2, 0.0, str(first))


OPERATIONS = operations(search)
