"""Buttons on a task: to the thing it made (a job, an endpoint) and to the page it wrote (a report, an evaluation).

A thing is shown by AWS's console where there is one, else by a page of this Airflow. Where the connection points tells
which: the console doesn't know what lies behind an endpoint URL of its own. ``@report_task()`` is ``@task`` with a
button to the page the task wrote. The pages are served by the plugin `scones_ui`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperatorLink
from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.execution_time.xcom import XCom

from scones.defaults import PAGES

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.types import TaskInstanceKey

_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def page_url(path: str) -> str:
    """Return the address of a page of the plugin; ``path`` is below `PAGES`."""
    from airflow.sdk.configuration import conf

    return f"{(conf.get('api', 'base_url', fallback='') or '').rstrip('/')}{PAGES}/{path}"


# ---- things


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


class TuningJobLink(ResourceLink):
    """The tuning job."""

    name = "Tuning job"
    page = "tuning-jobs"
    console = "sagemaker/home?region={region}#/hyper-tuning-jobs/{name}"


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


def has_console(endpoint_url: str) -> bool:
    """Return whether the service behind the URL is AWS's own."""
    return (urlsplit(endpoint_url).hostname or "").endswith(_AWS_HOSTS)


def resource_url(link: type[ResourceLink], endpoint_url: str, region: str, name: str) -> str:
    """Return the address of the resource's page."""
    if not has_console(endpoint_url):
        return page_url(f"resources/{link.page}/{quote(name, safe='')}")
    domain = "console.amazonaws.cn" if endpoint_url.rstrip("/").endswith(".cn") else "console.aws.amazon.com"
    return f"https://{region}.{domain}/{link.console.format(region=region, name=quote(name, safe=':'))}"


def persist_link(context: Context, link: type[ResourceLink], hook: AwsBaseHook[Any], *, name: str) -> None:
    """Push the address for the button, now that the name is known; it stays when the task fails later."""
    url = resource_url(link, hook.conn_client_meta.endpoint_url, hook.conn_region_name, name)
    context["ti"].xcom_push(key=link().pushed_key, value=url)


# ---- pages


class PageLink(BaseOperatorLink):
    """A link to a page of the plugin; no button when the task wrote none."""

    name: ClassVar[str] = "Page"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """Path below `PAGES`, or an empty string."""
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address; Airflow asks once, when the task has ended."""
        path = self.path(ti_key)
        return page_url(path) if path else ""


class ReportLink(PageLink):
    """The monitoring report that the task returned."""

    name = "Monitoring report"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """``reports/<endpoint>/<report_id>``."""
        written = XCom.get_value(key="return_value", ti_key=ti_key) or {}
        if not written.get("report_id"):
            return ""
        return f"reports/{quote(written['endpoint_name'], safe='')}/{quote(written['report_id'], safe='')}"


class EvaluationLink(PageLink):
    """The page of the evaluation that the task returned."""

    name = "Evaluation"

    def path(self, ti_key: TaskInstanceKey) -> str:
        """``evaluations/<training job>``."""
        evaluated = XCom.get_value(key="return_value", ti_key=ti_key) or {}
        job = evaluated.get("training_job_name")
        return f"evaluations/{quote(job, safe='')}" if job else ""


def page_task(link: PageLink) -> Callable[..., TaskDecorator]:
    """Return ``@task`` with a button. It makes an operator class of its own, where Airflow looks for the buttons."""
    operator = type(f"_{type(link).__name__}Operator", (_PythonDecoratedOperator,), {"operator_extra_links": (link,)})

    def decorate(**options: Any) -> TaskDecorator:
        return task_decorator_factory(multiple_outputs=False, decorated_operator_class=operator, **options)

    return decorate


report_task = page_task(ReportLink())
evaluation_task = page_task(EvaluationLink())
