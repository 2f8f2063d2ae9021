"""Operations on a store of their own, nothing started: orders, filters, refusals, as the API reference has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sagemaker_local import app, registry
from sagemaker_local.alternatives import instead
from sagemaker_local.config import Config
from sagemaker_local.context import Context
from sagemaker_local.errors import UnsupportedOperation, ValidationException
from sagemaker_local.protocol import service_model
from sagemaker_local.serving import configs
from sagemaker_local.serving.operations import _check_wanted, _resolve
from sagemaker_local.serving.specs import FleetSpec, VariantSpec
from sagemaker_local.store import Resource
from tests.support.asgi import ask, scope_of

# ListXxx: what its reference says of SortOrder's default.
ORDERS = {
    "ListModels": "Descending",
    "ListEndpoints": "Descending",
    "ListEndpointConfigs": "Descending",
    "ListTrainingJobs": "Ascending",
    "ListTransformJobs": "Descending",
    "ListProcessingJobs": "Ascending",
    "ListModelPackages": "Ascending",
    "ListModelPackageGroups": "Ascending",
    "ListMonitoringSchedules": "Descending",
}
KINDS = {
    "ListModels": "model",
    "ListEndpoints": "endpoint",
    "ListEndpointConfigs": "endpoint-config",
    "ListTrainingJobs": "training-job",
    "ListTransformJobs": "transform-job",
    "ListProcessingJobs": "processing-job",
    "ListModelPackages": "model-package",
    "ListModelPackageGroups": "model-package-group",
    "ListMonitoringSchedules": "monitoring-schedule",
}


@pytest.fixture
def ctx(tmp_path: Any) -> Iterator[Context]:
    moments = iter(range(1_700_000_000, 1_800_000_000))
    made = Context(Config(data_dir=tmp_path, account_id="1" * 12), clock=lambda: float(next(moments)))
    made.events.publish = lambda *_: None  # type: ignore[method-assign]  # nobody takes them, which is tried for seconds
    yield made
    made.close()


def call(ctx: Context, operation: str, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = app.operations(app.areas())[operation](ctx, request)  # type: ignore[assignment]
    return answer


@pytest.mark.parametrize("operation", ORDERS)
def test_lists_are_in_the_order_that_is_documented_for_each(ctx, operation):
    documented = service_model().operation_model(operation).input_shape.members["SortOrder"].documentation
    assert ORDERS[operation] in documented
    kind = KINDS[operation]
    for name in ("b", "a", "c"):
        body = {"TrainingJobName": name, "TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"}
        ctx.store.create(Resource(kind, name, ctx.arn(kind, name), body, "Completed"))
    found = call(ctx, operation)
    [rows] = [value for value in found.values() if isinstance(value, list)]
    names = [str(next(value for key, value in row.items() if key.endswith("Arn"))).rpartition("/")[2] for row in rows]
    assert names == (["b", "a", "c"] if ORDERS[operation] == "Ascending" else ["c", "a", "b"])


def test_training_jobs_are_taken_first_and_filtered_then(ctx):
    for number, status in enumerate(("Completed", "Failed", "Completed", "Failed")):
        body = {"TrainingJobName": f"j{number}", "TrainingJobStatus": status, "SecondaryStatus": status}
        ctx.store.create(Resource("training-job", f"j{number}", ctx.arn("training-job", f"j{number}"), body, status))
    first = call(ctx, "ListTrainingJobs", StatusEquals="Failed", MaxResults=2)
    assert [job["TrainingJobName"] for job in first["TrainingJobSummaries"]] == ["j1"]
    rest = call(ctx, "ListTrainingJobs", StatusEquals="Failed", MaxResults=2, NextToken=first["NextToken"])
    assert [job["TrainingJobName"] for job in rest["TrainingJobSummaries"]] == ["j3"]
    assert rest["NextToken"] is None


def test_packages_are_described_many_at_once(ctx):
    registry.create_model_package_group(ctx, {"ModelPackageGroupName": "g"})
    version = registry.create_model_package(ctx, {"ModelPackageGroupName": "g"})["ModelPackageArn"]
    named = registry.create_model_package(ctx, {"ModelPackageName": "n"})["ModelPackageArn"]
    found = registry.batch_describe_model_package(ctx, {"ModelPackageArnList": [version, named, "arn:nothing"]})
    assert list(found["ModelPackageSummaries"]) == [version]
    assert set(found["BatchDescribeModelPackageErrorMap"]) == {named, "arn:nothing"}
    assert "ModelPackageName" not in registry.describe_model_package(ctx, {"ModelPackageName": version})


def test_versions_of_all_groups_are_listed_and_take_no_tags_of_their_own(ctx):
    """Source: ModelPackageType in ListModelPackages and Tags in CreateModelPackage, API reference."""
    for group in ("g", "h"):
        registry.create_model_package_group(ctx, {"ModelPackageGroupName": group})
        registry.create_model_package(ctx, {"ModelPackageGroupName": group})
    registry.create_model_package(ctx, {"ModelPackageName": "n"})

    def listed(**request: str) -> list[str]:
        found = registry.list_model_packages(ctx, request)["ModelPackageSummaryList"]
        return [one["ModelPackageArn"].partition("model-package/")[2] for one in found]

    assert listed(ModelPackageType="Versioned") == ["g/1", "h/1"]
    assert listed(ModelPackageType="Both") == ["g/1", "h/1", "n"]
    assert listed() == ["n"]
    with pytest.raises(ValidationException, match="Tags cannot be given"):
        registry.create_model_package(ctx, {"ModelPackageGroupName": "g", "Tags": [{"Key": "a", "Value": "b"}]})


def test_a_record_may_name_any_image_and_what_would_run_it_says_that_it_cannot(ctx):
    container = {"Image": "nobody/knows/mine:1"}
    registry.create_model_package(ctx, {"ModelPackageName": "n", "InferenceSpecification": {"Containers": [container]}})
    call(ctx, "CreateModel", ModelName="m", PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    call(ctx, "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant])
    with pytest.raises(ValidationException, match=r"no command for image .*mine:1"):
        _resolve(ctx, "c")


@pytest.mark.parametrize(
    "changes",
    [
        [{"VariantName": "v", "DesiredWeight": 1.0}, {"VariantName": "v", "DesiredWeight": 2.0}],
        [{"VariantName": "v"}],
    ],
)
def test_weights_that_say_nothing_or_two_things_are_refused(changes):
    with pytest.raises(ValidationException):
        _check_wanted(changes)


SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}


def fleet(**changes: Any) -> FleetSpec:
    given: dict[str, Any] = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": SERVERLESS}
    return FleetSpec("f", "c", 0.0, (VariantSpec.resolve({**given, **changes}, {"Image": "i"}),))


def test_a_serverless_variant_changes_its_concurrency_and_no_instances():
    spec = fleet()
    [variant] = spec.with_desired([{"VariantName": "v", "ServerlessUpdateConfig": {"MaxConcurrency": 9}}]).variants
    assert variant.serverless == {"MemorySizeInMB": 2048, "MaxConcurrency": 9}
    assert variant.instance_count == 1
    with pytest.raises(ValueError, match="DesiredInstanceCount"):
        spec.with_desired([{"VariantName": "v", "DesiredInstanceCount": 2}])
    with pytest.raises(ValueError, match="ServerlessUpdateConfig"):
        fleet(ServerlessConfig=None).with_desired([{"VariantName": "v", "ServerlessUpdateConfig": {}}])
    assert FleetSpec.from_dict(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("variant", "config"),
    [
        ({"ServerlessConfig": SERVERLESS, "InstanceType": "ml.m5.large"}, {}),
        ({"ServerlessConfig": SERVERLESS, "InitialInstanceCount": 1}, {}),
        ({"ServerlessConfig": {**SERVERLESS, "MemorySizeInMB": 1500}}, {}),
        ({"ServerlessConfig": {**SERVERLESS, "ProvisionedConcurrency": 6}}, {}),
        ({"ServerlessConfig": SERVERLESS}, {"DataCaptureConfig": {"DestinationS3Uri": "s3://bkt/c"}}),
        ({"ServerlessConfig": SERVERLESS}, {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://bkt/c"}}}),
        ({"InstanceType": "ml.m5.large"}, {}),
        ({}, {}),
    ],
)
def test_a_variant_is_serverless_or_has_instances(ctx, variant, config):
    ctx.store.create(Resource("model", "m", ctx.arn("model", "m"), {}, internal={"container": {}}))
    named = {"VariantName": "v", "ModelName": "m", **variant}
    with pytest.raises(ValidationException):
        configs.create_endpoint_config(ctx, {"EndpointConfigName": "c", "ProductionVariants": [named], **config})


def test_what_is_left_out_says_what_to_use_instead(ctx):
    assert "write a DAG" in instead("CreatePipeline")
    assert instead("CreateTrainingJob") == ""
    left_out = set(service_model().operation_names) - set(app.operations(app.areas()))
    assert len([name for name in left_out if instead(name)]) > len(left_out) / 2
    scope = scope_of("POST", "http://127.0.0.1/", {"X-Amz-Target": "SageMaker.CreateAutoMLJobV2"})
    status, headers, body = ask(app.create_app(ctx), scope, b"{}")
    assert (status, headers[b"x-amzn-errortype"]) == (400, UnsupportedOperation.__name__.encode())
    assert b"CreateHyperParameterTuningJob" in body


def test_a_request_to_another_region_is_refused(ctx):
    signed = "AWS4-HMAC-SHA256 Credential=a/20260101/%s/sagemaker/aws4_request, SignedHeaders=host, Signature=x"
    for region, expected in (("us-east-1", 200), ("eu-west-1", 400)):
        headers = {"X-Amz-Target": "SageMaker.ListModels", "Authorization": signed % region}
        assert ask(app.create_app(ctx), scope_of("POST", "http://127.0.0.1/", headers), b"{}")[0] == expected
