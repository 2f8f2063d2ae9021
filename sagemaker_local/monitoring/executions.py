"""Executions of a monitoring schedule: each one a processing job over the files captured in its window."""

from __future__ import annotations

import json
import re
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

from sagemaker_local import processing, s3
from sagemaker_local.context import Context
from sagemaker_local.errors import ResourceInUse
from sagemaker_local.processing.runner import PROCESSING
from sagemaker_local.store import AlreadyExists, Resource

SCHEDULE = "monitoring-schedule"
EXECUTION = "monitoring-execution"
NO_DATA = "Job inputs had no data"
_INPUT = "/opt/ml/processing/input/endpoint"
_BASELINE = "/opt/ml/processing/baseline"
_HOUR = re.compile(r"/(\d{4}/\d{2}/\d{2}/\d{2})/[^/]+$")


def launch(
    ctx: Context, schedule: Resource, scheduled: float, start: float, end: float, *, cancelled: threading.Event
) -> None:
    """Begin the execution due at `scheduled` over the captures of [start, end); doing it twice makes one execution.

    Raises:
        s3.Cancelled: `cancelled` was set; the execution is left for the next start.
    """
    stamp = datetime.fromtimestamp(scheduled, UTC)
    name = f"{schedule.name}/{stamp:%Y%m%dT%H%M%S}"
    body: dict[str, Any] = {
        "MonitoringScheduleName": schedule.name,
        "ScheduledTime": scheduled,
        "MonitoringExecutionStatus": "Pending",
        "EndpointName": schedule.body.get("EndpointName"),
        "MonitoringType": schedule.body["MonitoringType"],
    }
    try:
        arn = f"{schedule.arn}/execution/{stamp:%Y%m%dT%H%M%S}"
        ctx.store.create(Resource(EXECUTION, name, arn, body, "Pending", parent=schedule.name))
    except AlreadyExists as error:
        if error.existing.status != "Pending":
            return  # only one that a killed service had not got to start is taken up
    try:
        job_arn = _start_job(ctx, schedule, name, start, end, cancelled)
    except (s3.DataError, s3.OutageError) as error:
        settle(ctx, name, "Failed", FailureReason=str(error)[:1024])
        return
    if job_arn is None:
        settle(ctx, name, "Failed", FailureReason=NO_DATA)


def settle(ctx: Context, name: str, status: str, **members: Any) -> None:
    """Write an execution's state."""

    def change(row: Resource) -> None:
        row.status = row.body["MonitoringExecutionStatus"] = status
        row.body.update(members)

    ctx.store.update(EXECUTION, name, change)


def refresh(ctx: Context, execution: Resource) -> Resource:
    """An execution with the state its processing job has by now."""
    job = ctx.store.by_arn(execution.body.get("ProcessingJobArn", ""))
    if job is None or execution.status not in ("Pending", "InProgress", "Stopping"):
        return execution
    status = job.status
    if status == "Completed" and job.body.get("ExitMessage", "").partition(":")[0] == "CompletedWithViolations":
        status = "CompletedWithViolations"
    if status != execution.status:
        reason = job.body.get("FailureReason")
        settle(ctx, execution.name, status, **({"FailureReason": reason} if reason else {}))
    return ctx.store.get(EXECUTION, execution.name) or execution


def captured_keys(ctx: Context, uri: str, start: float, end: float, cancelled: threading.Event) -> list[str]:
    """The keys of the hours that [start, end) touches, relative to the capture prefix."""
    bucket, prefix = s3.split_uri(uri)
    folder = prefix.rstrip("/") + "/"
    moments = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC) - datetime.resolution
    # As text: a key that somebody else wrote may name an hour that there is not.
    first, last = (f"{moment:%Y/%m/%d/%H}" for moment in moments)
    keys = s3.list_keys(ctx, bucket, folder, cancelled)
    return [key.removeprefix(folder) for key in keys if (hour := _HOUR.search(key)) and first <= hour[1] <= last]


def _start_job(
    ctx: Context, schedule: Resource, execution: str, start: float, end: float, cancelled: threading.Event
) -> str | None:
    definition = schedule.body["MonitoringScheduleConfig"]["MonitoringJobDefinition"]
    uri = _capture_uri(ctx, definition)
    keys = captured_keys(ctx, uri, start, end, cancelled)
    if not keys:
        return None
    # Of the execution, so that it has one job however often it is launched; a schedule of the same name has others.
    own = uuid.uuid5(uuid.NAMESPACE_OID, f"{execution} {schedule.created}").hex[:20]
    name = f"model-monitoring-{datetime.fromtimestamp(end, UTC):%Y%m%d%H%M}-{own}"
    manifest = f"{definition['MonitoringOutputConfig']['MonitoringOutputs'][0]['S3Output']['S3Uri'].rstrip('/')}"
    manifest = f"{manifest}/.manifests/{name}.json"
    folder = uri.rstrip("/") + "/"
    s3.put_bytes(ctx, manifest, json.dumps([{"prefix": folder}, *keys]).encode(), "application/json", cancelled)
    request = _job_request(definition, schedule, name, manifest)
    request["Environment"].update(
        start_time=datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        end_time=datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        sagemaker_endpoint_name=str(schedule.body.get("EndpointName") or ""),
    )
    try:
        arn = processing.submit(ctx, request, {}, MonitoringScheduleArn=schedule.arn)
    except ResourceInUse:  # it was begun, and not noted yet
        arn = ctx.arn(PROCESSING.kind, name)
    settle(ctx, execution, "InProgress", ProcessingJobArn=arn)
    return arn


def _capture_uri(ctx: Context, definition: dict[str, Any]) -> str:
    source = definition["MonitoringInputs"][0]
    if "BatchTransformInput" in source:
        return str(source["BatchTransformInput"]["DataCapturedDestinationS3Uri"])
    endpoint = ctx.store.get("endpoint", source["EndpointInput"]["EndpointName"])
    config = ctx.store.get("endpoint-config", endpoint.body["EndpointConfigName"]) if endpoint else None
    capture = config.body.get("DataCaptureConfig") if config else None
    if endpoint is None or not capture:
        raise s3.DataError(f"endpoint {source['EndpointInput']['EndpointName']} does not exist or captures no data")
    return s3.join_uri(capture["DestinationS3Uri"], endpoint.name)


def _job_request(definition: dict[str, Any], schedule: Resource, name: str, manifest: str) -> dict[str, Any]:
    inputs = [_input("endpoint_input", manifest, _INPUT, "ManifestFile")]
    environment = {
        **definition.get("Environment", {}),
        "dataset_source": _INPUT,
        "output_path": definition["MonitoringOutputConfig"]["MonitoringOutputs"][0]["S3Output"]["LocalPath"],
        "publish_cloudwatch_metrics": "Disabled",
        "sagemaker_monitoring_schedule_name": schedule.name,
    }
    baseline = definition.get("BaselineConfig") or {}
    for word, member in (("constraints", "ConstraintsResource"), ("statistics", "StatisticsResource")):
        if uri := (baseline.get(member) or {}).get("S3Uri"):
            inputs.append(_input(word, uri, f"{_BASELINE}/{word}", "S3Prefix"))
            environment[f"baseline_{word}"] = f"{_BASELINE}/{word}/{uri.rpartition('/')[2]}"
    outputs = [
        {"OutputName": f"monitoring_output_{number}", "S3Output": {"S3UploadMode": "EndOfJob", **item["S3Output"]}}
        for number, item in enumerate(definition["MonitoringOutputConfig"]["MonitoringOutputs"], 1)
    ]
    return {
        "ProcessingJobName": name,
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {"Outputs": outputs},
        "ProcessingResources": definition["MonitoringResources"],
        "AppSpecification": {
            key: definition["MonitoringAppSpecification"][key]
            for key in ("ImageUri", "ContainerEntrypoint", "ContainerArguments")
            if key in definition["MonitoringAppSpecification"]
        },
        "Environment": environment,
        "RoleArn": definition["RoleArn"],
        "StoppingCondition": definition.get("StoppingCondition") or {"MaxRuntimeInSeconds": 3600},
    }


def _input(name: str, uri: str, path: str, data_type: str) -> dict[str, Any]:
    source = {"S3Uri": uri, "LocalPath": path, "S3DataType": data_type, "S3InputMode": "File"}
    return {"InputName": name, "S3Input": source}
