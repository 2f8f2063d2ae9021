"""What CreateTrainingJob refuses beyond the service model: contradictions, and what this service cannot honour."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local import s3
from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException, unsupported
from sagemaker_local.input_files import SERVED_TYPES, no_objects
from sagemaker_local.metrics import compile_definitions

DEFAULT_MAX_RUNTIME = 86_400
_UNSUPPORTED_MEMBERS = {
    "ServerlessJobConfig": "serverless jobs",
    "MlflowConfig": "managed MLflow",
    "ModelPackageConfig": "registering a package from a job; call CreateModelPackage",
    "SessionChainingConfig": "session chaining",
}


def check_request(ctx: Context, request: dict[str, Any]) -> None:
    """Check a CreateTrainingJob request beyond the service model.

    Raises:
        ValidationException: AWS refuses such a request, or it would mean something else here.
    """
    for member, why in _UNSUPPORTED_MEMBERS.items():
        if request.get(member):
            raise unsupported(member, why)
    _check_algorithm(ctx, request.get("AlgorithmSpecification"))
    _check_resources(request.get("ResourceConfig"))
    _check_stopping(request)
    s3.check_uri(request["OutputDataConfig"]["S3OutputPath"], "OutputDataConfig.S3OutputPath")
    _check_script_mode(ctx, request)
    if "CheckpointConfig" in request:
        s3.check_uri(request["CheckpointConfig"]["S3Uri"], "CheckpointConfig.S3Uri")
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", ())]
    if len(set(names)) != len(names):
        raise ValidationException(f"Duplicate channel names in InputDataConfig: {', '.join(sorted(names))}")
    for channel in request.get("InputDataConfig", ()):
        _check_channel(channel, request["AlgorithmSpecification"]["TrainingInputMode"])
    for channel in request.get("InputDataConfig", ()):
        _check_data_exists(ctx, channel, request["RoleArn"])


def _check_algorithm(ctx: Context, algorithm: dict[str, Any] | None) -> None:
    if algorithm is None:
        raise ValidationException("AlgorithmSpecification is required.")
    if "AlgorithmName" in algorithm:
        raise unsupported("AlgorithmSpecification.AlgorithmName", "algorithm resources; give TrainingImage")
    if "TrainingImage" not in algorithm:
        raise ValidationException("Either TrainingImage or AlgorithmName must be specified in AlgorithmSpecification.")
    image = ctx.images.find(algorithm["TrainingImage"])
    definitions = algorithm.get("MetricDefinitions")
    if definitions and image.builtin and definitions != list(image.metric_definitions):
        raise ValidationException("You can't override the metric definitions for Amazon SageMaker algorithms.")
    compile_definitions(definitions or [])
    if algorithm.get("ContainerArguments") and not algorithm.get("ContainerEntrypoint"):
        raise ValidationException("ContainerArguments needs a ContainerEntrypoint.")


def _check_script_mode(ctx: Context, request: dict[str, Any]) -> None:
    """The SDK's drivers for SourceCode read and write the literal /opt/ml, which only a box has."""
    channels = {channel["ChannelName"] for channel in request.get("InputDataConfig", ())}
    image = ctx.images.find(request["AlgorithmSpecification"]["TrainingImage"])
    if "sm_drivers" in channels and ctx.processes.box is None and not image.is_container:
        raise unsupported(
            "SourceCode of the SageMaker SDK",
            "script mode on this machine: its drivers need /opt/ml, which jobs have only in a box (docs/security.md). "
            "Map an image to a command of your own, which reads SM_ML_ROOT",
        )


def _check_resources(resources: dict[str, Any] | None) -> None:
    if resources is None:
        raise ValidationException("ResourceConfig is required.")
    if resources.get("InstanceGroups"):
        raise unsupported("ResourceConfig.InstanceGroups", "heterogeneous clusters")
    if "InstanceType" not in resources or "InstanceCount" not in resources:
        raise ValidationException("ResourceConfig needs InstanceType and InstanceCount.")
    if resources["InstanceCount"] != 1:
        raise unsupported("ResourceConfig.InstanceCount", "more than one instance of a training job")


def _check_stopping(request: dict[str, Any]) -> None:
    condition = request.get("StoppingCondition") or {}
    longest = condition.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME)
    wait = condition.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < longest:
            raise ValidationException(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise ValidationException("MaxWaitTimeInSeconds above 0 is only allowed with EnableManagedSpotTraining.")


def _check_channel(channel: dict[str, Any], job_mode: str) -> None:
    name = channel["ChannelName"]
    mode = channel.get("InputMode", job_mode)
    if mode == "Pipe":
        raise unsupported(f"InputMode of channel {name}", "Pipe; use File or FastFile")
    if channel.get("CompressionType", "None") != "None":
        raise unsupported(f"CompressionType of channel {name}", "compressed channels are for Pipe mode")
    if channel.get("RecordWrapperType", "None") != "None":
        raise unsupported(f"RecordWrapperType of channel {name}", "RecordIO wrapping is for Pipe mode")
    if channel.get("ShuffleConfig"):
        raise unsupported(f"ShuffleConfig of channel {name}", "shuffling of channels")
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        raise unsupported(f"DataSource of channel {name}", "anything but S3DataSource")
    if source["S3DataType"] not in SERVED_TYPES:
        raise unsupported(f"S3DataType of channel {name}", f"{source['S3DataType']}; use S3Prefix or ManifestFile")
    if source.get("AttributeNames"):
        raise unsupported(f"AttributeNames of channel {name}", "augmented manifests")


def _check_data_exists(ctx: Context, channel: dict[str, Any], role: str) -> None:
    """AWS looks into S3 before it takes the job. An S3 that does not answer is left to the job, which is patient."""
    source = channel["DataSource"]["S3DataSource"]
    uri = source["S3Uri"]
    bucket, prefix = s3.check_uri(uri, f"S3Uri of channel {channel['ChannelName']}")
    try:
        found = ctx.clients.get("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in ("NoSuchBucket", "AccessDenied", "404", "403"):
            return
        found = {}
    except BotoCoreError:
        return
    if not found.get("KeyCount", len(found.get("Contents", ()))):
        raise ValidationException(no_objects(uri, ctx.config.region, role, bucket))
