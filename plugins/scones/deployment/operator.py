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
from scones.aws.resources import client
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
            above instance_count) for no autoscaling. Without the last, an endpoint goes on scaling as it did.
        capture: {"uri", "percent"}: ``s3://bucket/prefix`` of the data capture and the captured share of the requests;
            None for no capture.
        rollout: members of `scones.deployment.endpoint.Rollout`; ``alarms`` with commas.
        delete_on_failure: delete the endpoint when it cannot be brought up (for short-lived ones).
        timeout_s: how long the whole deployment may take, its baking aside.

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
        rollout = self._rollout()
        update_policy = deployment_config(rollout, self._instance_count())
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
            "deadline": time.time() + self.timeout_s + rollout.baking_s,
            "scaled": self._scaled_before(context),
        }
        return self._advance(context, progress)

    def resume(self, context: Context, event: dict[str, Any]) -> Deployment:
        """Go on after a wait."""
        if event["status"] == "timeout":
            seconds = event["carry"]["deadline"] - event["carry"]["began"]
            self._give_up(f"it took more than {seconds:.0f} s: {event['message']}", event["carry"])
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
                self._give_up(why, progress)
            case Step.DELETE:
                progress = self._unscaled(context, {**progress, "action": "recreated"})
                hook.delete("delete_endpoint", EndpointName=self.endpoint_name)
            case Step.CREATE:
                hook.conn.create_endpoint(
                    EndpointName=self.endpoint_name,
                    EndpointConfigName=progress["config_name"],
                    Tags=self._tags(context),
                )
                action = "recreated" if progress["action"] == "recreated" else "created"
                progress = {**progress, "submitted": True, "action": action}
            case Step.UPDATE:
                progress = self._unscaled(context, {**progress, "submitted": True, "action": "updated"})
                try:
                    hook.conn.update_endpoint(
                        EndpointName=self.endpoint_name,
                        EndpointConfigName=progress["config_name"],
                        DeploymentConfig=progress["deployment_config"],
                    )
                except ClientError:
                    self._scale_as_before(progress)
                    raise
        deleting = step is Step.DELETE or (description or {}).get("EndpointStatus") == "Deleting"
        return self._wait(context, progress, gone=deleting)

    def _wait(self, context: Context, progress: dict[str, Any], *, gone: bool) -> Deployment:
        left = progress["deadline"] - time.time()
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
            self._give_up("; ".join(problems), progress)
        self._scale(progress)
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

    def _scale(self, progress: Mapping[str, Any]) -> None:
        if "max_capacity" not in self.fleet:
            self._scale_as_before(progress)
            return
        policy = ScalingPolicy(self._instance_count(), as_int("max_capacity", self.fleet["max_capacity"]))
        if policy.wanted:
            register(self.endpoint_name, policy, self._scaling())
        else:
            deregister(self.endpoint_name, self._scaling())

    def _scaling(self) -> Any:
        return client("application-autoscaling", self.aws_conn_id)

    def _unscaled(self, context: Context, progress: dict[str, Any]) -> dict[str, Any]:
        """Take the endpoint out of autoscaling; how far it could scale is kept, also from a worker's death."""
        if (scaled := deregister(self.endpoint_name, self._scaling())) is None:
            return progress
        if (store := context.get("task_state_store")) is not None:
            store.set("scaled", f"{scaled.min_capacity} {scaled.max_capacity}")
        return {**progress, "scaled": [scaled.min_capacity, scaled.max_capacity]}

    @staticmethod
    def _scaled_before(context: Context) -> list[int] | None:
        store = context.get("task_state_store")
        kept = store.get("scaled", "") if store is not None else ""
        return [int(one) for one in str(kept).split()] or None

    def _scale_as_before(self, progress: Mapping[str, Any]) -> None:
        if progress["scaled"]:
            register(self.endpoint_name, ScalingPolicy(*progress["scaled"]), self._scaling())

    def _give_up(self, why: str, progress: Mapping[str, Any]) -> Never:
        try:
            if self.delete_on_failure:
                self._resources_hook().delete("delete_endpoint", EndpointName=self.endpoint_name)
            else:
                self._scale_as_before(progress)
        except ClientError as error:
            # SageMaker deletes nothing that is being created (the cleanup DAG finds it), and scales nothing that
            # failed. The reason matters more.
            self.log.warning("Endpoint %s stays as it is: %s", self.endpoint_name, error)
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

    def _rollout(self) -> Rollout:
        asked = self.rollout
        return Rollout(
            strategy=asked.get("strategy", "all_at_once"),
            canary_percent=as_int("canary_percent", asked.get("canary_percent", 50)),
            bake_time_s=as_int("bake_time_s", asked.get("bake_time_s", 0)),
            alarms=[name.strip() for name in asked.get("alarms", "").split(",") if name.strip()],
        )

    def _tags(self, context: Context) -> list[dict[str, str]]:
        return tags({"dag_id": context["ti"].dag_id, "run_id": context["run_id"]})
