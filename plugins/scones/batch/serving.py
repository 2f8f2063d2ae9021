"""What serves the endpoint that scores a batch: noted in every row, checked before thousands of executions start."""

from __future__ import annotations

from typing import Any

from scones.defaults import AWS_CONN_ID

SERVING = ("InService", "Updating", "SystemUpdating", "RollingBack")


class EndpointNotServingError(RuntimeError):
    """The endpoint does not exist or does not answer; the message says what to do."""


def serving_model(endpoint_name: str, aws_conn_id: str | None = AWS_CONN_ID) -> dict[str, str | None]:
    """Return ``{"endpoint_name", "endpoint_config", "model_name", "model_package"}`` of what serves now.

    With several variants the model with the largest weight is named; each row has its own ``production_variant``.

    Raises:
        EndpointNotServingError: the endpoint is absent, still being created, or failed.
    """
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from botocore.exceptions import ClientError

    client: Any = AwsBaseHook(aws_conn_id=aws_conn_id, client_type="sagemaker").conn
    try:
        endpoint = client.describe_endpoint(EndpointName=endpoint_name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        raise EndpointNotServingError(
            f"There is no endpoint {endpoint_name!r}: run the DAG train_and_deploy first."
        ) from error
    if endpoint["EndpointStatus"] not in SERVING:
        reason = endpoint.get("FailureReason")
        raise EndpointNotServingError(
            f"Endpoint {endpoint_name!r} is {endpoint['EndpointStatus']}{f' ({reason})' if reason else ''} and answers"
            " nothing: wait until it is InService, or run train_and_deploy or rollback_endpoint."
        )
    config_name = endpoint["EndpointConfigName"]
    variants = client.describe_endpoint_config(EndpointConfigName=config_name)["ProductionVariants"]
    main = max(variants, key=lambda variant: variant.get("InitialVariantWeight", 1.0))
    model_name = main.get("ModelName")
    package = None
    if model_name:
        model = client.describe_model(ModelName=model_name)
        containers = [model.get("PrimaryContainer") or {}, *model.get("Containers", [])]
        package = next((c["ModelPackageName"] for c in containers if c.get("ModelPackageName")), None)
    return {
        "endpoint_name": endpoint_name,
        "endpoint_config": config_name,
        "model_name": model_name,
        "model_package": package,
    }
