"""Processing jobs: any command over S3 inputs and outputs."""

from sagemaker_local.processing.operations import OPERATIONS, start, stop, submit

__all__ = ["OPERATIONS", "start", "stop", "submit"]
