"""Experiments, trials and trial components: records of what was run, filled by jobs with an ExperimentConfig."""

from sagemaker_local.experiments.operations import OPERATIONS

__all__ = ["OPERATIONS"]
