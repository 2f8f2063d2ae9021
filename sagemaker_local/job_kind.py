"""What jobs of every kind share: names of members, states, events, and Create, Describe, List and Stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceInUse, ServiceError, ValidationException
from sagemaker_local.experiments import jobs as experiments
from sagemaker_local.jobs import Control, JobQueue
from sagemaker_local.listing import list_resources
from sagemaker_local.store import AlreadyExists, Resource


class Run(Protocol):
    """One attempt at a job."""

    def run(self) -> None:
        """Do the job; returns when it is final."""


ACTIVE = ("InProgress", "Stopping")


@dataclass(frozen=True)
class JobKind:
    """`word` is what SageMaker puts before `JobName`, `JobArn` and `JobStatus`: Training, Transform, Processing.

    `missing` and `taken` are its words for a name that is not there, or already is; `order` is its List call's own,
    `resource` the kind of ARN and `title` what events call it where these are not made of the word.
    """

    word: str
    missing: str = "Could not find requested job with name: {name}"
    taken: str = (
        "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})"
    )

    order: str = "Descending"
    resource: str = ""
    title: str = ""
    not_found: type[ServiceError] = ValidationException

    @property
    def kind(self) -> str:
        """The kind of row, and of ARN."""
        return self.resource or f"{self.word.lower()}-job"

    @property
    def name(self) -> str:
        """What people and events call it."""
        return self.title or self.word

    def create(
        self,
        ctx: Context,
        request: dict[str, Any],
        tags: dict[str, str],
        *,
        parent: str = "",
        internal: dict[str, Any] | None = None,
        **members: Any,
    ) -> Resource:
        """Insert a job as InProgress: the request and further members.

        Raises:
            ResourceInUse: the name is in use.
        """
        experiments.check_config(ctx, request)
        name = request[f"{self.word}JobName"]
        arn = ctx.arn(self.kind, name.lower())
        echoed = {member: value for member, value in request.items() if member != "Tags"}
        body = {**echoed, f"{self.word}JobStatus": "InProgress", **members}
        try:
            job = ctx.store.create(Resource(self.kind, name, arn, body, "InProgress", internal or {}, parent), tags)
        except AlreadyExists as error:
            raise ResourceInUse(self.taken.format(arn=arn)) from error
        self.announce(ctx, job)
        return job

    def find(self, ctx: Context, request: dict[str, Any]) -> Resource:
        """The job a request names.

        Raises:
            ServiceError: there is no such job; it is the kind's own, a `ValidationException` unless that says another.
        """
        name = request[f"{self.word}JobName"]
        job = ctx.store.get(self.kind, name)
        if job is None:
            raise self.not_found(self.missing.format(name=name))
        return job

    def describe(self, job: Resource) -> dict[str, Any]:
        """The members of a Describe answer."""
        return job.described(f"{self.word}Job")

    def page(self, ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a List call."""
        summaries, token = list_resources(ctx, self.kind, request, self.describe, default_order=self.order)
        return {f"{self.word}JobSummaries": summaries, "NextToken": token}

    def stop(
        self,
        ctx: Context,
        request: dict[str, Any],
        queue: JobQueue,
        note: Callable[[Resource], None] = lambda job: None,
    ) -> None:
        """Ask a job to stop, and `note` it; one that stops already is no error.

        Raises:
            ValidationException: it has ended.
        """

        def stopping(job: Resource) -> None:
            if job.status == "Stopping":
                return
            if job.status != "InProgress":
                raise self.refused(job)
            job.status = job.body[f"{self.word}JobStatus"] = "Stopping"
            note(job)

        name = self.find(ctx, request).name
        self.change(ctx, name, stopping)
        queue.stop(name)

    def refused(self, job: Resource) -> ValidationException:
        """The error for an operation that the job's state does not allow."""
        return ValidationException(
            f"The request was rejected because the {self.name.lower()} job is in status {job.status}."
        )

    def change(self, ctx: Context, name: str, change: Callable[[Resource], None]) -> None:
        """Change a job's state, and send its event."""
        job = ctx.store.update(self.kind, name, change)
        if job is not None:
            self.announce(ctx, job)

    def finish(self, ctx: Context, name: str, status: str, reason: str, **members: Any) -> None:
        """The final state, and its event."""

        def change(job: Resource) -> None:
            job.status = job.body[f"{self.word}JobStatus"] = status
            job.body[f"{self.word}EndTime"] = ctx.now()
            if reason:
                job.body["FailureReason"] = reason[:1024]
            job.body.update(members)

        self.change(ctx, name, change)

    def announce(self, ctx: Context, job: Resource) -> None:
        """Tell of a job's new state: an EventBridge event that says what Describe answers, and its trial component."""
        experiments.follow(ctx, self.word, job)
        ctx.events.publish(f"SageMaker {self.name} Job State Change", job.arn, self.describe(job))

    def open_queue(
        self,
        ctx: Context,
        queue_class: type[JobQueue],
        limit: int,
        run_class: Callable[[Context, str, Control], Run],
        fail: Callable[[str, str], None] | None = None,
    ) -> None:
        """Provide the queue, and take up the jobs that an earlier service left, in their order."""

        def run(name: str, control: Control) -> None:
            run_class(ctx, name, control).run()

        def finish(name: str, reason: str) -> None:
            self.finish(ctx, name, "Failed", reason)

        queue = queue_class(self.word.lower(), limit, run, fail or finish)
        ctx.provide(queue)
        for job in ctx.store.with_status(self.kind, *ACTIVE):
            queue.submit(job.name)
