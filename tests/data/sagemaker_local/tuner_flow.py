"""Tuning and the registry as a user of SDK 3.x writes them: HyperparameterTuner, and the best as a model package."""
# ruff: noqa: T201

import json
import sys

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter
from sagemaker.core.resources import ModelPackage, ModelPackageGroup, TrainingJob
from sagemaker.core.shapes import OutputDataConfig
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData
from sagemaker.train.tuner import HyperparameterTuner

name, image, role, bucket = sys.argv[1:]
trainer = ModelTrainer(
    training_image=image,
    role=role,
    base_job_name=name,
    sagemaker_session=Session(default_bucket=bucket),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/tuner"),
)
tuner = HyperparameterTuner(
    model_trainer=trainer,
    objective_metric_name="toy:accuracy",
    metric_definitions=[{"Name": "toy:accuracy", "Regex": "Validation-accuracy=([0-9.]+)"}],
    hyperparameter_ranges={
        "epochs": IntegerParameter(1, 3),
        "rate": ContinuousParameter(0.1, 0.5),
        "word": CategoricalParameter(["a", "b"]),
    },
    strategy="Random",
    max_jobs=2,
    max_parallel_jobs=2,
    base_tuning_job_name=name[:12],
)
tuner.tune(inputs=[InputData(channel_name="train", data_source=f"s3://{bucket}/data/train/")], wait=True)
best = TrainingJob.get(training_job_name=tuner.best_training_job())
ModelPackageGroup.create(model_package_group_name=name)
# By boto3: the SDK's own `create` looks for a name in the answer, where the API has the ARN alone.
container = {"Image": image, "ModelDataUrl": best.model_artifacts.s3_model_artifacts}
created = boto3.client("sagemaker").create_model_package(
    ModelPackageGroupName=name,
    InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["text/plain"]},
    ModelApprovalStatus="PendingManualApproval",
)
found = ModelPackage.get(created["ModelPackageArn"])
found.update(model_approval_status="Approved")
found.refresh()
print(
    "REPORT "
    + json.dumps(
        {
            "status": tuner.describe().hyper_parameter_tuning_job_status,
            "best": best.training_job_status,
            "hyperparameters": sorted(best.hyper_parameters),
            "package": found.model_package_arn,
            "approval": found.model_approval_status,
        }
    )
)
