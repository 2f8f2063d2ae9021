"""Experiments, trials and trial components: records of what was run, filled by jobs with an ExperimentConfig."""

from sagemaker_local.experiments import operations, run_metrics

OPERATIONS = {**operations.OPERATIONS, **run_metrics.OPERATIONS}

__all__ = ["OPERATIONS"]
