"""Training on SageMaker that is paid for once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator, serialize
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from scones.aws.errors import already_there
from scones.aws.lineage import tags
from scones.aws.naming import EXPERIMENT, trial_name
from scones.aws.resources import vpc_config
from scones.jobs.links import TrainingJobLink, TuningJobLink, has_console, persist_link
from scones.jobs.operator import WaitingMixin, as_bool, as_int
from scones.jobs.states import KINDS
from scones.jobs.trigger import TrainingJobTrigger, TuningJobTrigger
from scones.training.costs import cost_line
from scones.training.data import TrainingResult
from scones.training.job import (
    InvalidTrainingJobError,
    TrainingSpec,
    failure_text,
    is_final_failure,
    training_result,
)
from scones.training.plan import Plan
from scones.training.store import TrainingStore
from scones.training.tuning import best, tuning_failure, tuning_result

if TYPE_CHECKING:
    from airflow.sdk import Context

# Finding machines and downloading data come on top of MaxRuntimeInSeconds, which counts the work alone.
STARTUP_ALLOWANCE_S = 3600
MOST_ATTEMPTS = 50
# Guards the account's quotas, not the workers. Its size is in pools.json (`airflow pools import` reads it).
TRAINING_POOL = "sagemaker_training"


class TrainingOperator(WaitingMixin, SageMakerTrainingOperator):
    """Train the built-in image-classification algorithm, or tune it and take the best of the training jobs; run the job
    at most once per run, and not at all if unchanged.

    A subclass of the provider's operator because that of 9.39.0: starts a second paid job ("<name>-<timestamp>") when
    the task is retried or its worker dies; has no `on_kill`, so that a killed task's job runs and costs on; in
    deferrable mode gives up after 60 polls while the job goes on, prints its log twice at the start and never again,
    and names the failure in a dump of a dict; takes "Stopped" for a success in `execute`. Needed until the provider
    re-attaches, stops and reports.

    A task that is marked failed in the first second or two of its deferral, before the triggerer took it up, is killed
    without anybody being told (Airflow 3.3): stop such a job by hand. Later the job is stopped.

    The result (XCom): `scones.training.data.TrainingResult`.

    Args:
        dataset: answer of `stage_images`.
        stack: outputs of the CloudFormation stack (BucketName, SageMakerRoleArn, TrainingImage).
        training_image: image URI; empty for the stack's, the built-in algorithm's in its region.
        instance_type, instance_count, volume_size_gb, max_runtime_s, input_kind, hyperparameters: see `TrainingSpec`.
        spot_wait_s: managed spot training: how long spot machines may be waited for on top of max_runtime_s; 0 for
            machines on demand.
        extra: any further CreateTrainingJob attributes, merged into the request.
        tuning_jobs: how many training jobs look for the best hyperparameters (`scones.training.tuning`); 0: one job
            with those that were given.
        experiment: the experiment in which the run is a trial, and its jobs are components.
        force_retrain: train even if a completed job with the same data, hyperparameters and image exists.
        deferrable: wait in the triggerer instead of holding a worker slot.

    Raises:
        AirflowFailException: the request is invalid; retrying cannot help.
        AirflowException: the job failed or was stopped; the message says why.
    """

    template_fields: Sequence[str] = (
        *SageMakerTrainingOperator.template_fields,
        "dataset",
        "stack",
        "training_image",
        "instance_type",
        "instance_count",
        "volume_size_gb",
        "max_runtime_s",
        "input_kind",
        "hyperparameters",
        "spot_wait_s",
        "extra",
        "tuning_jobs",
        "experiment",
        "force_retrain",
    )
    operator_extra_links = (TrainingJobLink(), TuningJobLink())

    def __init__(
        self,
        *,
        dataset: Any,
        stack: Any,
        training_image: str = "",
        instance_type: str = "ml.g4dn.xlarge",
        instance_count: int | str = 1,
        volume_size_gb: int | str = 10,
        max_runtime_s: int | str = 3600,
        input_kind: str = "recordio",
        hyperparameters: Mapping[str, Any] | None = None,
        spot_wait_s: int | str = 0,
        extra: Mapping[str, Any] | None = None,
        tuning_jobs: int | str = 0,
        experiment: str = EXPERIMENT,
        force_retrain: bool | str = False,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(config={}, deferrable=deferrable, **kwargs)
        self.dataset = dataset
        self.stack = stack
        self.training_image = training_image
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.volume_size_gb = volume_size_gb
        self.max_runtime_s = max_runtime_s
        self.input_kind = input_kind
        self.hyperparameters = dict(hyperparameters or {})
        self.spot_wait_s = spot_wait_s
        self.extra = dict(extra or {})
        self.tuning_jobs = tuning_jobs
        self.experiment = experiment
        self.force_retrain = force_retrain

    def execute(self, context: Context) -> TrainingResult:
        """Find this run's job, or a finished one that did the same work, or start one; then wait."""
        run_key = f"{context['ti'].dag_id}/{context['run_id']}/{context['ti'].task_id}"
        plan = Plan(self._spec(), run_key, as_int("tuning_jobs", self.tuning_jobs))
        try:
            request = plan.request(1, self._tags(context, plan))
        except InvalidTrainingJobError as error:
            raise AirflowFailException(str(error)) from error
        attempt, description = self._own_job(plan)
        if description is None and not as_bool(self.force_retrain):
            reusable = self._reusable_job(plan)
            if reusable is not None:
                self.log.info(
                    "Not training: %s had the same data, hyperparameters and image. Set force_retrain to train again.",
                    reusable["TrainingJobName"],
                )
                self._join_trial(context, [reusable])
                return self._finish(context, training_result(reusable, fingerprint=plan.mark, reused=True), reusable)
        name, waited = plan.name(attempt), KINDS[plan.kind]
        if description is None:
            self._create(context, plan, {**request, waited.argument: name})
        else:
            self.log.info("Re-attaching to %s, which this run has started before", name)
        persist_link(context, TuningJobLink if plan.tuning_jobs else TrainingJobLink, self.hook, name=name)
        if description is not None and description[waited.status] in waited.succeeded:
            return self._ended(context, plan.kind, description, plan.mark)
        longest = plan.spec.max_runtime_s + as_int("spot_wait_s", self.spot_wait_s) + STARTUP_ALLOWANCE_S
        trigger = (TuningJobTrigger if plan.tuning_jobs else TrainingJobTrigger)(
            kind=plan.kind, name=name, carry={"fingerprint": plan.mark}, **self.trigger_arguments(plan.rounds * longest)
        )
        result: TrainingResult = self.wait_with(trigger, "execute_complete", context)
        return result

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> TrainingResult:
        """Turn the end of the wait into a result, or into a failure that says why."""
        if not event:
            raise AirflowException("The trigger fired no event")
        kind, name, status = event["kind"], event["name"], event["status"]
        what = f"{kind.capitalize()} job {name}"
        if status == "timeout":
            raise AirflowException(f"{what} was still {event['state']} at the deadline and was stopped")
        if status == "error":
            raise AirflowException(f"{what} can no longer be seen: {event['message']}")
        description = self._described(kind, name)
        if description is None:
            raise AirflowException(f"{what} is gone: somebody deleted it")
        return self._ended(context, kind, description, event["carry"]["fingerprint"])

    def _spec(self) -> TrainingSpec:
        return TrainingSpec(
            dataset=self.dataset,
            bucket=self.stack["BucketName"],
            role_arn=self.stack["SageMakerRoleArn"],
            image_uri=self.training_image or self._stacks_image(),
            instance_type=self.instance_type,
            instance_count=as_int("instance_count", self.instance_count),
            volume_size_gb=as_int("volume_size_gb", self.volume_size_gb),
            max_runtime_s=as_int("max_runtime_s", self.max_runtime_s),
            input_kind=self.input_kind,
            hyperparameters=self.hyperparameters,
            on_aws=has_console(self.hook.conn.meta.endpoint_url),
            extra={**vpc_config(self.stack), **self._spot(), **self.extra},
        )

    def _spot(self) -> dict[str, Any]:
        wait = as_int("spot_wait_s", self.spot_wait_s)
        if not wait:
            return {}
        longest = as_int("max_runtime_s", self.max_runtime_s) + wait
        return {"EnableManagedSpotTraining": True, "StoppingCondition": {"MaxWaitTimeInSeconds": longest}}

    def _stacks_image(self) -> str:
        image: str | None = self.stack.get("TrainingImage")
        if not image:
            raise AirflowFailException(
                "The stack has no output TrainingImage: its template is older. Run `make deploy`, or name an image in "
                "the param training_image."
            )
        return image

    def _tags(self, context: Context, plan: Plan) -> list[dict[str, str]]:
        return tags(
            {
                "dag_id": context["ti"].dag_id,
                "run_id": context["run_id"],
                "dataset_version": plan.spec.dataset["dataset_version"],
                "fingerprint": plan.mark,
            }
        )

    def _described(self, kind: str, name: str) -> dict[str, Any] | None:
        hook = self._resources_hook()
        return hook.tuning_job(name) if kind == "tuning" else hook.training_job(name)

    def _own_job(self, plan: Plan) -> tuple[int, dict[str, Any] | None]:
        """Return the first free attempt, or the attempt whose job runs or ran to the end. Describes, never lists."""
        waited = KINDS[plan.kind]
        for attempt in range(1, MOST_ATTEMPTS + 1):
            description = self._described(plan.kind, plan.name(attempt))
            if description is None:
                return attempt, None
            if description[waited.status] in ("InProgress", "Completed") and plan.does(description):
                return attempt, description
        raise AirflowFailException(f"This run has already started {MOST_ATTEMPTS} {plan.kind} jobs: start a new run")

    def _reusable_job(self, plan: Plan) -> dict[str, Any] | None:
        store = TrainingStore(plan.spec.bucket, aws_conn_id=self.aws_conn_id)
        job = store.job_that_did(plan.mark)
        description = self._resources_hook().training_job(job) if job else None
        if description is None or description["TrainingJobStatus"] != "Completed":
            return None
        artifact = description["ModelArtifacts"]["S3ModelArtifacts"]
        return description if store.exists(artifact.removeprefix(f"s3://{plan.spec.bucket}/")) else None

    def _create(self, context: Context, plan: Plan, request: dict[str, Any]) -> None:
        config = self._resources_hook().trial(self.experiment, self._trial(context))
        getattr(self.hook, f"check_{plan.kind}_config")(request)
        self.log.info("Creating %s job %s", plan.kind, request[KINDS[plan.kind].argument])
        try:
            if plan.tuning_jobs:  # takes no ExperimentConfig: its training jobs join the trial when it has ended
                self.hook.conn.create_hyper_parameter_tuning_job(**request)
            else:
                self.hook.conn.create_training_job(**request, ExperimentConfig=config)
        except self.hook.conn.exceptions.ClientError as error:
            # The answer to an earlier, identical call was lost on its way.
            if not already_there(error):
                raise

    def _ended(self, context: Context, kind: str, description: dict[str, Any], mark: str) -> TrainingResult:
        """Return the result of the run's own job, which has ended.

        Raises:
            AirflowException: it made no model.
            AirflowFailException: and would make none the next time; a retry would pay for the same failure once more.
        """
        succeeded = description[KINDS[kind].status] in KINDS[kind].succeeded
        if kind == "tuning":
            name = description["HyperParameterTuningJobName"]
            jobs = self._resources_hook().tuned_jobs(name)
            self._join_trial(context, jobs)
            winner = best(jobs) if succeeded else None
            if winner is not None:
                self.log.info("The best of %d training jobs is %s", len(jobs), winner["TrainingJobName"])
                return self._finish(context, tuning_result(name, winner, jobs, mark), winner)
            failure, final = tuning_failure(description, jobs)
        else:
            if succeeded:
                return self._finish(context, training_result(description, fingerprint=mark, reused=False), description)
            failure, final = failure_text(description), is_final_failure(description)
        raise (AirflowFailException if final else AirflowException)(failure)

    def _trial(self, context: Context) -> str:
        return trial_name(context["ti"].dag_id, context["run_id"])

    def _join_trial(self, context: Context, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Put jobs that were not made with the run's ExperimentConfig into its trial."""
        hook, trial = self._resources_hook(), self._trial(context)
        hook.trial(self.experiment, trial)
        for job in jobs:
            hook.join_trial(trial, f"{job['TrainingJobName']}-aws-training-job")

    def _finish(self, context: Context, result: TrainingResult, description: dict[str, Any]) -> TrainingResult:
        self.serialized_training_data = serialize(description)  # OpenLineage reads it
        for name, value in result["metrics"].items():
            self.log.info("%s = %.4f", name, value)
        persist_link(context, TrainingJobLink, self.hook, name=result["job_name"])
        if result["reused"]:
            return result
        on_aws = has_console(self.hook.conn_client_meta.endpoint_url)
        self.log.info(cost_line(result, on_aws=on_aws))
        TrainingStore(self.stack["BucketName"], aws_conn_id=self.aws_conn_id).note_job(result)
        return result
