"""Create, Describe, List, Update, Start, Stop, DeleteMonitoringSchedule, and ListMonitoringExecutions."""

from __future__ import annotations

import logging
import threading
from typing import Any

from sagemaker_local import s3
from sagemaker_local.context import Context, operations
from sagemaker_local.errors import ResourceInUse, ResourceNotFound, ValidationException, unsupported
from sagemaker_local.listing import list_resources
from sagemaker_local.monitoring.cron import parse_offset, parse_schedule
from sagemaker_local.monitoring.executions import EXECUTION, SCHEDULE, launch, refresh
from sagemaker_local.store import AlreadyExists, Query, Resource
from sagemaker_local.tags import tag_dict

log = logging.getLogger(__name__)

PERIOD = 1.0


class Scheduler:
    """Looks every second for schedules that are due, and launches them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="monitoring", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def run_due(self) -> None:
        """Launch every schedule that is due now."""
        now = self._ctx.now()
        for schedule in self._ctx.store.with_status(SCHEDULE, "Scheduled"):
            due = schedule.internal.get("due")
            if due is None or due > now:
                continue
            try:
                self._run(schedule, due)
            except s3.Cancelled:
                return
            except Exception:
                log.exception("monitoring schedule %s could not be run", schedule.name)

    def _run(self, schedule: Resource, due: float) -> None:
        config = schedule.body["MonitoringScheduleConfig"]["ScheduleConfig"]
        cron = parse_schedule(config["ScheduleExpression"])
        if cron is None:
            start, end = (parse_offset(config[f"DataAnalysis{word}Time"]) for word in ("Start", "End"))
            launch(self._ctx, schedule, due, due + start, due + end, cancelled=self._ended)
            following = None
        else:
            launch(self._ctx, schedule, due, due - cron.window, due, cancelled=self._ended)
            following = cron.following(self._ctx.now())
        # After the launch: killed in between, it is launched again, which the execution's name makes harmless.
        self._ctx.store.update(SCHEDULE, schedule.name, lambda row: row.internal.update(due=following), touch=False)

    def _loop(self) -> None:
        while not self._ended.wait(PERIOD):
            try:
                self.run_due()
            except Exception:
                log.exception("monitoring schedules could not be read")


def create_monitoring_schedule(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Runs the monitor's image as a processing job over captured data, once (NOW) or by cron in UTC."""
    tags = tag_dict(request.get("Tags"))
    name = request["MonitoringScheduleName"]
    arn = ctx.arn(SCHEDULE, name.lower())
    body = {"MonitoringScheduleName": name, **_checked(ctx, request["MonitoringScheduleConfig"])}
    try:
        parent = body["EndpointName"] or ""
        ctx.store.create(Resource(SCHEDULE, name, arn, body, "Scheduled", _due(ctx, body), parent), tags)
    except AlreadyExists as error:
        raise ResourceInUse(f"Monitoring Schedule with name {name} already exists ({arn})") from error
    return {"MonitoringScheduleArn": arn}


def update_monitoring_schedule(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Replaces the configuration; the next execution goes by the new one."""
    schedule = _find(ctx, request)
    body = _checked(ctx, request["MonitoringScheduleConfig"])
    if body["EndpointName"] != schedule.body["EndpointName"]:
        raise ValidationException("A monitoring schedule cannot be moved to another endpoint. Create another schedule.")

    def change(row: Resource) -> None:
        row.body.update(body)
        row.internal.update(_due(ctx, row.body))

    ctx.store.update(SCHEDULE, schedule.name, change)
    return {"MonitoringScheduleArn": schedule.arn}


def describe_monitoring_schedule(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """The schedule and its last execution."""
    schedule = _find(ctx, request)
    answer = _summary(schedule)
    last = ctx.store.page(EXECUTION, Query(parent=schedule.name, limit=1))
    if last:
        answer["LastMonitoringExecutionSummary"] = _execution(refresh(ctx, last[0]))
    return answer


def list_monitoring_schedules(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the schedules by name, time or status; of one endpoint too."""
    for member in ("MonitoringJobDefinitionName", "MonitoringTypeEquals"):
        if member in request:
            raise unsupported(member, "filtering by it")
    schedules, token = list_resources(ctx, SCHEDULE, request, _summary, parent=request.get("EndpointName"))
    return {"MonitoringScheduleSummaries": schedules, "NextToken": token}


def start_monitoring_schedule(ctx: Context, request: dict[str, Any]) -> None:
    """Takes a stopped schedule up again."""

    def change(row: Resource) -> None:
        row.status = "Scheduled"
        row.internal.update(_due(ctx, row.body))

    ctx.store.update(SCHEDULE, _find(ctx, request).name, change)


def stop_monitoring_schedule(ctx: Context, request: dict[str, Any]) -> None:
    """Launches no more executions; one that runs goes on."""

    def change(row: Resource) -> None:
        row.status = "Stopped"
        row.internal["due"] = None

    ctx.store.update(SCHEDULE, _find(ctx, request).name, change)


def delete_monitoring_schedule(ctx: Context, request: dict[str, Any]) -> None:
    """Removes the schedule and its executions; reports in S3 stay."""
    schedule = _find(ctx, request)
    with ctx.store.transaction():
        for row in ctx.store.children(EXECUTION, schedule.name):
            ctx.store.delete(EXECUTION, row.name)
        ctx.store.delete(SCHEDULE, schedule.name)


def list_monitoring_executions(ctx: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Pages through the executions of a schedule, by time or status."""
    name = request.get("MonitoringScheduleName")
    for member in ("ScheduledTimeBefore", "ScheduledTimeAfter", "MonitoringJobDefinitionName", "MonitoringTypeEquals"):
        if member in request:
            raise unsupported(member, "filtering by it")
    if name is None:
        raise unsupported("ListMonitoringExecutions without MonitoringScheduleName", "give the schedule's name")
    for row in ctx.store.with_status(EXECUTION, "Pending", "InProgress", "Stopping"):
        refresh(ctx, row)
    asked = {**request, "SortBy": {"ScheduledTime": "CreationTime"}.get(request.get("SortBy", ""), "CreationTime")}
    executions, token = list_resources(ctx, EXECUTION, asked, _execution, parent=name)
    return {"MonitoringExecutionSummaries": executions, "NextToken": token}


def start(ctx: Context) -> None:
    """Begin to look for schedules that are due; what fell due while the service was down is run once."""
    scheduler = Scheduler(ctx)
    ctx.provide(scheduler)
    scheduler.start()


def stop(ctx: Context) -> None:
    """Launch nothing more."""
    ctx.use(Scheduler).stop()


def _checked(ctx: Context, config: dict[str, Any]) -> dict[str, Any]:
    if "MonitoringJobDefinition" not in config:
        raise unsupported("MonitoringJobDefinitionName", "job definitions of their own; give MonitoringJobDefinition")
    kind = config.get("MonitoringType", "DataQuality")
    definition = config["MonitoringJobDefinition"]
    inputs = definition["MonitoringInputs"]
    if len(inputs) != 1:
        raise ValidationException("Exactly one monitoring input is required.")
    source = inputs[0].get("EndpointInput") or inputs[0].get("BatchTransformInput")
    if source is None:
        raise ValidationException("A monitoring input needs an EndpointInput or a BatchTransformInput.")
    for member in ("StartTimeOffset", "EndTimeOffset"):
        if member in source:
            raise unsupported(member, "shifting the window of an input")
    for member in ("RecordPreprocessorSourceUri", "PostAnalyticsProcessorSourceUri"):
        if member in definition["MonitoringAppSpecification"]:
            raise unsupported(member, "scripts around the analysis; map an image of your own")
    ctx.images.find(definition["MonitoringAppSpecification"]["ImageUri"])
    schedule = config.get("ScheduleConfig")
    if schedule is None:
        raise ValidationException("ScheduleConfig is required.")
    try:
        if parse_schedule(schedule["ScheduleExpression"]) is None:
            for word in ("Start", "End"):
                parse_offset(schedule.get(f"DataAnalysis{word}Time", ""))
    except ValueError as error:
        raise ValidationException(str(error)) from error
    endpoint = (inputs[0].get("EndpointInput") or {}).get("EndpointName")
    body: dict[str, Any] = {"MonitoringType": kind, "MonitoringScheduleConfig": config, "EndpointName": endpoint}
    if endpoint is not None and ctx.store.get("endpoint", endpoint) is None:
        raise ResourceNotFound(f'Could not find endpoint "{ctx.arn("endpoint", endpoint.lower())}".')
    return body


def _due(ctx: Context, body: dict[str, Any]) -> dict[str, float]:
    cron = parse_schedule(body["MonitoringScheduleConfig"]["ScheduleConfig"]["ScheduleExpression"])
    return {"due": ctx.now() if cron is None else cron.following(ctx.now())}


def _find(ctx: Context, request: dict[str, Any]) -> Resource:
    name = request["MonitoringScheduleName"]
    schedule = ctx.store.get(SCHEDULE, name)
    if schedule is None:
        raise ResourceNotFound(f"Monitoring Schedule with name {name} does not exist.")
    return schedule


def _summary(schedule: Resource) -> dict[str, Any]:
    return {**schedule.described("MonitoringSchedule"), "MonitoringScheduleStatus": schedule.status}


def _execution(execution: Resource) -> dict[str, Any]:
    return execution.described("MonitoringExecution")


OPERATIONS = operations(
    create_monitoring_schedule,
    update_monitoring_schedule,
    describe_monitoring_schedule,
    list_monitoring_schedules,
    start_monitoring_schedule,
    stop_monitoring_schedule,
    delete_monitoring_schedule,
    list_monitoring_executions,
)
