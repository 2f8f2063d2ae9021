"""Application Auto Scaling of endpoint variants: targets and target tracking policies, which really scale."""

from sagemaker_local.autoscaling.operations import OPERATIONS
from sagemaker_local.autoscaling.scaler import start, stop

__all__ = ["OPERATIONS", "start", "stop"]
