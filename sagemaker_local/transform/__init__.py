"""Batch transform jobs: a model server started for the job, every object of a prefix sent to it."""

from sagemaker_local.transform.operations import OPERATIONS, start, stop

__all__ = ["OPERATIONS", "start", "stop"]
