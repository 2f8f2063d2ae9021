"""Training on SageMaker that is paid for once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator, serialize
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from scones.aws import layout
from scones.aws.errors import already_there, not_found
from scones.aws.lineage import tags
from scones.aws.resources import vpc_config
from scones.aws.sagemaker import SageMakerResourcesHook
from scones.aws.store import ObjectStore
from scones.jobs.links import TrainingJobLink, has_console, persist_link
from scones.jobs.operator import WaitingMixin, as_bool, as_int
from scones.jobs.trigger import TrainingJobTrigger
from scones.training.costs import cost_line
from scones.training.data import TrainingResult
from scones.training.job import (
    InvalidTrainingJobError,
    TrainingSpec,
    build_training_request,
    failure_text,
    fingerprint,
    is_final_failure,
    same_work,
    training_job_name,
    training_result,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

# Finding machines and downloading data come on top of MaxRuntimeInSeconds, which counts the work alone.
STARTUP_ALLOWANCE_S = 3600
MOST_ATTEMPTS = 50


class TrainingOperator(WaitingMixin, SageMakerTrainingOperator):
    """Train the built-in image-classification algorithm; run the job at most once per run, and not at all if unchanged.

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
        "force_retrain",
    )
    operator_extra_links = (TrainingJobLink(),)

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
        self.force_retrain = force_retrain
        self._running_job = ""

    def execute(self, context: Context) -> TrainingResult:
        """Find this run's job, or a finished one that did the same work, or start one; then wait."""
        spec = self._spec()
        run_key = f"{context['ti'].dag_id}/{context['run_id']}/{context['ti'].task_id}"
        try:
            request = build_training_request(spec, training_job_name(run_key, 1), self._tags(context, spec))
        except InvalidTrainingJobError as error:
            raise AirflowFailException(str(error)) from error
        mark = fingerprint(spec)
        attempt, description = self._own_job(run_key, request)
        if description is None and not as_bool(self.force_retrain):
            reusable = self._reusable_job(spec, mark)
            if reusable is not None:
                self.log.info(
                    "Not training: %s had the same data, hyperparameters and image. Set force_retrain to train again.",
                    reusable["TrainingJobName"],
                )
                return self._finish(context, reusable, mark, reused=True)
        name = training_job_name(run_key, attempt)
        if description is None:
            self._create({**request, "TrainingJobName": name})
        else:
            self.log.info("Re-attaching to %s, which this run has started before", name)
        persist_link(context, TrainingJobLink, self.hook, name=name)
        if description is not None and description["TrainingJobStatus"] == "Completed":
            return self._finish(context, description, mark, reused=False)
        self._running_job = name
        trigger = TrainingJobTrigger(
            kind="training",
            name=name,
            carry={"fingerprint": mark},
            **self.trigger_arguments(
                spec.max_runtime_s + as_int("spot_wait_s", self.spot_wait_s) + STARTUP_ALLOWANCE_S
            ),
        )
        result: TrainingResult = self.wait_with(trigger, "execute_complete", context)
        return result

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> TrainingResult:
        """Turn the end of the wait into a result, or into a failure that says why."""
        if not event:
            raise AirflowException("The trigger fired no event")
        name, status = event["name"], event["status"]
        if status == "timeout":
            raise AirflowException(f"Training job {name} was still {event['state']} at the deadline and was stopped")
        if status == "error":
            raise AirflowException(f"Training job {name} can no longer be seen: {event['message']}")
        description = self._resources_hook().training_job(name)
        if description is None:
            raise AirflowException(f"Training job {name} is gone: somebody deleted it")
        if status != "success":
            # A retry would pay for the same failure once more.
            raise (AirflowFailException if is_final_failure(description) else AirflowException)(
                failure_text(description)
            )
        return self._finish(context, description, event["carry"]["fingerprint"], reused=False)

    def on_kill(self) -> None:
        """Stop the job when the task is killed in its worker (the trigger does it while the task is deferred)."""
        if not self._running_job:
            return
        self.log.warning("Stopping training job %s", self._running_job)
        try:
            self.hook.conn.stop_training_job(TrainingJobName=self._running_job)
        except self.hook.conn.exceptions.ClientError as error:
            if not not_found(error):
                raise
            self.log.info("Nothing to stop: %s", error)

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

    def _tags(self, context: Context, spec: TrainingSpec) -> list[dict[str, str]]:
        return tags(
            {
                "dag_id": context["ti"].dag_id,
                "run_id": context["run_id"],
                "dataset_version": spec.dataset["dataset_version"],
                "fingerprint": fingerprint(spec),
            }
        )

    def _resources_hook(self) -> SageMakerResourcesHook:
        return SageMakerResourcesHook(
            aws_conn_id=self.aws_conn_id, region_name=self.region_name, verify=self.verify, config=self.botocore_config
        )

    def _own_job(self, run_key: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
        """Return the first free attempt, or the attempt whose job runs or ran to the end. Describes, never lists."""
        hook = self._resources_hook()
        for attempt in range(1, MOST_ATTEMPTS + 1):
            description = hook.training_job(training_job_name(run_key, attempt))
            if description is None:
                return attempt, None
            if description["TrainingJobStatus"] in ("InProgress", "Completed") and same_work(description, request):
                return attempt, description
        raise AirflowFailException(f"This run has already started {MOST_ATTEMPTS} training jobs: start a new run")

    def _reusable_job(self, spec: TrainingSpec, mark: str) -> dict[str, Any] | None:
        store = ObjectStore(spec.bucket, aws_conn_id=self.aws_conn_id)
        record = store.read_json(layout.fingerprint(mark))
        description = self._resources_hook().training_job(record["job_name"]) if record else None
        if description is None or description["TrainingJobStatus"] != "Completed":
            return None
        artifact = description["ModelArtifacts"]["S3ModelArtifacts"]
        return description if store.exists(artifact.removeprefix(f"s3://{spec.bucket}/")) else None

    def _create(self, request: dict[str, Any]) -> None:
        self.hook.check_training_config(request)
        self.log.info("Creating training job %s", request["TrainingJobName"])
        try:
            self.hook.conn.create_training_job(**request)
        except self.hook.conn.exceptions.ClientError as error:
            # The answer to an earlier, identical call was lost on its way.
            if not already_there(error):
                raise

    def _finish(self, context: Context, description: dict[str, Any], mark: str, *, reused: bool) -> TrainingResult:
        self._running_job = ""
        result = training_result(description, fingerprint=mark, reused=reused)
        self.serialized_training_data = serialize(description)  # OpenLineage reads it
        for name, value in result["metrics"].items():
            self.log.info("%s = %.4f", name, value)
        if reused:
            persist_link(context, TrainingJobLink, self.hook, name=result["job_name"])
            return result
        on_aws = has_console(self.hook.conn_client_meta.endpoint_url)
        self.log.info(cost_line(result, on_aws=on_aws))
        store = ObjectStore(self.stack["BucketName"], aws_conn_id=self.aws_conn_id)
        store.write_json(layout.fingerprint(mark), {"job_name": result["job_name"], "metrics": result["metrics"]})
        return result
