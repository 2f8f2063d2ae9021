"""What an SDK 3.x user writes, run as a program of its own: trains, makes a model, prints what it saw as JSON."""
# ruff: noqa: T201

import json
import sys

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Model, ModelPackage, ModelPackageGroup, TrainingJob, TransformJob
from sagemaker.core.shapes import (
    AlgorithmSpecification,
    Channel,
    ContainerDefinition,
    DataSource,
    OutputDataConfig,
    ResourceConfig,
    S3DataSource,
    StoppingCondition,
    TransformDataSource,
    TransformInput,
    TransformOutput,
    TransformResources,
    TransformS3DataSource,
)
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData

name, image, role, bucket = sys.argv[1:]
uri = f"s3://{bucket}/data/train/"
job = TrainingJob.create(
    training_job_name=name,
    role_arn=role,
    algorithm_specification=AlgorithmSpecification(training_image=image, training_input_mode="File"),
    hyper_parameters={"epochs": "2"},
    input_data_config=[
        Channel(
            channel_name="train",
            data_source=DataSource(s3_data_source=S3DataSource(s3_data_type="S3Prefix", s3_uri=uri)),
        )
    ],
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/sdk"),
    resource_config=ResourceConfig(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=300),
)
job.wait(poll=1, logs=False)
job.refresh()
artifact = job.model_artifacts.s3_model_artifacts
model = Model.create(
    model_name=name,
    primary_container=ContainerDefinition(image=image, model_data_url=artifact),
    execution_role_arn=role,
)
transform = TransformJob.create(
    transform_job_name=name,
    model_name=name,
    transform_input=TransformInput(
        data_source=TransformDataSource(s3_data_source=TransformS3DataSource(s3_data_type="S3Prefix", s3_uri=uri))
    ),
    transform_output=TransformOutput(s3_output_path=f"s3://{bucket}/sdk/out"),
    transform_resources=TransformResources(instance_type="ml.m5.large", instance_count=1),
)
transform.wait(poll=1)
group = ModelPackageGroup.create(model_package_group_name=name)
listed = [item.training_job_name for item in TrainingJob.get_all(name_contains=name)]
failing = TrainingJob.create(
    training_job_name=f"{name}-fails",
    role_arn=role,
    algorithm_specification=AlgorithmSpecification(training_image=image, training_input_mode="File"),
    hyper_parameters={"epochs": "1", "exit_code": "1", "failure": "no images found"},
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/sdk"),
    resource_config=ResourceConfig(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=300),
)
try:
    failing.wait(poll=1)
    failure = ""
except Exception as error:
    failure = f"{type(error).__name__}: {error}"
model.delete()
try:
    Model.get(model_name=name)
    gone = ""
except Exception as error:
    gone = str(error)
trainer = ModelTrainer(
    training_image=image,
    role=role,
    base_job_name=f"{name}-trainer",
    sagemaker_session=Session(default_bucket=bucket),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/sdk"),
    hyperparameters={"epochs": 2},
)
trainer.train(input_data_config=[InputData(channel_name="train", data_source=uri)], wait=True, logs=False)
trained = TrainingJob.get(training_job_name=trainer._latest_training_job.training_job_name)
report = {
    "trainer": [trained.training_job_status, trained.hyper_parameters["epochs"]],
    "trainer_metrics": {m.metric_name: m.value for m in trained.final_metric_data_list},
    "status": job.training_job_status,
    "metrics": {m.metric_name: m.value for m in job.final_metric_data_list},
    "artifact": artifact,
    "transform": transform.transform_job_status,
    "group": group.model_package_group_arn,
    "listed": listed,
    "failure": failure,
    "gone": gone,
    "packages": [p.model_package_arn for p in ModelPackage.get_all(model_package_group_name=name)],
}
print("REPORT " + json.dumps(report))
