"""Monitoring schedules: an analysis of what an endpoint captured, now or every so many hours."""

from sagemaker_local.monitoring.operations import OPERATIONS, start, stop

__all__ = ["OPERATIONS", "start", "stop"]
