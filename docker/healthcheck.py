"""Exit 0 when an Airflow component's heartbeat is fresh: ``healthcheck.py scheduler|triggerer|dag_processor|api``."""

import json
import os
import sys
import urllib.request
from typing import Any

URL = os.environ.get("SCONES_API_URL", "http://airflow-api-server:8080")


def get(path: str) -> Any:
    with urllib.request.urlopen(URL + path, timeout=10) as answer:  # noqa: S310 - a fixed http address
        return json.load(answer)


component = sys.argv[1]
healthy = get("/api/v2/monitor/health")["metadatabase" if component == "api" else component]["status"] == "healthy"
if component == "api":
    # The API that tasks speak is only built at its first request, which takes seconds and answers nothing meanwhile:
    # the server is not ready before that is done.
    healthy = healthy and get("/execution/health")["status"] == "healthy"
sys.exit(not healthy)
