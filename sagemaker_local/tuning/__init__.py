"""Hyperparameter tuning jobs: training jobs one after another, each with values chosen from what the others gave."""

from sagemaker_local.tuning.operations import OPERATIONS, start, stop

__all__ = ["OPERATIONS", "start", "stop"]
