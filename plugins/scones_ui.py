"""Airflow plugin: the monitor in the navigation, a run's report in a tab of the run, a page for each job and endpoint.

Plugins are loaded by every Airflow process, so this file imports nothing heavy: the web application is built when its
first request comes, which only the API server gets.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from scones.defaults import PAGES
from scones.notifications import SinceQueued


class LazyApplication:
    """An ASGI application that is built at its first request."""

    def __init__(self) -> None:
        self._application: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if self._application is None:
            from scones.ui.application import build_application

            self._application = build_application(scope.get("app"))
        await self._application(scope, receive, send)


def _view(name: str, path: str, destination: str, route: str) -> dict[str, Any]:
    return {"name": name, "href": f"{PAGES}/{path}", "destination": destination, "url_route": route}


class SconesPlugin(AirflowPlugin):
    """Pages of the project in the Airflow UI, and what its deadlines are counted from."""

    name = "scones"
    deadline_references: ClassVar[list[Any]] = [SinceQueued]
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": LazyApplication(), "url_prefix": PAGES, "name": "Scones monitor"}
    ]
    external_views: ClassVar[list[dict[str, Any]]] = [
        _view("Scones monitor", "", "nav", "scones-monitor") | {"category": "browse"},
        _view("Scones reject queue", "rejects", "nav", "scones-rejects") | {"category": "browse"},
        _view("Report", "runs/{DAG_ID}/{RUN_ID}", "dag_run", "scones-report"),
    ]
