"""Create, Describe, List, Update and Delete of experiments, trials and trial components, and who belongs to whom."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ResourceNotFound, ValidationException
from sagemaker_local.experiments.records import (
    COMPONENT,
    EXPERIMENT,
    TRIAL,
    Record,
    components_of,
    join,
    leave,
    trials_of,
)
from sagemaker_local.listing import list_resources
from sagemaker_local.store import Resource
from sagemaker_local.tags import tag_dict

_MAPS = ("Parameters", "InputArtifacts", "OutputArtifacts")


def create_experiment(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """An experiment: a name for trials to be compared under."""
    return _created(ctx, EXPERIMENT, request)


def create_trial(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """A trial of an experiment: a set of components."""
    return _created(ctx, TRIAL, request, EXPERIMENT.find(ctx, request["ExperimentName"]).name)


def create_trial_component(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """A component with parameters, artifacts and status; jobs with an ExperimentConfig make their own."""
    return _created(ctx, COMPONENT, request)


def describe_experiment(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The experiment."""
    return EXPERIMENT.describe(EXPERIMENT.find(ctx, request["ExperimentName"]))


def describe_trial(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The trial with its experiment's name."""
    return TRIAL.describe(TRIAL.find(ctx, request["TrialName"]))


def describe_trial_component(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The component; a job's has its parameters, artifacts, status and metrics."""
    return COMPONENT.describe(COMPONENT.find(ctx, request["TrialComponentName"]))


def update_experiment(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Another display name or description."""
    return _updated(ctx, EXPERIMENT, request)


def update_trial(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Another display name."""
    return _updated(ctx, TRIAL, request)


def update_trial_component(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Another name, status or time; parameters and artifacts are added, replaced or removed by key."""
    return _updated(ctx, COMPONENT, request)


def delete_experiment(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Removes an experiment without trials."""
    name = request["ExperimentName"]
    return _deleted(ctx, EXPERIMENT, name, [row.name for row in ctx.store.children(TRIAL.kind, name)])


def delete_trial(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Removes a trial without components."""
    return _deleted(ctx, TRIAL, request["TrialName"], components_of(ctx, request["TrialName"]))


def delete_trial_component(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Removes a component that is in no trial."""
    return _deleted(ctx, COMPONENT, request["TrialComponentName"], trials_of(ctx, request["TrialComponentName"]))


def list_experiments(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the experiments, by name or time."""
    return _listed(ctx, EXPERIMENT, request, "ExperimentSummaries")


def list_trials(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the trials, of an experiment or with a component, by name or time."""
    among = None
    if component := request.get("TrialComponentName"):
        among = trials_of(ctx, COMPONENT.find(ctx, component).name)
    experiment = request.get("ExperimentName")
    parent = EXPERIMENT.find(ctx, experiment).name if experiment else None
    return _listed(ctx, TRIAL, request, "TrialSummaries", among, parent)


def list_trial_components(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the components, of a trial, an experiment or a source, by name or time."""
    among: list[str] | None = None
    if trial := request.get("TrialName"):
        among = components_of(ctx, TRIAL.find(ctx, trial).name)
    elif experiment := request.get("ExperimentName"):
        trials = ctx.store.children(TRIAL.kind, EXPERIMENT.find(ctx, experiment).name)
        among = [name for row in trials for name in components_of(ctx, row.name)]
    if source := request.get("SourceArn"):
        rows = ctx.store.every(COMPONENT.kind)
        from_source = [row.name for row in rows if (row.body.get("Source") or {}).get("SourceArn") == source]
        among = from_source if among is None else [name for name in among if name in from_source]
    return _listed(ctx, COMPONENT, request, "TrialComponentSummaries", among)


def associate_trial_component(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Puts a component into a trial; it may be in several."""
    trial, component = TRIAL.find(ctx, request["TrialName"]), COMPONENT.find(ctx, request["TrialComponentName"])
    join(ctx, trial.name, component.name)
    return {"TrialArn": trial.arn, "TrialComponentArn": component.arn}


def disassociate_trial_component(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Takes a component out of a trial."""
    trial, component = TRIAL.find(ctx, request["TrialName"]), COMPONENT.find(ctx, request["TrialComponentName"])
    if not leave(ctx, trial.name, component.name):
        raise ResourceNotFound(f"TrialComponent {component.name} is not in trial {trial.name}.")
    return {"TrialArn": trial.arn, "TrialComponentArn": component.arn}


def _created(ctx: Context, record: Record, request: dict[str, Any], parent: str = "") -> dict[str, Any]:
    tags = tag_dict(request.get("Tags"))
    body = {member: value for member, value in request.items() if member != "Tags"}
    return {f"{record.word}Arn": record.create(ctx, body, tags, parent).arn}


def _updated(ctx: Context, record: Record, request: dict[str, Any]) -> dict[str, Any]:
    row = record.find(ctx, request[f"{record.word}Name"])

    def change(row: Resource) -> None:
        for member, value in request.items():
            if member in _MAPS:
                row.body[member] = {**row.body.get(member, {}), **value}
            elif member.endswith("ToRemove"):
                kept = row.body.get(member.removesuffix("ToRemove"), {})
                row.body[member.removesuffix("ToRemove")] = {key: kept[key] for key in kept if key not in value}
            else:
                row.body[member] = value

    ctx.store.update(record.kind, row.name, change)
    return {f"{record.word}Arn": row.arn}


def _deleted(ctx: Context, record: Record, name: str, members: list[str]) -> dict[str, Any]:
    row = record.find(ctx, name)
    if members:
        raise ValidationException(f"{record.word} {name} cannot be deleted while it is associated with {members[0]}.")
    ctx.store.delete(record.kind, name)
    return {f"{record.word}Arn": row.arn}


def _listed(
    ctx: Context,
    record: Record,
    request: dict[str, Any],
    member: str,
    among: Collection[str] | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    times = {f"CreationTime{word}": request.get(f"Created{word}") for word in ("After", "Before")}
    rows, token = list_resources(ctx, record.kind, {**request, **times}, record.describe, parent=parent, among=among)
    return {member: rows, "NextToken": token}


OPERATIONS = operations(
    create_experiment,
    describe_experiment,
    list_experiments,
    update_experiment,
    delete_experiment,
    create_trial,
    describe_trial,
    list_trials,
    update_trial,
    delete_trial,
    create_trial_component,
    describe_trial_component,
    list_trial_components,
    update_trial_component,
    delete_trial_component,
    associate_trial_component,
    disassociate_trial_component,
)
