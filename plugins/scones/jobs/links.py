"""Buttons on a task that lead to the thing it made: AWS's console, or this Airflow's own page where there is no
console.

Which of the two is decided by where the connection points: an endpoint URL of its own means that the AWS console does
not know the thing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

RESOURCE_PAGES = "/scones-resources"
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


class ResourceLink(BaseOperatorLink):
    """A link whose address the task pushes to XCom when it knows the resource's name."""

    name: ClassVar[str] = "Resource"
    page: ClassVar[str] = ""
    console: ClassVar[str] = ""

    @property
    def pushed_key(self) -> str:
        """XCom key under which the task puts the address."""
        return f"link_{self.page}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address the task pushed, or an empty string (no button) when it never got that far."""
        return XCom.get_value(key=self.pushed_key, ti_key=ti_key) or ""


class TrainingJobLink(ResourceLink):
    """The training job."""

    name = "Training job"
    page = "training-jobs"
    console = "sagemaker/home?region={region}#/jobs/{name}"


class TransformJobLink(ResourceLink):
    """The batch transform job."""

    name = "Transform job"
    page = "transform-jobs"
    console = "sagemaker/home?region={region}#/transform-jobs/{name}"


class EndpointLink(ResourceLink):
    """The endpoint."""

    name = "Endpoint"
    page = "endpoints"
    console = "sagemaker/home?region={region}#/endpoints/{name}"


class ExecutionLink(ResourceLink):
    """An execution of the workflow, or its state machine."""

    name = "Step Functions execution"
    page = "executions"
    console = "states/home?region={region}#/v2/executions/details/{name}"


def has_console(endpoint_url: str) -> bool:
    """Return whether the service behind the URL is AWS's own."""
    host = endpoint_url.partition("//")[2].split("/")[0].split(":")[0]
    return host.endswith(_AWS_HOSTS)


def resource_url(link: type[ResourceLink], endpoint_url: str, region: str, name: str, airflow_url: str) -> str:
    """Return the address of the resource's page."""
    if has_console(endpoint_url):
        domain = "console.amazonaws.cn" if endpoint_url.rstrip("/").endswith(".cn") else "console.aws.amazon.com"
        return f"https://{region}.{domain}/{link.console.format(region=region, name=quote(name, safe=':'))}"
    return f"{airflow_url.rstrip('/')}{RESOURCE_PAGES}/{link.page}/{quote(name, safe='')}"


def persist_link(context: Context, link: type[ResourceLink], hook: AwsBaseHook[Any], *, name: str) -> None:
    """Push the address for the button, now that the name is known; it stays when the task fails later."""
    from airflow.sdk.configuration import conf

    url = resource_url(
        link,
        hook.conn_client_meta.endpoint_url,
        hook.conn_region_name,
        name,
        conf.get("api", "base_url", fallback="") or "",
    )
    context["ti"].xcom_push(key=link().pushed_key, value=url)
