"""What to use here instead of the parts of SageMaker that this service leaves out."""

from __future__ import annotations

import re

# By words in an operation's name.
_INSTEAD = {
    "Pipeline": "Airflow runs the steps here: write a DAG of the provider's SageMaker operators",
    "AutoML": "Train with an algorithm of your choice, and tune it with CreateHyperParameterTuningJob",
    "Notebook|Domain|UserProfile|Space|App$|Apps$|App[A-Z]|Studio|Mlflow|PartnerApp": "Notebooks run on this machine: "
    "set AWS_ENDPOINT_URL_SAGEMAKER, and boto3 and the SDK reach this service",
    "Feature": "Keep features in S3, as Parquet",
    "InferenceComponent": "Give each model a production variant, or an endpoint of its own",
    "LabelingJob|Workteam|Workforce|HumanTask|FlowDefinition": "Label outside and put a manifest into S3",
    "Compilation|Edge|Device": "Serve the model as it is",
    "JobDefinition": "Put MonitoringJobDefinition into the monitoring schedule",
    "InferenceRecommendations|OptimizationJob": "Measure the endpoint with InvokeEndpoint and its CloudWatch metrics",
    "Cluster|ComputeQuota|TrainingPlan|ReservedCapacity": "Jobs run on this machine, several at once",
    "CodeRepository": "Training code is in the image, or in ContainerEntrypoint",
}


def instead(operation: str) -> str:
    """What to use instead of an operation that this service leaves out, as a sentence; "" where there is nothing."""
    return next((f"{advice}. " for words, advice in _INSTEAD.items() if re.search(words, operation)), "")
