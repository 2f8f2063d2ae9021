"""SageMaker calls that the provider's hook lacks. Every answer of a describe is None when there is no such thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.exceptions import ClientError

from scones.aws.errors import already_there, is_absent, not_found
from scones.aws.lineage import tags
from scones.aws.resources import AWS_CONN_ID


def models_of(config: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the models of a described endpoint config, those of shadow variants last.

    A variant of somebody else's may have none: its models come as inference components.
    """
    variants = [
        one for kind in ("ProductionVariants", "ShadowProductionVariants") for one in (config or {}).get(kind, [])
    ]
    return [variant["ModelName"] for variant in variants if variant.get("ModelName")]


class SageMakerResourcesHook(AwsBaseHook):
    """Describe, create and delete SageMaker resources so that a repeated call does no harm."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["client_type"] = "sagemaker"
        kwargs.setdefault("aws_conn_id", AWS_CONN_ID)
        super().__init__(*args, **kwargs)

    def describe(self, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """Call a describe operation by its client method name; None when the thing does not exist."""
        try:
            answer: dict[str, Any] = getattr(self.conn, operation)(**arguments)
        except ClientError as error:
            if not_found(error):
                return None
            raise
        return answer

    def training_job(self, name: str) -> dict[str, Any] | None:
        """Return DescribeTrainingJob."""
        return self.describe("describe_training_job", TrainingJobName=name)

    def tuning_job(self, name: str) -> dict[str, Any] | None:
        """Return DescribeHyperParameterTuningJob."""
        return self.describe("describe_hyper_parameter_tuning_job", HyperParameterTuningJobName=name)

    def tuned_jobs(self, tuning_job: str) -> list[dict[str, Any]]:
        """Return DescribeTrainingJob of every training job of a tuning job, in the order they were started."""
        listed = self.pages(
            "list_training_jobs_for_hyper_parameter_tuning_job",
            "TrainingJobSummaries",
            HyperParameterTuningJobName=tuning_job,
            SortBy="CreationTime",
            SortOrder="Ascending",
        )
        described = [self.training_job(one["TrainingJobName"]) for one in listed]
        return [job for job in described if job is not None]

    def transform_job(self, name: str) -> dict[str, Any] | None:
        """Return DescribeTransformJob."""
        return self.describe("describe_transform_job", TransformJobName=name)

    def trial(self, experiment: str, trial: str) -> dict[str, str]:
        """Return the ExperimentConfig of a trial; the trial and its experiment are created if need be."""
        if self.describe("describe_experiment", ExperimentName=experiment) is None:
            self._create("create_experiment", {"ExperimentName": experiment, "Tags": tags({})})
        if self.describe("describe_trial", TrialName=trial) is None:
            self._create("create_trial", {"TrialName": trial, "ExperimentName": experiment, "Tags": tags({})})
        return {"ExperimentName": experiment, "TrialName": trial}

    def join_trial(self, trial: str, component: str) -> bool:
        """Put a trial component into a trial; return False when there is no such component."""
        return self.describe("associate_trial_component", TrialComponentName=component, TrialName=trial) is not None

    def endpoint(self, name: str) -> dict[str, Any] | None:
        """Return DescribeEndpoint."""
        return self.describe("describe_endpoint", EndpointName=name)

    def endpoint_config(self, name: str) -> dict[str, Any] | None:
        """Return DescribeEndpointConfig."""
        return self.describe("describe_endpoint_config", EndpointConfigName=name)

    def model(self, name: str) -> dict[str, Any] | None:
        """Return DescribeModel."""
        return self.describe("describe_model", ModelName=name)

    def ensure_model(self, request: dict[str, Any]) -> bool:
        """Create the model unless it exists (its name is a hash of its content). Return whether it was created."""
        if self.model(request["ModelName"]) is not None:
            return False
        return self._create("create_model", request)

    def ensure_endpoint_config(self, request: dict[str, Any]) -> bool:
        """Create the endpoint config unless it exists (named by content). Return whether it was created."""
        if self.endpoint_config(request["EndpointConfigName"]) is not None:
            return False
        return self._create("create_endpoint_config", request)

    def _create(self, operation: str, request: dict[str, Any]) -> bool:
        try:
            getattr(self.conn, operation)(**request)
        except ClientError as error:
            # Another run made the same thing between our look and our call.
            if already_there(error):
                return False
            raise
        return True

    def delete(self, operation: str, **arguments: Any) -> bool:
        """Call a delete operation; return False when the thing was already gone."""
        try:
            getattr(self.conn, operation)(**arguments)
        except ClientError as error:
            if is_absent(error):
                return False
            raise
        return True

    def stop(self, operation: str, **arguments: Any) -> bool:
        """Call a stop operation; return False when there is nothing to stop: it ended, or is gone."""
        return self.describe(operation, **arguments) is not None

    def served_model(self, endpoint_name: str) -> dict[str, Any] | None:
        """Return DescribeModel of what the endpoint serves now; None when it serves nothing."""
        endpoint = self.endpoint(endpoint_name)
        if endpoint is None or not endpoint.get("EndpointConfigName"):
            return None
        names = models_of(self.endpoint_config(endpoint["EndpointConfigName"]))
        return self.model(names[0]) if names else None

    def pages(self, operation: str, member: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a list operation, over all its pages."""
        for page in self.conn.get_paginator(operation).paginate(**arguments):
            yield from page[member]

    def configs_in_use(self, besides: str = "") -> set[str]:
        """Return the names of the endpoint configs that any endpoint (``besides`` one) serves or is being updated to.

        An endpoint that is being deleted, which takes minutes on AWS, uses none any more.
        """
        used: set[str] = set()
        for summary in self.pages("list_endpoints", "Endpoints"):
            if summary["EndpointName"] == besides:
                continue
            endpoint = self.endpoint(summary["EndpointName"])
            if endpoint is not None and endpoint["EndpointStatus"] != "Deleting":
                used.add(endpoint.get("EndpointConfigName", ""))
                used.add((endpoint.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", ""))
        return used - {""}

    def models_in_use(self, without_config: str = "") -> set[str]:
        """Return the names of the models that any endpoint config names, ``without_config`` left out."""
        used: set[str] = set()
        for summary in self.pages("list_endpoint_configs", "EndpointConfigs"):
            if summary["EndpointConfigName"] == without_config:
                continue
            used.update(models_of(self.endpoint_config(summary["EndpointConfigName"])))
        return used
