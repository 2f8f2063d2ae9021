"""Training jobs: real processes under SageMaker's container contract."""

from sagemaker_local.training.operations import OPERATIONS, start, stop

__all__ = ["OPERATIONS", "start", "stop"]
