"""What an evaluation reads and writes in the bucket: answers, its documents, refusals, and the threshold in force."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from scones.aws import layout
from scones.aws.store import JSON
from scones.training.store import TrainingStore

_MAX_ANSWER_BYTES = 1024 * 1024


class EvaluationStore(TrainingStore):
    """Evaluations of training jobs' models."""

    def answers(self, job: str) -> dict[str, str]:
        """Return the keys of a model's answers to the test images, by the images' names."""
        keys = (item["Key"] for item in self.objects(layout.transform(job)) if item["Key"].endswith(".out"))
        return {key.rpartition("/")[2].removesuffix(".out"): key for key in keys}

    def answer(self, key: str) -> bytes:
        """Return an answer; nothing when it is gone.

        Raises:
            ObjectTooLargeError: no answer to one image is that large.
        """
        return self.read(key, at_most=_MAX_ANSWER_BYTES) or b""

    def kept_answer(self, job: str, name: str) -> bytes | None:
        """Return the answer that a training job's model gave to a test image; None when it is not kept."""
        return self.read(f"{layout.transform(job)}{name}.out", at_most=_MAX_ANSWER_BYTES)

    def write_evaluation(self, job: str, document: Mapping[str, Any]) -> str:
        """Write ``evaluation.json``; return its address."""
        content = json.dumps(document, indent=1, allow_nan=False).encode()
        return self.write(layout.evaluation(job, "evaluation.json"), content, JSON)

    def write_page(self, job: str, page: str) -> str:
        """Write the evaluation's page; return its address."""
        return self.write(layout.evaluation(job, "evaluation.html"), page.encode(), "text/html; charset=utf-8")

    def write_refusal(self, job: str, document: Mapping[str, Any]) -> str:
        """Write the record of a refusal; return its address."""
        return self.write_json(layout.refusal(job), document)

    def threshold(self) -> bytes | None:
        """Return the threshold in force as it is stored."""
        return self.read(layout.THRESHOLD)

    def change_threshold(self, change: Callable[[bytes | None], bytes | None]) -> None:
        """Change the threshold in force; see `ObjectStore.update`."""
        self.update(layout.THRESHOLD, change, JSON)
