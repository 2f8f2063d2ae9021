"""The values files for Apache's Helm chart, held against what Airflow, the image and compose know."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "infrastructure" / "helm"
TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _list_of(*required: str) -> dict[str, Any]:
    return {"type": "array", "items": _object(**dict.fromkeys(required, TEXT)) | {"required": list(required)}}


ACCOUNT = {"serviceAccount": _object(annotations=TEXTS)}
# The keys we use, each looked up in the values and the documentation of a chart; not the whole schema of one release.
CHART = _object(
    airflowVersion=TEXT,
    apiSecretKeySecretName=TEXT,
    apiServer=_object(**ACCOUNT),
    config={"type": "object", "additionalProperties": TEXTS},
    dagProcessor=_object(**ACCOUNT),
    data=_object(metadataSecretName=TEXT),
    defaultAirflowRepository=TEXT,
    defaultAirflowTag=TEXT,
    env=_list_of("name", "value"),
    executor={"type": "string", "pattern": r"^[A-Z][a-zA-Z0-9]+Executor$"},
    extraEnv=TEXT,
    fernetKeySecretName=TEXT,
    jwtSecretName=TEXT,
    postgresql=_object(enabled={"type": "boolean"}),
    secret=_list_of("envName", "secretName", "secretKey"),
    statsd=_object(enabled={"type": "boolean"}),
    triggerer=_object(**ACCOUNT),
    workers=_object(replicas={"type": "integer"}, **ACCOUNT),
)


def merged(below: Any, above: Any) -> Any:
    """As Helm lays one values file over another: mappings merge, all else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


@pytest.fixture(params=["celery", "kubernetes"])
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    below, above = (yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in ("values", request.param))
    return dict(merged(below, above))


def options(values: dict[str, Any]) -> dict[str, str]:
    return {
        f"AIRFLOW__{section}__{name}".upper(): value
        for section, chosen in values["config"].items()
        for name, value in chosen.items()
    }


def test_the_chart_takes_the_values(values):
    jsonschema.validate(values, CHART)


def test_airflow_has_the_options(values):
    from airflow.configuration import conf

    known = {section: set(conf.getsection(section) or {}) for section in values["config"]}
    # The celery provider is in the image alone.
    unknown = {
        (section, name)
        for section, chosen in values["config"].items()
        for name in chosen
        if section != "celery" and name not in known[section]
    }
    assert not unknown


def test_what_compose_sets_too_it_sets_alike(values):
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["x-airflow"]["environment"]
    both = {name: value for name, value in options(values).items() if name in compose}
    assert len(both) >= 7
    assert both == {name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", compose[name]) for name in both}


def test_the_image_takes_the_charts_executor(values):
    (variable,) = yaml.safe_load(values["extraEnv"].replace("{{ .Values.executor }}", values["executor"]))
    said = subprocess.run(
        ["sh", ROOT / "docker" / "airflow-entrypoint.sh", "sh", "-c", 'echo "$AIRFLOW__CORE__EXECUTOR"'],
        env={variable["name"]: variable["value"], "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == values["executor"]


def test_the_image_is_as_the_chart_takes_it_for_granted(values):
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "useradd --uid 50000 --gid 0" in dockerfile  # the chart's uid and gid
    assert "AIRFLOW_HOME=/opt/airflow" in dockerfile  # where it mounts airflow.cfg
    locked = (ROOT / "requirements-airflow.txt").read_text()
    assert f"\napache-airflow=={values['airflowVersion']} " in locked
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert values["defaultAirflowTag"] == project["version"]
