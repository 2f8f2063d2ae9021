"""What follows from the gate's decision: a version in the model registry, a question to a person, or a refusal."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scones.aws.lineage import Lineage
from scones.evaluation.data import Decision, Evaluation, Registration
from scones.evaluation.store import EvaluationStore
from scones.training.costs import endpoint_monthly_cost, job_cost
from scones.training.data import StagedDataset, TrainingResult
from scones.training.model_package import APPROVED, APPROVED_BY, PENDING, PackageSpec, metrics_of, model_package_request
from scones.training.registry import ModelRegistryHook
from scones.training.served import LIST_SEPARATOR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a run did: the data, the job, the evaluation, and the run itself."""

    dataset: StagedDataset
    training: TrainingResult
    evaluation: Evaluation
    dag_id: str
    run_id: str


@dataclass(frozen=True)
class Approval:
    """Whether a person's word is ``wanted``, and ``always``: even if somebody approved this very model before."""

    wanted: bool
    always: bool = False


def git_revision(folder: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return the code's revision: ``SCONES_GIT_REVISION``, else the checkout's, else "unknown"."""
    given = (os.environ if environ is None else environ).get("SCONES_GIT_REVISION", "").strip()
    if given:
        return given
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607 - the user's own git
            cwd=folder or Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def register(work: Work, approval: Approval, hook: ModelRegistryHook | None = None) -> Registration:
    """Register the model with its metrics and its lineage, once per artifact.

    A person is asked unless a *person* approved this very model; that a run without the question let it pass says
    nothing.
    """
    hook = hook or ModelRegistryHook()
    dataset, training = work.dataset, work.training
    lineage = Lineage(
        dataset_version=dataset["dataset_version"],
        training_job=training["job_name"],
        image=training["image"],
        git_revision=git_revision(),
        dag_id=work.dag_id,
        run_id=work.run_id,
    )
    metadata = lineage.as_metadata(
        classes=LIST_SEPARATOR.join(dataset["classes"]),
        image_shape=dataset["image_shape"].replace(",", LIST_SEPARATOR),
        fingerprint=training["fingerprint"],
        **{name.replace(":", "_"): value for name, value in training["metrics"].items()},
        **metrics_of(work.evaluation),
    )
    package, created = hook.register(
        model_package_request(
            PackageSpec(
                image=training["image"],
                model_data_url=training["model_artifacts"],
                evaluation_uri=work.evaluation["evaluation_uri"],
                baseline_uri=dataset["baseline_uri"],
                metadata=metadata,
                approval_status=PENDING if approval.wanted else APPROVED,
            )
        )
    )
    arn, status = package["ModelPackageArn"], package["ModelApprovalStatus"]
    if not approval.wanted and status != APPROVED:
        # It has passed the gate again, and this run asks no person.
        hook.set_approval(arn, APPROVED, f"Passed the quality gate in run {work.run_id}")
        status = APPROVED
    person = package.get("CustomerMetadataProperties", {}).get(APPROVED_BY) if status == APPROVED else None
    log.info(
        "Model version %s %s, %s",
        package["ModelPackageVersion"],
        "registered" if created else "was registered before",
        f"approved by {person}" if person else status,
    )
    return {
        "model_package_arn": arn,
        "version": package["ModelPackageVersion"],
        "approval_status": status,
        "created": created,
        "asks_person": approval.wanted and (approval.always or not person),
    }


def record_refusal(
    store: EvaluationStore, evaluation: Evaluation, reasons: list[str], run_id: str, now: datetime | None = None
) -> tuple[dict[str, Any], str]:
    """Write the record of a refusal; return it with its address."""
    job = evaluation["training_job_name"]
    document = {
        "training_job_name": job,
        "refused_at": (now or datetime.now(UTC)).isoformat(),
        "run_id": run_id,
        "reasons": reasons,
        "test_accuracy": evaluation["test_accuracy"],
        "champion": evaluation["champion"],
        "evaluation_uri": evaluation["evaluation_uri"],
    }
    uri = store.write_refusal(job, document)
    return {**document, "record": uri}, uri


def question(
    evaluation: Evaluation, decision: Decision, training: TrainingResult, page: str, fleet: tuple[str, int]
) -> str:
    """Return what a person needs to decide, as Markdown.

    Args:
        page: address of the evaluation's page.
        fleet: instance type and count of the endpoint.
    """
    champion = evaluation["champion"]
    if champion is None:
        live = "nothing else is live"
    elif champion["comparable"]:
        live = f"the live model ({champion['training_job_name']}) has {champion['accuracy']:.1%} on the same images"
    else:
        live = f"**the live model cannot be compared: {champion['reason']}**"
    trained = job_cost(training["instance_type"], training["billable_seconds"])
    monthly = endpoint_monthly_cost(*fleet)
    costs = [
        "training: " + ("list price unknown" if trained is None else f"{trained:.2f} USD"),
        f"endpoint ({fleet[1]} x {fleet[0]}): "
        + ("list price unknown" if monthly is None else f"{monthly:.2f} USD a month"),
    ]
    found = [f"| {name} | {share:.1%} |" for name, share in evaluation["recall"].items()]
    return "\n".join(
        [
            f"**Accuracy {evaluation['test_accuracy']:.1%}** on {evaluation['images']} test images; {live}.",
            "",
            f"{decision['summary']}.",
            "",
            "| class | found |",
            "|---|---|",
            *found,
            "",
            f"Cost at list price: {'; '.join(costs)}.",
            "",
            f"[The whole evaluation]({page})",
        ]
    )
