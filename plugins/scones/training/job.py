"""CreateTrainingJob for the built-in image-classification algorithm: build, check, fingerprint, read the answer.

Shapes follow the algorithm's documentation: "Image Classification - MXNet: hyperparameters" and "Input/Output
interface" in the SageMaker developer guide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scones.aws.naming import content_hash, sagemaker_name
from scones.training.data import StagedDataset, TrainingResult

INPUT_KINDS = ("recordio", "png")
ALGORITHM = "image-classification"
# The built-in algorithm trains on GPU instances only.
_GPU_FAMILY = re.compile(r"^ml\.(p\d|g\d)")

_NUM_LAYERS = {"18", "20", "32", "34", "44", "50", "56", "101", "110", "152", "200"}
# AWS has pretrained networks of these depths alone, and they read 224 x 224 pixels.
_PRETRAINED_LAYERS = ("18", "34", "50", "101", "152", "200")
_FLAGS = {"use_pretrained_model", "use_weighted_loss", "multi_label"}
_CHOICES: dict[str, set[str]] = {
    "num_layers": _NUM_LAYERS,
    "optimizer": {"sgd", "adam", "rmsprop", "nag"},
    "augmentation_type": {"crop", "crop_color", "crop_color_transform"},
    "kv_store": {"dist_sync", "dist_async"},
    "precision_dtype": {"float32", "float16"},
    **{name: {"0", "1"} for name in _FLAGS},
    "early_stopping": {"true", "false", "True", "False"},
}
# name: (lowest, highest, whole number?)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "num_classes": (2, 1_000_000, True),
    "num_training_samples": (1, 1e12, True),
    "epochs": (1, 100_000, True),
    "mini_batch_size": (1, 100_000, True),
    "learning_rate": (0, 1, False),
    "lr_scheduler_factor": (0, 1, False),
    "momentum": (0, 0.999, False),
    "weight_decay": (0, 1, False),
    "beta_1": (0, 1, False),
    "beta_2": (0, 1, False),
    "eps": (0, 1, False),
    "gamma": (0, 1, False),
    "resize": (1, 100_000, True),
    "top_k": (2, 1_000_000, True),
    "checkpoint_frequency": (1, 100_000, True),
    "early_stopping_min_epochs": (0, 100_000, True),
    "early_stopping_patience": (0, 100_000, True),
    "early_stopping_tolerance": (0, 1, False),
}
_LISTS = {"image_shape", "lr_scheduler_step"}


class InvalidTrainingJobError(ValueError):
    """The request would be refused, or would fail after minutes of paid start-up. The message lists every problem."""


@dataclass(frozen=True)
class TrainingSpec:
    """All that decides a training job.

    Attributes:
        dataset: answer of `stage_images`.
        bucket: bucket of the artifacts.
        role_arn: execution role.
        image_uri: algorithm image.
        instance_type: e.g. "ml.g4dn.xlarge".
        instance_count: instances.
        volume_size_gb: disk of each.
        max_runtime_s: SageMaker stops the job after this many seconds.
        input_kind: "recordio" (the algorithm's faster input) or "png" with .lst files.
        hyperparameters: what the user chose; counts, classes and shape come from the dataset.
        on_aws: the job goes to AWS itself, whose pretrained networks read 224 x 224 pixels.
        extra: any further CreateTrainingJob attributes, merged last (e.g. EnableManagedSpotTraining, VpcConfig).
    """

    dataset: StagedDataset
    bucket: str
    role_arn: str
    image_uri: str
    instance_type: str = "ml.g4dn.xlarge"
    instance_count: int = 1
    volume_size_gb: int = 10
    max_runtime_s: int = 3600
    input_kind: str = "recordio"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    on_aws: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def hyperparameters(spec: TrainingSpec) -> dict[str, str]:
    """Return the complete hyperparameters, all strings as the API wants them; the dataset's own facts win."""
    chosen = {key: str(value) for key, value in spec.hyperparameters.items() if value not in (None, "")}
    chosen |= {name: {"True": "1", "False": "0"}.get(chosen[name], chosen[name]) for name in chosen.keys() & _FLAGS}
    facts = {
        "num_classes": str(len(spec.dataset["classes"])),
        "num_training_samples": str(spec.dataset["counts"]["train"]),
        "image_shape": str(spec.dataset["image_shape"]),
    }
    if spec.on_aws and chosen.get("use_pretrained_model") == "1":
        # Smaller images than image_shape end the job, unless `resize` makes them larger first.
        facts |= {"image_shape": "3,224,224", "resize": "224"}
    return chosen | facts


def fingerprint(spec: TrainingSpec) -> str:
    """Return 16 hex digits of what decides the model: data, hyperparameters, image and the kind of input.

    Machines and time limits are left out: they change the bill, not the model.
    """
    return content_hash(
        {
            "dataset_version": spec.dataset["dataset_version"],
            "hyperparameters": hyperparameters(spec),
            "image": spec.image_uri,
            "input": spec.input_kind,
            "extra": {
                k: v for k, v in spec.extra.items() if k in ("AlgorithmSpecification", "InputDataConfig", "Environment")
            },
        },
        length=16,
    )


def _channel(name: str, uri: str | None, content_type: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "ContentType": content_type,
        "InputMode": "File",
        "CompressionType": "None",
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        },
    }


def channels(spec: TrainingSpec) -> list[dict[str, Any]]:
    """Return InputDataConfig: two channels for RecordIO, four (images and their lists) for PNG."""
    data = spec.dataset
    if spec.input_kind == "recordio":
        return [
            _channel("train", data["recordio_train_uri"], "application/x-recordio"),
            _channel("validation", data["recordio_validation_uri"], "application/x-recordio"),
        ]
    return [
        _channel("train", data["train_uri"], "application/x-image"),
        _channel("validation", data["validation_uri"], "application/x-image"),
        _channel("train_lst", data["train_lst_uri"], "application/x-image"),
        _channel("validation_lst", data["validation_lst_uri"], "application/x-image"),
    ]


def build_training_request(spec: TrainingSpec, job_name: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    """Return the CreateTrainingJob request, validated.

    Raises:
        InvalidTrainingJobError: with every problem found, and what to do about each.
    """
    problems = validate(spec)
    if problems:
        raise InvalidTrainingJobError(
            "The training job was not submitted, because:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )
    request: dict[str, Any] = {
        "TrainingJobName": job_name,
        "AlgorithmSpecification": {"TrainingImage": spec.image_uri, "TrainingInputMode": "File"},
        "RoleArn": spec.role_arn,
        "InputDataConfig": channels(spec),
        "OutputDataConfig": {"S3OutputPath": f"s3://{spec.bucket}/training"},
        "ResourceConfig": {
            "InstanceType": spec.instance_type,
            "InstanceCount": spec.instance_count,
            "VolumeSizeInGB": spec.volume_size_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_s},
        "HyperParameters": hyperparameters(spec),
        "Tags": tags,
    }
    return _merged(request, spec.extra)


def _merged(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge objects member by member and add tags; anything else in ``extra`` replaces."""
    result = dict(base)
    for key, value in extra.items():
        if key == "Tags":
            result[key] = [*base.get("Tags", []), *value]
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(dict(result[key]), value)
        else:
            result[key] = value
    return result


def validate(spec: TrainingSpec) -> list[str]:
    """Return what is wrong with the job, in words; empty when nothing is."""
    problems: list[str] = []
    params = hyperparameters(spec)
    counts = spec.dataset["counts"]
    problems += _hyperparameter_problems(params)
    if spec.input_kind not in INPUT_KINDS:
        problems.append(f"input_kind is {spec.input_kind!r}: choose one of {', '.join(INPUT_KINDS)}")
    else:
        problems += [
            f"channel {channel['ChannelName']!r} has no S3 address: run stage_images again"
            for channel in channels(spec)
            if not str(channel["DataSource"]["S3DataSource"]["S3Uri"]).startswith("s3://")
        ]
    batch = params.get("mini_batch_size", "32")
    if batch.isdigit() and int(batch) > counts["train"]:
        problems.append(
            f"mini_batch_size {batch} is more than the {counts['train']} training images: lower it or stage more"
        )
    if not counts.get("validation"):
        problems.append("there are no validation images: raise validation_share and stage again")
    if spec.image_uri.rpartition("/")[2].startswith(f"{ALGORITHM}:") and not _GPU_FAMILY.match(spec.instance_type):
        problems.append(
            f"the built-in {ALGORITHM} algorithm trains on GPU instances only, not on {spec.instance_type}: "
            "choose e.g. ml.g4dn.xlarge or ml.p3.2xlarge"
        )
    if not spec.role_arn.startswith("arn:"):
        problems.append(f"the execution role {spec.role_arn!r} is not an ARN: deploy the stack again")
    for name, value, low in (
        ("instance_count", spec.instance_count, 1),
        ("volume_size_gb", spec.volume_size_gb, 1),
        ("max_runtime_s", spec.max_runtime_s, 1),
    ):
        if value < low:
            problems.append(f"{name} is {value}: it must be at least {low}")
    if spec.extra.get("EnableManagedSpotTraining"):
        wait = spec.extra.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds", 0)
        if wait < spec.max_runtime_s:
            problems.append(
                f"managed spot training needs StoppingCondition.MaxWaitTimeInSeconds of at least {spec.max_runtime_s}"
            )
    return problems


def _hyperparameter_problems(params: Mapping[str, str]) -> list[str]:
    problems = []
    for name, value in sorted(params.items()):
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                allowed = ", ".join(sorted(_CHOICES[name], key=lambda v: (len(v), v)))
                problems.append(f"hyperparameter {name} is {value!r}: choose one of {allowed}")
        elif name in _RANGES:
            low, high, whole = _RANGES[name]
            try:
                number = float(int(value) if whole else float(value))
            except ValueError:
                problems.append(f"hyperparameter {name} is {value!r}: it must be a {'whole ' if whole else ''}number")
                continue
            if not low <= number <= high:
                problems.append(f"hyperparameter {name} is {value}: it must be between {low:g} and {high:g}")
        elif name in _LISTS:
            if not re.fullmatch(r"\d+(,\d+)*", value):
                problems.append(f"hyperparameter {name} is {value!r}: write whole numbers with commas, e.g. 3,32,32")
        else:
            problems.append(f"hyperparameter {name} is unknown to the image-classification algorithm: remove it")
    layers = params.get("num_layers", "152")
    if params.get("use_pretrained_model") == "1" and layers in _NUM_LAYERS and layers not in _PRETRAINED_LAYERS:
        problems.append(
            f"hyperparameter num_layers is {layers}: pretrained networks have {', '.join(_PRETRAINED_LAYERS)} layers"
        )
    shape = params.get("image_shape", "")
    if re.fullmatch(r"\d+(,\d+)*", shape) and len(shape.split(",")) != 3:
        problems.append(f"hyperparameter image_shape is {shape!r}: it must be channels,height,width")
    return problems


def training_job_name(run_key: str, attempt: int) -> str:
    """Return the name of a run's ``attempt``-th job: the same at every try of the task, so that a retry finds it."""
    return sagemaker_name("scones-train", content_hash(run_key), str(attempt))


def same_work(description: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Return whether a described job does what the request asks for: same image, hyperparameters and inputs."""

    def inputs(job: Mapping[str, Any]) -> list[tuple[str, str]]:
        return sorted(
            (channel["ChannelName"], channel["DataSource"].get("S3DataSource", {}).get("S3Uri", ""))
            for channel in job.get("InputDataConfig", [])
        )

    return (
        description["AlgorithmSpecification"].get("TrainingImage")
        == request["AlgorithmSpecification"].get("TrainingImage")
        and dict(description.get("HyperParameters", {})) == dict(request["HyperParameters"])
        and inputs(description) == inputs(request)
    )


def training_result(description: Mapping[str, Any], *, fingerprint: str, reused: bool) -> TrainingResult:
    """Return what later tasks need of a completed job."""
    count = description["ResourceConfig"]["InstanceCount"]
    training_seconds = description.get("TrainingTimeInSeconds")
    if training_seconds is None:
        started, ended = description["TrainingStartTime"], description["TrainingEndTime"]
        training_seconds = (ended - started).total_seconds()
    return {
        "job_name": description["TrainingJobName"],
        "job_arn": description["TrainingJobArn"],
        "model_artifacts": description["ModelArtifacts"]["S3ModelArtifacts"],
        "image": description["AlgorithmSpecification"]["TrainingImage"],
        "instance_type": description["ResourceConfig"]["InstanceType"],
        "instance_count": count,
        "training_seconds": training_seconds,
        "billable_seconds": description.get("BillableTimeInSeconds", training_seconds * count),
        "metrics": {
            metric["MetricName"]: round(float(metric["Value"]), 6)
            for metric in description.get("FinalMetricDataList", [])
        },
        "hyperparameters": dict(description.get("HyperParameters", {})),
        "fingerprint": fingerprint,
        "reused": reused,
    }


def failure_text(description: Mapping[str, Any]) -> str:
    """Return why a job ended without a model, in one readable sentence."""
    name, status = description["TrainingJobName"], description["TrainingJobStatus"]
    secondary = description.get("SecondaryStatus", "")
    if secondary == "MaxRuntimeExceeded":
        limit = description.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", "its limit of")
        return f"Training job {name} ran into its limit of {limit} s and was stopped: raise max_runtime_s"
    if status == "Stopped":
        return f"Training job {name} was stopped before it ended, so there is no model ({secondary or 'Stopped'})"
    reason = str(description.get("FailureReason") or "SageMaker gave no reason; read the job's log")
    hint = " Ask AWS for a higher quota, or choose another instance_type." if "ResourceLimitExceeded" in reason else ""
    return f"Training job {name} failed: {reason}{hint}"


def is_final_failure(description: Mapping[str, Any]) -> bool:
    """Return whether the same job would end the same way: stopped, out of time, or a fault of its data or settings.

    SageMaker's own faults (InternalServerError, CapacityError) are worth another try.
    """
    if description["TrainingJobStatus"] == "Stopped":
        return True
    reason = str(description.get("FailureReason", ""))
    return reason.startswith(("ClientError", "AlgorithmError")) or "ResourceLimitExceeded" in reason
