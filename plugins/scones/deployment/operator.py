"""Deploying a model to an endpoint, with proof."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError

from scones.aws.lineage import tags
from scones.deployment.aws import deregister, register
from scones.deployment.data import Deployment
from scones.deployment.endpoint import (
    Capture,
    EndpointDeploymentError,
    Rollout,
    ScalingPolicy,
    Step,
    deployment_config,
    endpoint_config_request,
    is_deploying,
    next_step,
    serving_problems,
)
from scones.jobs.links import EndpointLink, persist_link
from scones.jobs.operator import WaitingMixin, as_int
from scones.jobs.trigger import EndpointGoneTrigger, SageMakerWaitTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class EndpointDeployOperator(WaitingMixin, AwsBaseOperator[SageMakerHook]):
    """Make an endpoint serve a model: create, update, recreate or leave alone, whichever it takes.

    Own operator instead of the provider's three (SageMakerModelOperator, -EndpointConfigOperator, -EndpointOperator),
    because those of 9.39.0: report success after SageMaker has rolled an update back (they never look at which config
    is served); fail on a retry because the names exist; cannot leave the Failed state; poll UpdateRollbackFailed and
    OutOfService until they run out of attempts; know no DeploymentConfig. Needed until the provider compares
    EndpointConfigName after waiting.

    The result (XCom): `scones.deployment.data.Deployment`.

    Args:
        endpoint_name: the endpoint.
        model: {"model_name", "image", "model_data_url"}, a model that exists.
        fleet: {"instance_type", "instance_count", "max_capacity"}; that many instances it may scale out to, 0 (or not
            above instance_count) for no autoscaling.
        capture: {"uri", "percent"}: ``s3://bucket/prefix`` of the data capture and the captured share of the requests;
            None for no capture.
        rollout: members of `scones.deployment.endpoint.Rollout`; ``alarms`` with commas.
        delete_on_failure: delete the endpoint when it cannot be brought up (for short-lived ones).
        timeout_s: how long the whole deployment may take.

    Raises:
        EndpointDeploymentError: the endpoint does not serve what was asked, with SageMaker's reason.
    """

    aws_hook_class = SageMakerHook
    template_fields: Sequence[str] = (
        *AwsBaseOperator.template_fields,
        "endpoint_name",
        "model",
        "fleet",
        "capture",
        "rollout",
    )
    operator_extra_links = (EndpointLink(),)

    def __init__(
        self,
        *,
        endpoint_name: str,
        model: Any,
        fleet: Mapping[str, Any] | None = None,
        capture: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
        delete_on_failure: bool = False,
        timeout_s: float = 3600,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint_name = endpoint_name
        self.model = model
        self.fleet = dict(fleet or {})
        self.capture = dict(capture or {})
        self.rollout = dict(rollout or {})
        self.delete_on_failure = delete_on_failure
        self.timeout_s = timeout_s
        self.deferrable = deferrable

    def execute(self, context: Context) -> Deployment:
        """Take the first step."""
        hook = self._resources_hook()
        request = self._config_request(context)
        # Contradicting settings are found before anything is created.
        update_policy = self._deployment_config()
        hook.ensure_endpoint_config(request)
        persist_link(context, EndpointLink, self.hook, name=self.endpoint_name)
        description = hook.endpoint(self.endpoint_name)
        progress = {
            "config_name": request["EndpointConfigName"],
            "deployment_config": update_policy,
            "previous": self._previous(context, description, request["EndpointConfigName"]),
            "submitted": is_deploying(description, request["EndpointConfigName"]),
            "action": "unchanged",
            "began": time.time(),
        }
        return self._advance(context, progress)

    def resume(self, context: Context, event: dict[str, Any]) -> Deployment:
        """Go on after a wait."""
        if event["status"] == "timeout":
            self._give_up(f"it took more than {self.timeout_s:.0f} s: {event['message']}")
        if event["status"] == "error":
            raise AirflowException(f"Endpoint {self.endpoint_name} can no longer be seen: {event['message']}")
        return self._advance(context, event["carry"])

    def on_kill(self) -> None:
        """Delete a short-lived endpoint; a real one keeps serving, whatever becomes of the task."""
        if self.delete_on_failure:
            self._resources_hook().delete("delete_endpoint", EndpointName=self.endpoint_name)

    def _previous(self, context: Context, description: Mapping[str, Any] | None, config_name: str) -> str:
        """Return the config that served before this task touched the endpoint; an earlier try may have done so."""
        serving = str((description or {}).get("EndpointConfigName") or "")
        # Survives the worker, unlike XCom, which a retry clears. Absent outside a task run.
        store = context.get("task_state_store")
        if store is None:
            return serving
        key = f"before-{config_name}"
        if serving == config_name or is_deploying(description, config_name):
            return str(store.get(key, serving))
        store.set(key, serving)
        return serving

    def _advance(self, context: Context, progress: dict[str, Any]) -> Deployment:
        hook = self._resources_hook()
        description = hook.endpoint(self.endpoint_name)
        step, why = next_step(description, progress["config_name"], submitted=progress["submitted"])
        self.log.info("Next: %s, because %s", step.value, why)
        match step:
            case Step.DONE:
                return self._finish(progress)
            case Step.FAIL:
                self._give_up(why)
            case Step.DELETE:
                deregister(self.endpoint_name, self.aws_conn_id)
                hook.delete("delete_endpoint", EndpointName=self.endpoint_name)
                progress = {**progress, "action": "recreated"}
            case Step.CREATE:
                hook.conn.create_endpoint(
                    EndpointName=self.endpoint_name,
                    EndpointConfigName=progress["config_name"],
                    Tags=self._tags(context),
                )
                action = "recreated" if progress["action"] == "recreated" else "created"
                progress = {**progress, "submitted": True, "action": action}
            case Step.UPDATE:
                hook.conn.update_endpoint(
                    EndpointName=self.endpoint_name,
                    EndpointConfigName=progress["config_name"],
                    DeploymentConfig=progress["deployment_config"],
                )
                progress = {**progress, "submitted": True, "action": "updated"}
        deleting = step is Step.DELETE or (description or {}).get("EndpointStatus") == "Deleting"
        return self._wait(context, progress, gone=deleting)

    def _wait(self, context: Context, progress: dict[str, Any], *, gone: bool) -> Deployment:
        left = progress["began"] + self.timeout_s - time.time()
        trigger_class = EndpointGoneTrigger if gone else SageMakerWaitTrigger
        trigger = trigger_class(
            kind="endpoint",
            name=self.endpoint_name,
            stop_on_kill=False,
            carry=progress,
            **self.trigger_arguments(max(1.0, left)),
        )
        result: Deployment = self.wait_with(trigger, "resume", context)
        return result

    def _finish(self, progress: Mapping[str, Any]) -> Deployment:
        hook = self._resources_hook()
        endpoint = hook.endpoint(self.endpoint_name) or {}
        config = hook.endpoint_config(progress["config_name"]) or {"ProductionVariants": [{}]}
        model = hook.model(self.model["model_name"]) or {}
        problems = serving_problems(endpoint, config, model, {**self.model, "config_name": progress["config_name"]})
        if problems:
            self._give_up("; ".join(problems))
        policy = ScalingPolicy(
            min_capacity=self._instance_count(), max_capacity=as_int("max_capacity", self.fleet.get("max_capacity", 0))
        )
        if policy.wanted:
            register(self.endpoint_name, policy, self.aws_conn_id)
        seconds = round(time.time() - progress["began"], 1)
        self.log.info(
            "Endpoint %s serves %s (%s, %s s)",
            self.endpoint_name,
            self.model["model_name"],
            progress["action"],
            seconds,
        )
        previous = progress["previous"] if progress["previous"] != progress["config_name"] else ""
        return {
            "endpoint_name": self.endpoint_name,
            "endpoint_arn": endpoint["EndpointArn"],
            "endpoint_config_name": progress["config_name"],
            "previous_endpoint_config_name": previous,
            "endpoint_status": endpoint["EndpointStatus"],
            "action": progress["action"],
            "seconds": seconds,
            "model_name": self.model["model_name"],
            "model_data_url": self.model["model_data_url"],
            "image": self.model["image"],
        }

    def _give_up(self, why: str) -> Never:
        if self.delete_on_failure:
            try:
                self._resources_hook().delete("delete_endpoint", EndpointName=self.endpoint_name)
            except ClientError as error:
                # SageMaker refuses while the endpoint is being created; the cleanup DAG finds it. The reason matters
                # more.
                self.log.warning("Endpoint %s could not be deleted: %s", self.endpoint_name, error)
        raise EndpointDeploymentError(f"Endpoint {self.endpoint_name} does not serve {self.model['model_name']}: {why}")

    def _instance_count(self) -> int:
        return as_int("instance_count", self.fleet.get("instance_count", 1))

    def _config_request(self, context: Context) -> dict[str, Any]:
        capture = None
        if self.capture:
            capture = Capture(self.capture["uri"], as_int("capture_percent", self.capture.get("percent", 100)))
        return endpoint_config_request(
            model_name=self.model["model_name"],
            instance_type=self.fleet.get("instance_type", "ml.m5.large"),
            instance_count=self._instance_count(),
            capture=capture,
            tags=self._tags(context),
        )

    def _deployment_config(self) -> dict[str, Any]:
        asked = self.rollout
        rollout = Rollout(
            strategy=asked.get("strategy", "all_at_once"),
            canary_percent=as_int("canary_percent", asked.get("canary_percent", 50)),
            bake_time_s=as_int("bake_time_s", asked.get("bake_time_s", 0)),
            alarms=[name.strip() for name in asked.get("alarms", "").split(",") if name.strip()],
        )
        return deployment_config(rollout, self._instance_count())

    def _tags(self, context: Context) -> list[dict[str, str]]:
        return tags({"dag_id": context["ti"].dag_id, "run_id": context["run_id"]})
