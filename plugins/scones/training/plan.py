"""What a run asks SageMaker for: one training job, or a tuning job that varies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scones.training.job import TrainingSpec, build_training_request, fingerprint, same_work, training_job_name
from scones.training.tuning import build_tuning_request, rounds, tuning_job_name, tuning_mark


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        spec: the training.
        run_key: names the run and its task.
        tuning_jobs: how many training jobs look for the best hyperparameters; 0: the spec's own are used.
    """

    spec: TrainingSpec
    run_key: str
    tuning_jobs: int = 0

    @property
    def kind(self) -> str:
        """Which of `scones.jobs.states.KINDS` is waited for."""
        return "tuning" if self.tuning_jobs else "training"

    @property
    def mark(self) -> str:
        """Fingerprint of all that decides the model."""
        mark = fingerprint(self.spec)
        return tuning_mark(mark, self.tuning_jobs, self._images) if self.tuning_jobs else mark

    @property
    def rounds(self) -> int:
        """How many training jobs are waited for one after another, at most."""
        return rounds(self.tuning_jobs) if self.tuning_jobs else 1

    @property
    def _images(self) -> int:
        return self.spec.dataset["counts"]["train"]

    def name(self, attempt: int) -> str:
        """Return the name of the run's ``attempt``-th job: the same at every try of the task, so that a retry finds
        it."""
        if self.tuning_jobs:
            return tuning_job_name(self.run_key, self.mark, attempt)
        return training_job_name(self.run_key, attempt)

    def request(self, attempt: int, tags: list[dict[str, str]]) -> dict[str, Any]:
        """Return the request that creates that job, with its tags.

        Raises:
            InvalidTrainingJobError: with every problem found, and what to do about each.
        """
        name = self.name(attempt)
        training = build_training_request(self.spec, name, tags)
        return build_tuning_request(training, self.tuning_jobs, name, self._images) if self.tuning_jobs else training

    def does(self, description: Mapping[str, Any]) -> bool:
        """Return whether a described job of the run's does this work; a tuning job's name says so already."""
        return bool(self.tuning_jobs) or same_work(description, self.request(1, []))
