"""Serving through clients nobody here wrote: Airflow's provider operators and the SageMaker SDK."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def connection(serving, monkeypatch):
    """Airflow's `aws_default`, routed to this service."""
    extra = {
        "region_name": "us-east-1",
        "endpoint_url": serving.s3.meta.endpoint_url,
        "service_config": {"sagemaker": {"endpoint_url": serving.service.url}},
    }
    document = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(document))


def test_the_providers_operators_create_then_update(serving, connection):
    from airflow.providers.amazon.aws.operators.sagemaker import (
        SageMakerEndpointConfigOperator,
        SageMakerEndpointOperator,
    )

    blue, green = serving.model(name="blue"), serving.model(name="green")

    def configure(name: str, model: str) -> None:
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": model,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        config = {"EndpointConfigName": name, "ProductionVariants": [variant]}
        answer = SageMakerEndpointConfigOperator(task_id="config", config=config).execute({})
        assert answer["EndpointConfig"]["EndpointConfigName"] == name

    name = serving.model().replace("model", "endpoint")
    serving.endpoints.append(name)
    for config_name, model, answers in ((f"{name}-1", blue, "blue"), (f"{name}-2", green, "green")):
        configure(config_name, model)
        deploy = SageMakerEndpointOperator(
            task_id="deploy",
            config={"Endpoint": {"EndpointName": name, "EndpointConfigName": config_name}},
            operation="create",  # the second time it meets "Cannot create already existing endpoint" and updates
            wait_for_completion=True,
            check_interval=0.2,
            max_ingestion_time=60,
        )
        found = deploy.execute({})["Endpoint"]
        assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", config_name)
        assert serving.invoke(name)["model"] == answers


@pytest.mark.slow
def test_the_sdk_creates_waits_and_invokes(sdk_python, serving, monkeypatch):
    """In a process of its own: the SDK makes its clients once, from the environment."""
    import os
    import subprocess

    program = """
import sys
from sagemaker.core.resources import Endpoint, EndpointConfig
from sagemaker.core.shapes import ProductionVariant

name, model = sys.argv[1:]
EndpointConfig.create(
    endpoint_config_name=name,
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic", model_name=model, instance_type="ml.m5.large", initial_instance_count=1,
            initial_variant_weight=1.0,
        )
    ],
)
endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
endpoint.wait_for_status("InService", poll=1, timeout=60)
answer = endpoint.invoke(body=b'{"a": 1}', content_type="application/json")
print("ANSWER", answer.body.read().decode())
endpoint.refresh()
print("STATUS", endpoint.endpoint_status)
endpoint.delete()
"""
    model = serving.model()
    environment = {
        **os.environ,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": serving.s3.meta.endpoint_url,
        "AWS_ENDPOINT_URL_SAGEMAKER": serving.service.url,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": serving.service.url,
    }
    done = subprocess.run(
        [sdk_python, "-c", program, model.replace("model", "sdk"), model],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))
    assert json.loads(answer.removeprefix("ANSWER"))["echo"] == {"a": 1}
    assert "STATUS InService" in done.stdout
