"""The flow of the provider's own large example (`example_sagemaker.py` of its system tests), with its operators and
sensors unchanged, and every deferrable one of them through its trigger.
"""

# ruff: noqa: AIR001 - these operators are executed by hand, not put into a DAG
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.local_service import TOY_IMAGE

pytest.importorskip("airflow")

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerCreateExperimentOperator,
    SageMakerDeleteModelOperator,
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerRegisterModelVersionOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import (
    SageMakerTrainingSensor,
    SageMakerTransformSensor,
    SageMakerTuningSensor,
)
from airflow.sdk.exceptions import TaskDeferred

LONGEST_S = 120


class Example:
    """The configs of the example's tasks: one experiment, and names that begin with one text."""

    def __init__(self, training: dict[str, Any], bucket: str, name: str) -> None:
        self.name, self.bucket = name, bucket
        self.training = {**training, "ExperimentConfig": {"ExperimentName": name}}
        self.artifact = f"s3://{bucket}/models/{name}/output/model.tar.gz"
        self.role = training["RoleArn"]

    def processing(self) -> dict[str, Any]:
        """A job that copies what it is given."""
        places = {"LocalPath": "/opt/ml/processing/input", "S3InputMode": "File", "S3DataType": "S3Prefix"}
        uploaded = {"LocalPath": "/opt/ml/processing/output", "S3UploadMode": "EndOfJob"}
        cluster = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
        return {
            "ProcessingJobName": self.name,
            "RoleArn": self.role,
            "AppSpecification": {"ImageUri": TOY_IMAGE},
            "ProcessingResources": {"ClusterConfig": cluster},
            "ProcessingInputs": [
                {"InputName": "input", "S3Input": {"S3Uri": f"s3://{self.bucket}/data/train/", **places}}
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {"OutputName": "output", "S3Output": {"S3Uri": f"s3://{self.bucket}/out/{self.name}", **uploaded}}
                ]
            },
        }

    def model(self) -> dict[str, Any]:
        """The model of the training job."""
        container = {"Mode": "SingleModel", "Image": TOY_IMAGE, "ModelDataUrl": self.artifact}
        return {"ModelName": self.name, "ExecutionRoleArn": self.role, "PrimaryContainer": container}

    def tuning(self) -> dict[str, Any]:
        """Two training jobs, one after the other."""
        whole = {"Name": "epochs", "MinValue": "2", "MaxValue": "4"}
        members = ("RoleArn", "AlgorithmSpecification", "InputDataConfig", "OutputDataConfig", "ResourceConfig")
        definition = {member: self.training[member] for member in (*members, "StoppingCondition")}
        return {
            "HyperParameterTuningJobName": self.name[:32],
            "HyperParameterTuningJobConfig": {
                "Strategy": "Bayesian",
                "HyperParameterTuningJobObjective": {"MetricName": "toy:accuracy", "Type": "Maximize"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
                "ParameterRanges": {
                    "CategoricalParameterRanges": [],
                    "IntegerParameterRanges": [whole],
                    "ContinuousParameterRanges": [],
                },
            },
            "TrainingJobDefinition": {"StaticHyperParameters": {"k": "3"}, **definition},
        }

    def transform(self) -> dict[str, Any]:
        """Every line of the training data, scored."""
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.bucket}/data/train/"}}
        return {
            "TransformJobName": self.name,
            "ModelName": self.name,
            "TransformInput": {"DataSource": source, "SplitType": "Line", "ContentType": "text/csv"},
            "TransformOutput": {"S3OutputPath": f"s3://{self.bucket}/scored/{self.name}"},
            "TransformResources": {"InstanceCount": 1, "InstanceType": "ml.m5.large"},
        }


@pytest.fixture
def example(provider_connection: None, job_request: Callable[..., dict[str, Any]], bucket: str, unique: str) -> Example:
    training = job_request(epochs=2)
    training["OutputDataConfig"] = {"S3OutputPath": f"s3://{bucket}/models"}
    return Example(training, bucket, unique)


def wait_for(sensor: Any) -> None:
    """Poke until the sensor says yes; it raises when the job has failed."""

    async def poke() -> None:
        while not sensor.poke({}):
            await asyncio.sleep(0.2)

    asyncio.run(asyncio.wait_for(poke(), LONGEST_S))


@pytest.mark.slow
def test_the_providers_example_from_preprocessing_to_clean_up(sm, aws, example):
    name = example.name
    processed = SageMakerProcessingOperator(task_id="preprocess", config=example.processing(), check_interval=0.2)
    assert processed.execute({})["Processing"]["ProcessingJobStatus"] == "Completed"
    SageMakerCreateExperimentOperator(task_id="experiment", name=name).execute({})
    SageMakerTrainingOperator(
        task_id="train", config=example.training, wait_for_completion=False, print_log=False
    ).execute({})
    wait_for(SageMakerTrainingSensor(task_id="trained", job_name=name, print_log=False))
    SageMakerModelOperator(task_id="model", config=example.model()).execute({})
    registered = SageMakerRegisterModelVersionOperator(
        task_id="register", image_uri=TOY_IMAGE, model_url=example.artifact, package_group_name=f"{name}-group"
    ).execute({})
    assert registered.endswith(f"model-package/{name}-group/1")
    SageMakerTuningOperator(task_id="tune", config=example.tuning(), wait_for_completion=False).execute({})
    wait_for(SageMakerTuningSensor(task_id="tuned", job_name=name[:32]))
    SageMakerTransformOperator(task_id="test", config=example.transform(), wait_for_completion=False).execute({})
    wait_for(SageMakerTransformSensor(task_id="tested", job_name=name))

    best = sm.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name[:32])["BestTrainingJob"]
    assert best["ObjectiveStatus"] == "Succeeded"
    [component] = sm.list_trial_components(ExperimentName=name)["TrialComponentSummaries"]
    assert component["TrialComponentName"] == f"{name}-aws-training-job"
    scored = aws("s3").list_objects_v2(Bucket=example.bucket, Prefix=f"scored/{name}/")["Contents"]
    assert all(found["Key"].endswith(".out") for found in scored)

    sm.delete_model_package(ModelPackageName=registered)
    sm.delete_model_package_group(ModelPackageGroupName=f"{name}-group")
    SageMakerDeleteModelOperator(task_id="delete_model", config={"ModelName": name}).execute({})
    trial = sm.list_trials(ExperimentName=name)["TrialSummaries"][0]["TrialName"]
    sm.disassociate_trial_component(TrialComponentName=component["TrialComponentName"], TrialName=trial)
    sm.delete_trial(TrialName=trial)
    sm.delete_experiment(ExperimentName=name)


@pytest.mark.slow
def test_what_can_be_deferred_is_seen_through_by_its_trigger(sm, example):
    def ended(operator: Any) -> dict[str, Any]:
        async def first_event(trigger: Any) -> dict[str, Any]:
            async for event in trigger.run():
                return event.payload
            raise AssertionError("the trigger ended without an event")

        with pytest.raises(TaskDeferred) as deferred:
            operator.execute({})
        payload = asyncio.run(asyncio.wait_for(first_event(deferred.value.trigger), LONGEST_S))
        assert payload["status"] == "success"
        return getattr(operator, deferred.value.method_name)({}, event=payload)

    soon = {"deferrable": True, "check_interval": 0.2}
    training = {member: value for member, value in example.training.items() if member != "ExperimentConfig"}
    trained = ended(SageMakerTrainingOperator(task_id="a", config=training, print_log=False, **soon))
    assert trained["Training"]["TrainingJobStatus"] == "Completed"
    processed = ended(SageMakerProcessingOperator(task_id="b", config=example.processing(), **soon))
    assert processed["Processing"]["ProcessingJobStatus"] == "Completed"
    tuned = ended(SageMakerTuningOperator(task_id="c", config=example.tuning(), **soon))
    assert tuned["Tuning"]["HyperParameterTuningJobStatus"] == "Completed"
    SageMakerModelOperator(task_id="d", config=example.model()).execute({})
    scored = ended(SageMakerTransformOperator(task_id="e", config=example.transform(), **soon))
    assert scored["Transform"]["TransformJobStatus"] == "Completed"
