"""The Airflow provider's own SageMaker operators, unchanged, against the service."""

# ruff: noqa: AIR001 - these operators are executed by hand, not put into a DAG
from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.local_service import TOY_IMAGE, wait_training

pytest.importorskip("airflow")

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerAutoMLOperator,
    SageMakerCreateExperimentOperator,
    SageMakerDeleteModelOperator,
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerRegisterModelVersionOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import SageMakerTrainingSensor, SageMakerTuningSensor
from airflow.sdk.exceptions import AirflowException

pytestmark = pytest.mark.usefixtures("provider_connection")


@pytest.mark.slow  # with print_log the operator looks at the status every 30 s, whatever check_interval says
def test_training_with_logs_printed(job_request, unique, capsys):
    operator = SageMakerTrainingOperator(
        task_id="train", config=job_request(epochs=2, seconds=0.5), print_log=True, check_interval=1
    )
    answer = operator.execute({})
    assert answer["Training"]["TrainingJobStatus"] == "Completed"
    assert answer["Training"]["TrainingJobName"] == unique
    assert answer["Training"]["BillableTimeInSeconds"] >= 1
    printed = capsys.readouterr().out
    assert "Epoch[1] Validation-accuracy=0.500000" in printed
    assert "Billable seconds: " in printed


def test_training_without_logs_and_its_sensor(job_request, unique):
    config = job_request(epochs=1)
    operator = SageMakerTrainingOperator(task_id="train", config=config, print_log=False, check_interval=0.2)
    assert operator.execute({})["Training"]["TrainingJobStatus"] == "Completed"
    sensor = SageMakerTrainingSensor(task_id="wait", job_name=unique, print_log=True)
    assert sensor.poke({})


def test_a_failed_job_fails_the_task_with_the_containers_reason(job_request):
    config = job_request(epochs=1, failure="no images found", exit_code=1)
    operator = SageMakerTrainingOperator(task_id="train", config=config, print_log=False, check_interval=0.2)
    with pytest.raises(AirflowException, match="no images found"):
        operator.execute({})


def test_a_name_that_is_taken_gets_a_suffix(sm, job_request, unique):
    sm.create_training_job(**job_request(epochs=1))
    wait_training(sm, unique)
    operator = SageMakerTrainingOperator(
        task_id="train", config=job_request(epochs=1), print_log=False, check_interval=0.2
    )
    answer = operator.execute({})
    assert answer["Training"]["TrainingJobName"].startswith(f"{unique}-")


def test_model_transform_and_deletion(sm, aws, bucket, role, job_request, unique):
    sm.create_training_job(**job_request(name=f"{unique}-t", epochs=1))
    artifact = wait_training(sm, f"{unique}-t")["ModelArtifacts"]["S3ModelArtifacts"]
    container = {"Image": TOY_IMAGE, "ModelDataUrl": artifact}
    model = {"ModelName": unique, "ExecutionRoleArn": role, "PrimaryContainer": container}
    created = SageMakerModelOperator(task_id="model", config=model).execute({})
    assert created["Model"]["ModelName"] == unique
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/data/train/"}}
    transform = {
        "TransformJobName": unique,
        "ModelName": unique,
        "TransformInput": {"DataSource": source, "ContentType": "text/plain", "SplitType": "Line"},
        "TransformOutput": {"S3OutputPath": f"s3://{bucket}/scored/{unique}", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    answer = SageMakerTransformOperator(task_id="transform", config=transform, check_interval=0.2).execute({})
    assert answer["Transform"]["TransformJobStatus"] == "Completed"
    scored = aws("s3").get_object(Bucket=bucket, Key=f"scored/{unique}/a.txt.out")["Body"].read()
    assert scored == b"A\nB\n"
    SageMakerDeleteModelOperator(task_id="delete", config={"ModelName": unique}).execute({})
    assert sm.list_models(NameContains=unique)["Models"] == []


def test_processing(bucket, role, unique):
    source = {
        "S3Uri": f"s3://{bucket}/data/train/",
        "LocalPath": "/opt/ml/processing/input",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    config = {
        "ProcessingJobName": unique,
        "RoleArn": role,
        "AppSpecification": {"ImageUri": TOY_IMAGE},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10}
        },
        "ProcessingInputs": [{"InputName": "in", "S3Input": source}],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": f"s3://{bucket}/processed/{unique}",
                        "LocalPath": "/opt/ml/processing/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    }
    answer = SageMakerProcessingOperator(task_id="process", config=config, check_interval=0.2).execute({})
    assert answer["Processing"]["ProcessingJobStatus"] == "Completed"


def test_register_model_version(sm, unique):
    operator = SageMakerRegisterModelVersionOperator(
        task_id="register", image_uri=TOY_IMAGE, model_url="s3://b/model.tar.gz", package_group_name=unique
    )
    for number in (1, 2):
        assert operator.execute({}).endswith(f"model-package/{unique}/{number}")
    assert len(sm.list_model_packages(ModelPackageGroupName=unique)["ModelPackageSummaryList"]) == 2


def test_an_operation_that_is_not_implemented_fails_the_task_and_says_what_to_use_instead(role):
    auto = SageMakerAutoMLOperator(
        task_id="x",
        job_name="x",
        s3_input="s3://b/x",
        target_attribute="y",
        s3_output="s3://b/y",
        role_arn=role,
    )
    with pytest.raises(Exception, match=r"does not implement CreateAutoMLJob.*CreateHyperParameterTuningJob"):
        auto.execute({})


def test_a_training_job_of_an_experiment_is_one_of_its_components(sm, job_request, unique):
    arn = SageMakerCreateExperimentOperator(task_id="x", name=unique, description="of this test").execute({})
    assert arn.endswith(f":experiment/{unique}")
    config = {**job_request(epochs=2), "ExperimentConfig": {"ExperimentName": unique}}
    SageMakerTrainingOperator(task_id="train", config=config, print_log=False, check_interval=0.2).execute({})
    [listed] = sm.list_trial_components(ExperimentName=unique)["TrialComponentSummaries"]
    component = sm.describe_trial_component(TrialComponentName=listed["TrialComponentName"])
    assert component["Status"]["PrimaryStatus"] == "Completed"
    assert component["Parameters"]["epochs"] == {"NumberValue": 2.0}
    [metric] = component["Metrics"]
    assert (metric["MetricName"], metric["Count"], metric["Max"]) == ("toy:accuracy", 2, 0.5)


def test_a_tuning_job_finds_the_best_of_its_training_jobs(sm, job_request, unique):
    request = job_request()
    definition = {
        member: request[member]
        for member in ("RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    }
    metrics = [{"Name": "toy:accuracy", "Regex": r"Validation-accuracy=([0-9.]+)"}]
    epochs = [{"Name": "epochs", "Values": ["1", "3", "2"]}]
    name = unique[:20]
    config = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Grid",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "toy:accuracy"},
            "ResourceLimits": {"MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"CategoricalParameterRanges": epochs},
        },
        "TrainingJobDefinition": {
            **definition,
            "AlgorithmSpecification": {**request["AlgorithmSpecification"], "MetricDefinitions": metrics},
        },
    }
    answer = SageMakerTuningOperator(task_id="tune", config=config, check_interval=0.2).execute({})["Tuning"]
    assert answer["HyperParameterTuningJobStatus"] == "Completed"
    assert answer["TrainingJobStatusCounters"]["Completed"] == 3
    assert answer["BestTrainingJob"]["TunedHyperParameters"] == {"epochs": "3"}
    assert answer["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == pytest.approx(0.6)
    assert SageMakerTuningSensor(task_id="wait", job_name=name).poke({})
    assert sm.describe_training_job(TrainingJobName=answer["BestTrainingJob"]["TrainingJobName"])["TuningJobArn"]
    listed = sm.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert len(listed["TrainingJobSummaries"]) == 3


def test_a_deferrable_job_is_deferred_and_its_trigger_sees_it_through(sm, job_request, unique):
    import asyncio

    from airflow.sdk.exceptions import TaskDeferred

    operator = SageMakerTrainingOperator(
        task_id="train", config=job_request(epochs=2, seconds=0.3), print_log=False, check_interval=0.2, deferrable=True
    )
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({})

    async def first_event() -> dict[str, Any]:
        async for event in deferred.value.trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    payload = asyncio.run(asyncio.wait_for(first_event(), timedelta(seconds=60).total_seconds()))
    assert payload["status"] == "success"
    resume: Callable[..., Any] = getattr(operator, deferred.value.method_name)
    assert resume({}, event=payload)["Training"]["TrainingJobStatus"] == "Completed"
