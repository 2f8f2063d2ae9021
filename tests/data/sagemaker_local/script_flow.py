"""Script mode as a user of SDK 3.x writes it: ModelTrainer with SourceCode, the model on an endpoint, one answer."""
# ruff: noqa: T201

import json
import sys

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Endpoint, EndpointConfig, Model, TrainingJob
from sagemaker.core.shapes import ContainerDefinition, OutputDataConfig, ProductionVariant
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode

name, image, role, bucket, source = sys.argv[1:]
trainer = ModelTrainer(
    training_image=image,
    role=role,
    base_job_name=name,
    sagemaker_session=Session(default_bucket=bucket),
    source_code=SourceCode(source_dir=source, entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=10),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/script"),
    hyperparameters={"epochs": 2, "word": "two words"},
)
data = InputData(channel_name="train", data_source=f"s3://{bucket}/data/train/")
trainer.train(input_data_config=[data], wait=True, logs=False)
trained = TrainingJob.get(training_job_name=trainer._latest_training_job.training_job_name)
artifact = trained.model_artifacts.s3_model_artifacts
model = Model.create(
    model_name=name,
    primary_container=ContainerDefinition(image=image, model_data_url=artifact),
    execution_role_arn=role,
)
variant = ProductionVariant(
    variant_name="AllTraffic", model_name=name, instance_type="ml.m5.large", initial_instance_count=1
)
config = EndpointConfig.create(endpoint_config_name=name, production_variants=[variant])
endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
endpoint.wait_for_status("InService", poll=1)
answer = endpoint.invoke(body=b"hello", content_type="text/plain").body.read().decode()
for made in (endpoint, config, model):
    made.delete()
print("REPORT " + json.dumps({"status": trained.training_job_status, "artifact": artifact, "answer": answer}))
