"""What a command runs on, and the environment that leads Airflow there: the connection `aws_default`, as everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedded import environment, run_folder
from embedded.settings import EmbeddedSettings
from embedded.supervisor import applied

CONNECTION = "AIRFLOW_CONN_AWS_DEFAULT"


@dataclass(frozen=True)
class Target:
    """Where a command runs.

    Args:
        name: for people.
        own: settings of the command line's own Airflow: its database, logs and secrets lie below the run folder.
        variables: the whole environment, ready for Airflow to be imported.
        problem: why nothing can be run here, and what to do; empty where something can.
    """

    name: str
    own: EmbeddedSettings
    variables: dict[str, str]
    problem: str = ""


def find(settings: EmbeddedSettings, environ: Mapping[str, str]) -> Target:
    """Return what the environment names, or else the platform that is up.

    The database is the command line's own: with the platform's, the platform's scheduler would run the same tasks.

    Raises:
        SettingsError: the run folder cannot be used.
    """
    own = replace(settings, run_dir=settings.run_dir / "cli")
    run_folder.prepare(own.run_dir)
    ours = {
        "SCONES_CACHE_DIR": str(settings.run_dir / "cache"),
        # Nothing else waits for this DAG to be read, on however busy a machine: 0 is for as long as it takes.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "0",
    }
    if connection := environ.get(CONNECTION):
        variables = _with_own_aws(own, environ) | ours | {CONNECTION: connection}
        elsewhere = sorted(name for name in environ if name.startswith("AWS_ENDPOINT_URL"))
        problem = f"{CONNECTION} is set, and so is {elsewhere[0]}: unset one of them" if elsewhere else ""
        return Target(f"the connection in {CONNECTION}", own, variables, problem)
    state = run_folder.read_state(settings.run_dir)
    actual = applied(own, state) if state else own
    problem = "" if state else f"no platform is up (`make up` starts one) and {CONNECTION} is not set (see docs/cli.md)"
    return Target(f"the platform at {actual.aws_url}", actual, environment.airflow_environment(actual) | ours, problem)


def _with_own_aws(own: EmbeddedSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Credentials, profile and region are the caller's."""
    variables = environment.airflow_environment(own)
    return {name: value for name, value in variables.items() if not name.startswith("AWS_")} | {
        name: value for name, value in environ.items() if name.startswith("AWS_")
    }
