"""What transform jobs and processing jobs share: names of members, states, and Describe, List and Stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sagemaker_local import events
from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceInUse, ValidationException
from sagemaker_local.jobs import Control, JobQueue
from sagemaker_local.listing import list_resources
from sagemaker_local.store import AlreadyExists, Resource

ACTIVE = ("InProgress", "Stopping")


@dataclass(frozen=True)
class JobKind:
    """`word` is what SageMaker puts before `JobName`, `JobArn` and `JobStatus`: Transform, Processing."""

    word: str

    @property
    def kind(self) -> str:
        """The kind of row, and of ARN."""
        return f"{self.word.lower()}-job"

    def create(self, ctx: Context, name: str, body: dict[str, Any], tags: dict[str, str]) -> Resource:
        """Insert a job as InProgress. Raises `ResourceInUse` when the name is taken."""
        arn = ctx.arn(self.kind, name.lower())
        body[f"{self.word}JobName"] = name
        body[f"{self.word}JobStatus"] = "InProgress"
        try:
            with ctx.store.transaction():
                job = ctx.store.create(self.kind, name, arn, body, status="InProgress")
                ctx.store.set_tags(arn, tags)
        except AlreadyExists as error:
            raise ResourceInUse(
                "Job name must be unique within an AWS account and region, and a job with this name already exists "
                f"({arn})"
            ) from error
        self._announce(ctx, job)
        return job

    def find(self, ctx: Context, request: dict[str, Any]) -> Resource:
        """The job a request names. Raises `ValidationException`."""
        name = request[f"{self.word}JobName"]
        job = ctx.store.get(self.kind, name)
        if job is None:
            raise ValidationException(f"Could not find requested job with name: {name}")
        return job

    def describe(self, job: Resource) -> dict[str, Any]:
        """The members of a Describe answer."""
        times = {"CreationTime": job.created, "LastModifiedTime": job.modified}
        return {**job.body, f"{self.word}JobArn": job.arn, **times}

    def page(self, ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a List call."""
        summaries, token = list_resources(ctx, self.kind, request, self.describe)
        return {f"{self.word}JobSummaries": summaries, "NextToken": token}

    def stop(self, ctx: Context, request: dict[str, Any], queue: JobQueue) -> None:
        """Ask a job to stop; one that stops already is no error. Raises `ValidationException` when it has ended."""

        def stopping(job: Resource) -> None:
            if job.status == "Stopping":
                return
            if job.status != "InProgress":
                raise ValidationException(
                    f"The request was rejected because the {self.word.lower()} job is in status {job.status}."
                )
            job.status = job.body[f"{self.word}JobStatus"] = "Stopping"

        name = self.find(ctx, request).name
        job = ctx.store.update(self.kind, name, stopping)
        if job is not None:
            self._announce(ctx, job)
        queue.stop(name)

    def started(self, job: Resource, now: float) -> None:
        """Note the start, once."""
        job.body.setdefault(f"{self.word}StartTime", now)

    def finish(self, ctx: Context, name: str, status: str, reason: str, **members: Any) -> None:
        """The final state, and its event."""

        def change(job: Resource) -> None:
            job.status = job.body[f"{self.word}JobStatus"] = status
            job.body[f"{self.word}EndTime"] = ctx.now()
            if reason:
                job.body["FailureReason"] = reason[:1024]
            job.body.update(members)

        job = ctx.store.update(self.kind, name, change)
        if job is not None:
            self._announce(ctx, job)

    def _announce(self, ctx: Context, job: Resource) -> None:
        events.publish(ctx, f"SageMaker {self.word} Job State Change", job.arn, self.describe(job))

    def open_queue(
        self, ctx: Context, queue_class: type[JobQueue], limit: int, run: Callable[[str, Control], None]
    ) -> None:
        """Provide the queue, and take up the jobs that an earlier service left."""

        def fail(name: str, reason: str) -> None:
            self.finish(ctx, name, "Failed", reason)

        queue = queue_class(self.word.lower(), limit, run, fail)
        ctx.provide(queue)
        for job in ctx.store.with_status(self.kind, *ACTIVE):
            queue.submit(job.name)
