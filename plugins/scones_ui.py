"""Airflow plugin: the monitor in the navigation, the report of a run in a tab of the run.

Plugins are loaded by every Airflow process, so this file imports nothing heavy: the web application is built when its
first request comes, which only the API server gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

URL_PREFIX = "/scones"


class LazyApplication:
    """An ASGI application that is built at its first request."""

    def __init__(self) -> None:
        self._application: Any = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if self._application is None:
            from scones.ui.application import build_application

            self._application = build_application(scope.get("app"))
        await self._application(scope, receive, send)


class SconesPlugin(AirflowPlugin):
    """Pages of the project in the Airflow UI."""

    name = "scones"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": LazyApplication(), "url_prefix": URL_PREFIX, "name": "Scones monitor"}
    ]
    external_views: ClassVar[list[dict[str, Any]]] = [
        {
            "name": "Scones monitor",
            "href": f"{URL_PREFIX}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "scones-monitor",
        },
        {
            "name": "Scones reject queue",
            "href": f"{URL_PREFIX}/rejects",
            "destination": "nav",
            "category": "browse",
            "url_route": "scones-rejects",
        },
        {
            "name": "Report",
            "href": f"{URL_PREFIX}/runs/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "scones-report",
        },
    ]
