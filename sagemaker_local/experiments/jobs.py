"""A job as a trial component: made when the job is, brought up to date with every state it enters.

Every training, transform and processing job has one, named after it; an ExperimentConfig puts it into a trial.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException
from sagemaker_local.experiments.records import COMPONENT, EXPERIMENT, TRIAL, join
from sagemaker_local.store import AlreadyExists, Resource

_WORDS = ("Training", "Transform", "Processing")


def check_config(ctx: Context, request: dict[str, Any]) -> None:
    """Raise `ResourceNotFound` or `ValidationException` for an ExperimentConfig that names what is not there."""
    config = request.get("ExperimentConfig") or {}
    if experiment := config.get("ExperimentName"):
        EXPERIMENT.find(ctx, experiment)
    if "TrialName" in config:
        trial = TRIAL.find(ctx, config["TrialName"])
        if experiment and trial.parent != experiment:
            raise ValidationException(f"Trial {trial.name} is not in experiment {experiment}.")


def follow(ctx: Context, word: str, job: Resource) -> None:
    """Write what is known of a job by now into its component; `word` is Training, Transform or Processing."""
    if word not in _WORDS:
        return
    config = job.body.get("ExperimentConfig") or {}
    name = f"{job.name}-aws-{word.lower()}-job"
    metrics = [{**summary, "SourceArn": job.arn} for summary in job.internal.get("metrics", ())]
    known = {**_common(word, job), **_artifacts(job.body), "Parameters": _parameters(job.body), "Metrics": metrics}

    def change(row: Resource) -> None:
        logged = [one for one in row.body.get("Metrics") or () if one["SourceArn"] != job.arn]
        row.body |= {**known, "Metrics": [*metrics, *logged]}

    if ctx.store.update(COMPONENT.kind, name, change) is not None:
        return
    body = {"TrialComponentName": name, "DisplayName": config.get("TrialComponentDisplayName", name), **known}
    trial = config.get("TrialName") or _default_trial(ctx, config.get("ExperimentName"))
    with ctx.store.transaction():
        COMPONENT.create(ctx, body, {})
        if trial:
            join(ctx, trial, name)


def _default_trial(ctx: Context, experiment: str | None) -> str | None:
    """The trial for jobs that name only their experiment, as the SDK's runs have it."""
    if experiment is None:
        return None
    name = f"Default-Run-Group-{experiment}"[:120]
    body = {"TrialName": name, "DisplayName": name, "ExperimentName": experiment}
    with suppress(AlreadyExists):
        ctx.store.create(Resource(TRIAL.kind, name, ctx.arn(TRIAL.kind, name.lower()), body, parent=experiment))
    return name


def _common(word: str, job: Resource) -> dict[str, Any]:
    reason = job.body.get("FailureReason", "")
    message = f"Status: {job.status}, exit message: {reason}" if reason else f"Status: {job.status}"
    return {
        "Source": {"SourceArn": job.arn, "SourceType": f"SageMaker{word}Job"},
        "Status": {"PrimaryStatus": job.status, "Message": message[:1024]},
        "StartTime": job.body.get(f"{word}StartTime", job.created),
        "EndTime": job.body.get(f"{word}EndTime"),
    }


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    cluster = (body.get("ProcessingResources") or {}).get("ClusterConfig")
    resources = body.get("ResourceConfig") or body.get("TransformResources") or cluster or {}
    given = {f"SageMaker.{member}": value for member, value in resources.items() if isinstance(value, str | int)}
    given.update(body.get("HyperParameters") or body.get("Environment") or {})
    return {key: _value(value) for key, value in given.items()}


def _value(value: Any) -> dict[str, Any]:
    try:
        return {"NumberValue": float(value)}
    except ValueError:
        return {"StringValue": str(value)}


def _artifacts(body: dict[str, Any]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for channel in body.get("InputDataConfig", ()):
        artifact = {"Value": channel["DataSource"]["S3DataSource"]["S3Uri"], "MediaType": channel.get("ContentType")}
        inputs[channel["ChannelName"]] = artifact
    for item in body.get("ProcessingInputs", ()):
        inputs[item["InputName"]] = {"Value": item["S3Input"]["S3Uri"]}
    if "TransformInput" in body:
        source = body["TransformInput"]["DataSource"]["S3DataSource"]
        inputs["SageMaker.TransformInput"] = {"Value": source["S3Uri"]}
    specification = body.get("AlgorithmSpecification") or body.get("AppSpecification") or {}
    if image := specification.get("TrainingImage") or specification.get("ImageUri"):
        inputs["SageMaker.ImageUri"] = {"Value": image}
    outputs: dict[str, Any] = {}
    if "ModelArtifacts" in body:
        outputs["SageMaker.ModelArtifact"] = {"Value": body["ModelArtifacts"]["S3ModelArtifacts"]}
    for item in (body.get("ProcessingOutputConfig") or {}).get("Outputs", ()):
        outputs[item["OutputName"]] = {"Value": item["S3Output"]["S3Uri"]}
    if "TransformOutput" in body:
        outputs["SageMaker.TransformOutput"] = {"Value": body["TransformOutput"]["S3OutputPath"]}
    return {"InputArtifacts": inputs, "OutputArtifacts": outputs}
