"""What a student writes with the SageMaker SDK 2.x, run as a program of its own: trains, deploys, classifies.

Nothing in it knows of an emulator. `python sdk2_flow.py NAME ROLE BUCKET EXAMPLES`; the channels lie under NAME/.
"""
# ruff: noqa: T201
# mypy: ignore-errors

import json
import sys

import sagemaker
from sagemaker import image_uris
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.model import Model, ModelPackage
from sagemaker.model_monitor import DataCaptureConfig
from sagemaker.predictor import Predictor
from sagemaker.serializers import IdentitySerializer
from sagemaker.transformer import Transformer

name, role, bucket, examples = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
image = image_uris.retrieve("image-classification", session.boto_region_name, "latest")

estimator = Estimator(
    image,
    role,
    instance_count=1,
    instance_type="ml.p3.2xlarge",
    output_path=f"s3://{bucket}/{name}/models",
    base_job_name=name,
    sagemaker_session=session,
)
estimator.set_hyperparameters(image_shape="3,32,32", num_classes=2, num_training_samples=int(examples), epochs=3)
channels = {
    channel: TrainingInput(s3_data=f"s3://{bucket}/{name}/{place}", content_type="application/x-image")
    for channel, place in {
        "train": "train/",
        "validation": "test/",
        "train_lst": "train.lst",
        "validation_lst": "test.lst",
    }.items()
}
estimator.fit(inputs=channels)
job = estimator.latest_training_job.describe()

capture = DataCaptureConfig(
    enable_capture=True, sampling_percentage=100, destination_s3_uri=f"s3://{bucket}/{name}/capture"
)
deployed = estimator.deploy(initial_instance_count=1, instance_type="ml.m5.xlarge", data_capture_config=capture)
predictor = Predictor(deployed.endpoint_name, sagemaker_session=session)
predictor.serializer = IdentitySerializer("image/png")
s3 = session.boto_session.client("s3")
keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=f"{name}/test/")["Contents"]]
answers = {key: json.loads(predictor.predict(s3.get_object(Bucket=bucket, Key=key)["Body"].read())) for key in keys}

model = Model(image_uri=image, model_data=estimator.model_data, role=role, sagemaker_session=session, name=name)
model.create(instance_type="ml.m5.large")
transformer = Transformer(
    name,
    instance_count=1,
    instance_type="ml.m5.large",
    output_path=f"s3://{bucket}/{name}/transform",
    accept="application/jsonlines",
    sagemaker_session=session,
)
transformer.transform(f"s3://{bucket}/{name}/test/", content_type="image/png", wait=True)
scored = {
    key: json.loads(s3.get_object(Bucket=bucket, Key=f"{name}/transform/{key.rpartition('/')[2]}.out")["Body"].read())[
        "prediction"
    ]
    for key in keys
}

registered = model.register(
    content_types=["image/png"],
    response_types=["application/json"],
    inference_instances=["ml.m5.xlarge"],
    transform_instances=["ml.m5.xlarge"],
    model_package_group_name=name,
    approval_status="Approved",
    description="bicycles and motorcycles",
)
package = ModelPackage(role=role, model_package_arn=registered.model_package_arn, sagemaker_session=session)
served = package.deploy(1, "ml.m5.large", endpoint_name=f"{name}-package", wait=True)
second = Predictor(f"{name}-package", sagemaker_session=session, serializer=IdentitySerializer("image/png"))
first_key = keys[0]
of_package = json.loads(second.predict(s3.get_object(Bucket=bucket, Key=first_key)["Body"].read()))
second.delete_endpoint()

deployed.delete_endpoint()
frame = sagemaker.analytics.TrainingJobAnalytics(job["TrainingJobName"], sagemaker_session=session).dataframe()
print(
    "REPORT "
    + json.dumps(
        {
            "status": job["TrainingJobStatus"],
            "artifact": estimator.model_data,
            "job": job["TrainingJobName"],
            "metrics": sorted(set(frame["metric_name"])),
            "endpoint": deployed.endpoint_name,
            "answers": answers,
            "scored": scored,
            "package": registered.model_package_arn,
            "of_package": of_package,
        }
    )
)
