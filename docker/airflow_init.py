"""One shot before every start: refuse unsafe settings, migrate, create the user and the pools. Safe to run again.

Airflow's own commands, but in one process: loading Airflow takes seconds, and each command would load it anew.
"""

from __future__ import annotations

import ipaddress
import os
import sys


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> int:
    host = os.environ.get("SCONES_HOST") or "127.0.0.1"
    user = os.environ.get("SCONES_ADMIN_USER") or "admin"
    password = os.environ.get("SCONES_ADMIN_PASSWORD") or "admin"
    if password == "admin" and not is_loopback(host):  # noqa: S105 - the default, which is what is refused
        sys.stderr.write(
            f"SCONES_HOST={host} can be reached from other machines, and SCONES_ADMIN_PASSWORD is the default.\n"
            "Set a password of your own in .env first.\n"
        )
        return 1

    from airflow.cli.cli_parser import get_parser

    parser = get_parser()

    def airflow(*words: str) -> None:
        arguments = parser.parse_args(words)
        arguments.func(arguments)

    airflow("db", "migrate")
    login = ("--username", user, "--password", password)
    # Does nothing where the user exists already; the password is the one in .env from now on either way.
    airflow("users", "create", "--role", "Admin", "--firstname", "Scones", "--lastname", "Admin",
            "--email", f"{user}@localhost", *login)  # fmt: skip
    airflow("users", "reset-password", *login)
    airflow("pools", "import", "/opt/scones/plugins/scones/pools.json")
    sys.stdout.write(f"Ready: the database is migrated, the user {user} and the pools exist.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
