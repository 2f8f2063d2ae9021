"""Exit 0 when an Airflow component's heartbeat is fresh: ``healthcheck.py scheduler|triggerer|dag_processor|api``."""

import json
import os
import sys
import urllib.request

URL = os.environ.get("SCONES_HEALTH_URL", "http://airflow-api-server:8080/api/v2/monitor/health")

with urllib.request.urlopen(URL, timeout=10) as answer:  # noqa: S310 - a fixed http address
    health = json.load(answer)
component = sys.argv[1]
wanted = "metadatabase" if component == "api" else component
sys.exit(health[wanted]["status"] != "healthy")
