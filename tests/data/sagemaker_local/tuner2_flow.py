"""Tuning as a student writes it with the SageMaker SDK 2.x: HyperparameterTuner, and the best model on an endpoint."""
# ruff: noqa: T201
# mypy: ignore-errors

import json
import sys

import sagemaker
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.predictor import Predictor
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner, IntegerParameter

name, image, role, bucket = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
estimator = Estimator(
    image,
    role,
    instance_count=1,
    instance_type="ml.m5.large",
    output_path=f"s3://{bucket}/tuner",
    base_job_name=name,
    sagemaker_session=session,
)
tuner = HyperparameterTuner(
    estimator,
    "toy:accuracy",
    {
        "epochs": IntegerParameter(1, 3),
        "rate": ContinuousParameter(0.1, 0.5),
        "word": CategoricalParameter(["a", "b"]),
    },
    metric_definitions=[{"Name": "toy:accuracy", "Regex": "Validation-accuracy=([0-9.]+)"}],
    max_jobs=2,
    max_parallel_jobs=2,
    early_stopping_type="Auto",
    base_tuning_job_name=name[:12],
)
tuner.fit({"train": TrainingInput(f"s3://{bucket}/data/train/")})
frame = tuner.analytics().dataframe()
attached = HyperparameterTuner.attach(tuner.latest_tuning_job.name, sagemaker_session=session)
deployed = tuner.deploy(1, "ml.m5.large")
answer = Predictor(deployed.endpoint_name, sagemaker_session=session).predict(b"hello").decode()
deployed.delete_endpoint()
print(
    "REPORT "
    + json.dumps(
        {
            "status": tuner.describe()["HyperParameterTuningJobStatus"],
            "best": tuner.best_training_job(),
            "attached": attached.best_training_job(),
            "objectives": sorted(frame["FinalObjectiveValue"]),
            "answer": answer,
        }
    )
)
