"""Batch transform that is paid for once, and the question to a person before a model goes live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTransformOperator, serialize
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from scones.aws.errors import already_there
from scones.aws.naming import EXPERIMENT, content_hash, sagemaker_name, trial_name
from scones.evaluation.store import EvaluationStore
from scones.evaluation.verdict import question
from scones.jobs.links import TransformJobLink, page_url, persist_link
from scones.jobs.operator import WaitingMixin, as_int
from scones.jobs.trigger import SageMakerWaitTrigger
from scones.training.model_package import APPROVED, REJECTED
from scones.training.registry import ModelRegistryHook

if TYPE_CHECKING:
    from airflow.sdk import Context

MOST_ATTEMPTS = 50


class TransformOperator(WaitingMixin, SageMakerTransformOperator):
    """Run a model over every image under an S3 prefix; use a finished job's answers when they are still there.

    A subclass of the provider's operator because that of 9.39.0: starts a second paid job when retried, has no
    `on_kill`, polls at one pace only and gives up after 60 polls, and links to AWS's console wherever the connection
    points. Needed until it re-attaches and stops.

    The result (XCom): ``{"job_name", "model_name", "output_uri", "seconds", "reused"}``.

    Args:
        model: {"model_name", "answers_uri"}: SageMaker model, and the S3 prefix where each image's answer becomes
            ``<file>.out``.
        dataset: answer of `stage_images`; its ``test_uri`` holds the images.
        content_type: of the images.
        instance_type, instance_count: machines of the job.
        experiment: the experiment in which the run is a trial, and its jobs are components.
        timeout_s: the wait's deadline; the job is stopped then.
    """

    template_fields: Sequence[str] = (
        *SageMakerTransformOperator.template_fields,
        "model",
        "dataset",
        "instance_type",
        "instance_count",
    )
    operator_extra_links = (TransformJobLink(),)

    def __init__(
        self,
        *,
        model: Any,
        dataset: Any,
        content_type: str = "image/png",
        instance_type: str = "ml.m5.large",
        instance_count: int | str = 1,
        max_concurrent: int = 8,
        experiment: str = EXPERIMENT,
        timeout_s: float = 3600,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(config={}, deferrable=deferrable, **kwargs)
        self.model = model
        self.dataset = dataset
        self.content_type = content_type
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.max_concurrent = max_concurrent
        self.experiment = experiment
        self.timeout_s = timeout_s

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the job that does this work, or start one; then wait."""
        request = self._request()
        hook = self._resources_hook()
        trial = hook.trial(self.experiment, trial_name(context["ti"].dag_id, context["run_id"]))
        for attempt in range(1, MOST_ATTEMPTS + 1):
            name = sagemaker_name("scones-transform", content_hash(request), str(attempt))
            description = hook.transform_job(name)
            if description is None:
                self._create({**request, "TransformJobName": name, "ExperimentConfig": trial})
                break
            status = description["TransformJobStatus"]
            if status == "Completed" and self._has_output():
                self.log.info("Using the answers of %s, which did the same work", name)
                hook.join_trial(trial["TrialName"], f"{name}-aws-transform-job")
                persist_link(context, TransformJobLink, self.hook, name=name)
                return self._result(description, reused=True)
            if status == "InProgress":
                self.log.info("Re-attaching to %s", name)
                break
        else:
            raise AirflowFailException(f"{MOST_ATTEMPTS} transform jobs have failed at this work: read their logs")
        persist_link(context, TransformJobLink, self.hook, name=name)
        trigger = SageMakerWaitTrigger(kind="transform", name=name, **self.trigger_arguments(self.timeout_s))
        result: dict[str, Any] = self.wait_with(trigger, "execute_complete", context)
        return result

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result, or fail with the reason."""
        if not event:
            raise AirflowException("The trigger fired no event")
        name = event["name"]
        if event["status"] != "success":
            reason = event["message"] or "SageMaker gave no reason; read the job's log"
            raise AirflowException(f"Transform job {name} ended as {event['state'] or event['status']}: {reason}")
        description = self._resources_hook().transform_job(name)
        if description is None:
            raise AirflowException(f"Transform job {name} is gone: somebody deleted it")
        return self._result(description, reused=False)

    def _request(self) -> dict[str, Any]:
        return {
            "ModelName": self.model["model_name"],
            "MaxConcurrentTransforms": self.max_concurrent,
            "BatchStrategy": "SingleRecord",
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": self.dataset["test_uri"]}},
                "ContentType": self.content_type,
                "SplitType": "None",
            },
            "TransformOutput": {
                "S3OutputPath": self.model["answers_uri"].rstrip("/"),
                "Accept": "application/jsonlines",
                "AssembleWith": "None",
            },
            "TransformResources": {
                "InstanceType": self.instance_type,
                "InstanceCount": as_int("instance_count", self.instance_count),
            },
        }

    def _create(self, request: dict[str, Any]) -> None:
        self.log.info("Creating transform job %s over %s", request["TransformJobName"], self.dataset["test_uri"])
        try:
            self.hook.conn.create_transform_job(**request)
        except self.hook.conn.exceptions.ClientError as error:
            if not already_there(error):
                raise

    def _has_output(self) -> bool:
        bucket, _, prefix = self.model["answers_uri"].removeprefix("s3://").partition("/")
        return next(EvaluationStore(bucket, self.aws_conn_id).objects(prefix.rstrip("/") + "/"), None) is not None

    def _result(self, description: dict[str, Any], *, reused: bool) -> dict[str, Any]:
        self.serialized_transform = serialize(description)  # OpenLineage reads both
        self.serialized_model = serialize(self._resources_hook().model(description["ModelName"]) or {})
        started, ended = description.get("TransformStartTime"), description.get("TransformEndTime")
        return {
            "job_name": description["TransformJobName"],
            "model_name": description["ModelName"],
            "output_uri": self.model["answers_uri"].rstrip("/") + "/",
            "seconds": (ended - started).total_seconds() if started and ended else None,
            "reused": reused,
        }


class ModelApprovalOperator(ApprovalOperator):
    """Airflow's approval, asked only when it is needed, and written into the model registry.

    Approve: the package becomes Approved, with the person's name, and the run goes on. Reject: the package becomes
    Rejected and everything after is skipped. No answer in time: the task fails for good, the package stays as it was,
    the endpoint is untouched. Any other failure is retried, and the question asked again: Airflow (3.3) marks a task
    failed whose answer comes before its executor has reported the question, and the registry may be throttled.

    A subclass because the provider's operator always asks, and takes its time limit only while the DAG is parsed.

    Args:
        registration, evaluation, decision, training: answers of `register_model`, `evaluate_model`, `check_quality` and
            the training job: whether to ask, and what a person needs to know.
        fleet: {"instance_type", "instance_count"} of the endpoint, for what it costs.
        timeout_minutes: how long the run waits for an answer.
    """

    template_fields: Sequence[str] = (
        *ApprovalOperator.template_fields,
        "registration",
        "evaluation",
        "decision",
        "training",
        "fleet",
        "timeout_minutes",
    )

    def __init__(
        self,
        *,
        registration: Any,
        evaluation: Any,
        decision: Any,
        training: Any,
        fleet: Mapping[str, Any],
        timeout_minutes: int | str = 1440,
        **kwargs: Any,
    ) -> None:
        # Only the direct successor is skipped by the provider; ours is the whole rest of the run.
        super().__init__(ignore_downstream_trigger_rules=True, **kwargs)
        self.registration = registration
        self.evaluation = evaluation
        self.decision = decision
        self.training = training
        self.fleet = dict(fleet)
        self.timeout_minutes = timeout_minutes

    def execute(self, context: Context) -> Any:
        """Ask, or go on when there is nothing to ask."""
        if not self.registration["asks_person"]:
            self.log.info("Nobody is asked: model version %s is approved", self.registration["version"])
            return {"decision": "not asked"}
        page = page_url(f"evaluations/{quote(self.evaluation['training_job_name'], safe='')}")
        fleet = (self.fleet["instance_type"], as_int("instance_count", self.fleet["instance_count"]))
        self.body = question(self.evaluation, self.decision, self.training, page, fleet)
        self.response_timeout = timedelta(minutes=as_int("timeout_minutes", self.timeout_minutes))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the decision down, then skip or go on."""
        if event.get("error_type") == "timeout":
            raise AirflowFailException(f"{event['error']} The model stays unapproved: start a new run to ask again.")
        if "error" not in event:
            user = event.get("responded_by_user") or {}
            name = user.get("name") if isinstance(user, dict) else getattr(user, "name", None)
            status = APPROVED if event["chosen_options"] == [self.APPROVE] else REJECTED
            person = str(name or "a person")
            ModelRegistryHook().set_approval(
                self.registration["model_package_arn"], status, f"{status} in Airflow by {person}", person
            )
        return super().execute_complete(context=context, event=event)
