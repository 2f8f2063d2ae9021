"""Settings of the embedded platform: ports, folders, names. From the environment, then `.env`, then the default."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PASSWORD = "admin"  # noqa: S105 - documented, and refused on anything but loopback
LOOPBACK = "127.0.0.1"
DEFAULT_AWS_SECRET_KEY = "test"  # noqa: S105 - what everybody sends to an AWS that is none
PORT_FIELDS = ("airflow_port", "aws_port", "sagemaker_port")


class SettingsError(ValueError):
    """A setting cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class EmbeddedSettings:
    """Where the embedded platform lives and listens.

    Each field is read from the variable named in `VARIABLES`. `host` is the address Airflow's web server binds to; the
    two services that run code for whoever reaches them are on loopback, whatever it says. `aws_secret_key` is what
    requests to them are signed with; as long as it is the well-known default, any signature will do.
    """

    run_dir: Path = PROJECT_ROOT / ".run"
    host: str = LOOPBACK
    airflow_port: int = 8080
    aws_port: int = 4566
    sagemaker_port: int = 4580
    region: str = "us-east-1"
    stack_name: str = "scones"
    user: str = "admin"
    password: str = DEFAULT_PASSWORD
    aws_secret_key: str = DEFAULT_AWS_SECRET_KEY
    parallelism: int = 4
    lambda_concurrency: int = 4
    cifar100_archive: str = ""
    explicit_ports: frozenset[str] = frozenset()

    @property
    def aws_url(self) -> str:
        return f"http://{LOOPBACK}:{self.aws_port}"

    @property
    def sagemaker_url(self) -> str:
        return f"http://{LOOPBACK}:{self.sagemaker_port}"

    @property
    def airflow_url(self) -> str:
        return f"http://{self.host}:{self.airflow_port}"

    @property
    def verified_secret_key(self) -> str:
        """The secret that signatures must be made with; empty as long as it is the one that everybody knows."""
        return "" if self.aws_secret_key == DEFAULT_AWS_SECRET_KEY else self.aws_secret_key

    @property
    def logs_dir(self) -> Path:
        return self.run_dir / "logs"

    @property
    def airflow_home(self) -> Path:
        return self.run_dir / "airflow"


VARIABLES = {
    item.name: f"SCONES_{item.name.upper()}" for item in fields(EmbeddedSettings) if item.name != "explicit_ports"
} | {"user": "SCONES_ADMIN_USER", "password": "SCONES_ADMIN_PASSWORD", "cifar100_archive": "CIFAR100_ARCHIVE"}


def load(environ: Mapping[str, str] | None = None, env_file: Path = PROJECT_ROOT / ".env") -> EmbeddedSettings:
    """Read the settings.

    Raises:
        SettingsError: a number is not one, a port is out of range or used twice, or the default password would be
            reachable from other machines.
    """
    from dotenv import dotenv_values

    sources = [dotenv_values(env_file), environ or os.environ]
    merged = {key: value for source in sources for key, value in source.items() if value}
    values: dict[str, object] = {}
    for item in fields(EmbeddedSettings):
        name, default, variable = item.name, item.default, VARIABLES.get(item.name, "")
        if not (text := merged.get(variable)):
            continue
        if isinstance(default, int):
            try:
                values[name] = int(text)
            except ValueError as error:
                raise SettingsError(f"{variable}={text!r} is not a whole number") from error
        else:
            values[name] = Path(text).expanduser().resolve() if isinstance(default, Path) else text
    values["explicit_ports"] = frozenset(name for name in PORT_FIELDS if name in values)
    settings = replace(EmbeddedSettings(), **values)  # type: ignore[arg-type]
    _check(settings)
    return settings


def _check(settings: EmbeddedSettings) -> None:
    taken: dict[int, str] = {}
    for name in PORT_FIELDS:
        port = getattr(settings, name)
        if not 1 <= port <= 65535:
            raise SettingsError(f"{VARIABLES[name]}={port} is not a port: choose one from 1 to 65535")
        if port in taken:
            raise SettingsError(f"{VARIABLES[name]} and {VARIABLES[taken[port]]} are both {port}: give each its own")
        taken[port] = name
    if not is_loopback(settings.host) and settings.password == DEFAULT_PASSWORD:
        raise SettingsError(
            f"SCONES_HOST={settings.host} can be reached from other machines: set SCONES_ADMIN_PASSWORD to a password"
            " of your own first"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def port_is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = LOOPBACK) -> int:
    """Return a port nobody listens on now; the kernel chooses it."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def with_usable_ports(settings: EmbeddedSettings, move: bool) -> EmbeddedSettings:
    """Check that every port is free; with ``move``, replace the busy ones nobody asked for by free ones.

    Raises:
        SettingsError: a port that was asked for (or any, without ``move``) is in use.
    """
    changes: dict[str, int] = {}
    for name in PORT_FIELDS:
        port = getattr(settings, name)
        host = settings.host if name == "airflow_port" else LOOPBACK
        if port_is_free(host, port):
            continue
        if not move or name in settings.explicit_ports:
            raise SettingsError(
                f"Port {port} on {host} is in use by another program: end it, or set {VARIABLES[name]} to a"
                " free port (in the environment or in .env)"
            )
        changes[name] = free_port(host)
    return replace(settings, **changes)  # type: ignore[arg-type]
