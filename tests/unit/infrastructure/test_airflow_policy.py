"""What the stack's policies allow, held against the names that the code makes, in an account that others use too."""

from __future__ import annotations

import re

import pytest

from embedded.settings import PROJECT_ROOT
from scones.aws.naming import EXPERIMENT, trial_name
from scones.deployment.endpoint import endpoint_config_request
from scones.training.job import training_job_name
from scones.training.model_package import MODEL_PACKAGE_GROUP, model_request
from scones.training.tuning import tuning_job_name
from tests.support.template import DOCUMENT, RESOURCES, Stack

# A name that none of our own begins with.
ENDPOINT = "couriers"
STACK = Stack(given={"EndpointName": ENDPOINT, "TrainingImage": "registry.example/image-classification:1"})
JOB = training_job_name("run", 1)
MODEL = model_request("image", "s3://b/model.tar.gz", {"SageMakerRoleArn": "role"}, [])["ModelName"]
CONFIG = endpoint_config_request(
    model_name=MODEL, instance_type="ml.m5.large", instance_count=1, capture=None, tags=[]
)["EndpointConfigName"]
LIVES = ("CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint", "DescribeEndpoint", "InvokeEndpoint", "AddTags")
MADE = {
    **dict.fromkeys([f"endpoint/{ENDPOINT}", f"endpoint/{ENDPOINT}-candidate"], LIVES),
    f"endpoint-config/{CONFIG}": ("CreateEndpointConfig", "DescribeEndpointConfig", "DeleteEndpointConfig", "AddTags"),
    f"model/{MODEL}": ("CreateModel", "DescribeModel", "DeleteModel", "AddTags"),
    f"training-job/{JOB}": ("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "AddTags"),
    f"transform-job/{JOB.replace('train', 'transform')}": ("CreateTransformJob", "StopTransformJob", "AddTags"),
    f"hyper-parameter-tuning-job/{tuning_job_name('run', 'mark', 1)}": (
        "CreateHyperParameterTuningJob",
        "DescribeHyperParameterTuningJob",
        "StopHyperParameterTuningJob",
        "ListTrainingJobsForHyperParameterTuningJob",
    ),
    f"model-package-group/{MODEL_PACKAGE_GROUP}": ("CreateModelPackageGroup", "DescribeModelPackageGroup"),
    f"model-package/{MODEL_PACKAGE_GROUP}/1": ("CreateModelPackage", "DescribeModelPackage", "UpdateModelPackage"),
    f"experiment/{EXPERIMENT}": ("CreateExperiment", "DescribeExperiment"),
    f"experiment-trial/{trial_name('train_and_deploy', 'run')}": ("CreateTrial", "DescribeTrial"),
    f"experiment-trial-component/{JOB}-aws-training-job": ("AssociateTrialComponent",),
}


@pytest.mark.parametrize("resource", MADE)
def test_airflow_may_do_to_what_it_makes_all_that_it_does(resource: str) -> None:
    arn = STACK.arn(f"sagemaker:REGION:ACCOUNT:{resource}")
    denied = [one for one in MADE[resource] if not STACK.allows("AirflowPolicy", f"sagemaker:{one}", arn)]
    assert denied == []


def test_the_endpoints_that_the_dags_name_are_those_of_the_policy() -> None:
    text = (PROJECT_ROOT / "dags" / "train_and_deploy.py").read_text()
    named = re.findall(r"endpoint_name=(?:defaults\.ENDPOINT|f\"\{defaults\.ENDPOINT\}(-\w+)\")", text)
    assert set(named) == {"", "-candidate"}
    longest = re.search(r"\{0,(\d+)\}", DOCUMENT["Parameters"]["EndpointName"]["AllowedPattern"])
    assert longest
    assert 1 + int(longest[1]) + len("-candidate") == 63


THEIRS = {
    "endpoint/somebody-elses": ("DescribeEndpoint", "ListTags"),
    "endpoint-config/somebody-elses": ("DescribeEndpointConfig", "ListTags"),
    "model/somebody-elses": ("DescribeModel", "ListTags"),
    "training-job/somebody-elses": ("DescribeTrainingJob",),
}


@pytest.mark.parametrize("resource", THEIRS)
def test_airflow_may_look_at_what_others_made_and_change_nothing(resource: str) -> None:
    arn = STACK.arn(f"sagemaker:REGION:ACCOUNT:{resource}")
    allowed = {
        action
        for statement in STACK.policy("AirflowPolicy")
        for action in statement["Action"]
        if action.startswith("sagemaker:") and STACK.allows("AirflowPolicy", action, arn)
    }
    assert {f"sagemaker:{one}" for one in THEIRS[resource]} <= allowed
    assert {action for action in allowed if not re.match(r"sagemaker:(Describe|List|Search)", action)} == set()


def test_autoscaling_may_do_what_it_does_in_the_callers_name() -> None:
    """Application Auto Scaling checks its caller's rights to the endpoint and to the alarms that it keeps."""
    endpoint = STACK.arn(f"sagemaker:REGION:ACCOUNT:endpoint/{ENDPOINT}")
    alarm = STACK.arn(
        f"cloudwatch:REGION:ACCOUNT:alarm:TargetTracking-endpoint/{ENDPOINT}/variant/AllTraffic-AlarmHigh"
    )
    for action in ("DescribeEndpoint", "DescribeEndpointConfig", "UpdateEndpointWeightsAndCapacities"):
        assert STACK.allows("AirflowPolicy", f"sagemaker:{action}", endpoint), action
    for action in ("PutMetricAlarm", "DescribeAlarms", "DeleteAlarms"):
        assert STACK.allows("AirflowPolicy", f"cloudwatch:{action}", alarm), action


@pytest.mark.parametrize("name", ["AirflowPolicy", "SageMakerRole"])
def test_a_deployment_may_see_the_alarms_that_roll_it_back(name: str) -> None:
    alarms = [item["Properties"]["AlarmName"] for key, item in RESOURCES.items() if key.startswith("Endpoint")]
    assert alarms
    for alarm in [*map(STACK.value, alarms), "an-alarm-of-ones-own"]:
        arn = STACK.arn(f"cloudwatch:REGION:ACCOUNT:alarm:{alarm}")
        assert STACK.allows(name, "cloudwatch:DescribeAlarms", arn), alarm


@pytest.mark.parametrize("tail", [":1", "@sha256:0123", ":1@sha256:0123", ""])
def test_the_repository_is_that_of_the_image_whether_by_tag_or_by_digest(tail: str) -> None:
    image = f"registry.dkr.ecr.eu-central-1.amazonaws.com/image-classification{tail}"
    stack = Stack(region="eu-central-1", given={"TrainingImage": image})
    (pulled,) = [one for one in stack.policy("SageMakerRole") if "ecr:BatchGetImage" in one["Action"]]
    assert pulled["Resource"] == ["arn:aws:ecr:eu-central-1:registry:repository/image-classification"]
