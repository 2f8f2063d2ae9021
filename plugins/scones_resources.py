"""Airflow plugin: the pages that the buttons of a task lead to where there is no AWS console.

Plugins are loaded by every Airflow process: the web application is built at its first request, which only the API
server gets.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from scones.jobs.links import RESOURCE_PAGES


class LazyResourcePages:
    """An ASGI application that is built at its first request."""

    def __init__(self) -> None:
        self._application: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if self._application is None:
            from scones.ui.resource_pages import build_application

            self._application = build_application(scope.get("app"))
        await self._application(scope, receive, send)


class SconesResourcesPlugin(AirflowPlugin):
    """A page for each job, endpoint and execution."""

    name = "scones_resources"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": LazyResourcePages(), "url_prefix": RESOURCE_PAGES, "name": "Scones resources"}
    ]
