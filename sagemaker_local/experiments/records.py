"""The rows of experiments, trials and trial components, and which component is in which trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceNotFound, ValidationException
from sagemaker_local.store import AlreadyExists, Resource

MEMBERSHIP = "trial-membership"  # rows named trial/component, the trial being their parent


@dataclass(frozen=True)
class Record:
    """`word` is what SageMaker puts before `Name` and `Arn`, `kind` the kind of row, and of ARN."""

    word: str
    kind: str

    def create(self, ctx: Context, body: dict[str, Any], tags: dict[str, str], parent: str = "") -> Resource:
        """Insert a record.

        Raises:
            ValidationException: the name is taken.
        """
        name = body[f"{self.word}Name"]
        body.setdefault("DisplayName", name)
        arn = ctx.arn(self.kind, name.lower())
        try:
            return ctx.store.create(Resource(self.kind, name, arn, body, parent=parent), tags)
        except AlreadyExists as error:
            raise ValidationException(f"{self.word} names must be unique, and {arn} already exists.") from error

    def find(self, ctx: Context, name: str) -> Resource:
        """The record of a name.

        Raises:
            ResourceNotFound: there is none of that name.
        """
        found = ctx.store.get(self.kind, name)
        if found is None:
            raise ResourceNotFound(f"{self.word} {name} does not exist.")
        return found

    def describe(self, row: Resource) -> dict[str, Any]:
        """The members of a Describe answer, and of a List call's summary, where the source is named by its kind."""
        return {f"{self.word}Source": row.body.get("Source"), **row.described(self.word)}


EXPERIMENT = Record("Experiment", "experiment")
TRIAL = Record("Trial", "experiment-trial")
COMPONENT = Record("TrialComponent", "experiment-trial-component")


def join(ctx: Context, trial: str, component: str) -> None:
    """Put a component into a trial; once is enough."""
    name = f"{trial}/{component}"
    if ctx.store.get(MEMBERSHIP, name) is None:
        ctx.store.create(Resource(MEMBERSHIP, name, f"{MEMBERSHIP}/{name}", parent=trial))


def leave(ctx: Context, trial: str, component: str) -> bool:
    """Take a component out of a trial; False when it was not in it."""
    return ctx.store.delete(MEMBERSHIP, f"{trial}/{component}")


def components_of(ctx: Context, trial: str) -> list[str]:
    """The names of a trial's components."""
    return [row.name.partition("/")[2] for row in ctx.store.children(MEMBERSHIP, trial)]


def trials_of(ctx: Context, component: str) -> list[str]:
    """The names of the trials that a component is in."""
    members = [row.name.partition("/")[::2] for row in ctx.store.every(MEMBERSHIP)]
    return [trial for trial, name in members if name == component]


def trial_document(ctx: Context, row: Resource) -> dict[str, Any]:
    """A trial as Search has it: with its components."""
    members = [COMPONENT.find(ctx, name) for name in components_of(ctx, row.name)]
    return {**TRIAL.describe(row), "TrialComponentSummaries": [COMPONENT.describe(member) for member in members]}


def component_document(ctx: Context, row: Resource) -> dict[str, Any]:
    """A component as Search has it: with the trials and experiments above it."""
    trials = [TRIAL.find(ctx, name) for name in trials_of(ctx, row.name)]
    parents = [{"TrialName": trial.name, "ExperimentName": trial.parent} for trial in trials]
    return {**COMPONENT.describe(row), "Parents": parents}
